"""Terminal sessions started and ended all the time, by vibetunnel-fwd and inside this process, and
one of each that lasts: typed into, resized, stormed by hostile clients, killed. Every recording is
read to its end before its session is removed."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vt.harness import Client, Recording, eventually
from vt.harness import Session as Watched
from vt.storm_client import script

from pyplue import ffi, vt
from pyplue.vt.prune import remove
from soak.load import Load

native = ffi.vt
M_TRIM, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h

# Answers a line with what was typed, and "many ..." with thousands of lines before that.
ANSWERS = """echo ready
while read -r line; do case $line in many*) seq 3000;; esac; echo "[$line]"; done"""
MANY_EVERY = 25
# Takes whatever is typed, and lets only SIGKILL end it.
STUBBORN = 'trap "" TERM HUP INT QUIT; stty raw -echo; echo up; exec cat >/dev/null'


def numbers(count: int) -> str:
    """What `seq` shows on a terminal."""
    return "".join(f"{number}\r\n" for number in range(1, count + 1))


def parent_of(pid: int) -> int:
    """A session's command is a child of its forwarder."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def shown(session: vt.Session, text: str) -> None:
    """Returns once the output contains it."""
    Watched(session.path.parent, session.id).wait_output(text, 20)


class Forwarded:
    """Sessions of vibetunnel-fwd, through pyplue.vt."""

    def __init__(self, control: Path) -> None:
        self.control = control

    def start(self, *argv: str) -> vt.Session:
        return vt.spawn(argv, control_dir=self.control)

    def wait(self, session: vt.Session) -> int:
        return session.wait(timeout=30)

    def kill(self, session: vt.Session, number: int) -> None:
        session.kill(number)


class Hosted:
    """Sessions inside this process, through the C ABI. A session is known by its id as well."""

    def __init__(self, control: Path) -> None:
        self.control = control
        self.handles: dict[str, int] = {}

    def start(self, *argv: str) -> vt.Session:
        text = json.dumps({"argv": argv, "control_dir": str(self.control), "git": False}).encode()
        handle = native.vt_fwd_start(text, len(text))
        assert handle, native.vt_fwd_last_message()
        out = ffi.buffer(64)
        length = native.vt_fwd_session_id(handle, out, 64)
        name = out.raw[:length].decode()
        self.handles[name] = handle
        return vt.Session.open(name, control_dir=self.control)

    def wait(self, session: vt.Session) -> int:
        handle = self.handles.pop(session.id)
        code = int(native.vt_fwd_wait(handle, 30_000))
        assert native.vt_fwd_close(handle)
        return code

    def kill(self, session: vt.Session, number: int) -> None:
        assert native.vt_fwd_kill(self.handles[session.id], number) == 0


class Sessions:
    """Short sessions, each checked and removed at its end."""

    def __init__(self, load: Load, host: Forwarded | Hosted) -> None:
        self.load, self.host = load, host

    def round(self) -> None:
        random.choice((self.output, self.output, self.typed, self.killed, self.stormed))()

    def _end(self, session: vt.Session, code: int) -> Recording:
        ended = self.host.wait(session)
        self.load.check(ended == code, f"{session.id}: exit code {ended}, not {code}")
        recording = Recording(session.cast_path)
        self.load.check(recording.exit == (code, session.id), f"the exit line: {recording.exit}")
        remove(session)
        self.load.count(sessions=1, recorded_kb=len(recording.raw) // 1024)
        return recording

    def output(self) -> None:
        """Much output, with sizes that change meanwhile: all of it is recorded."""
        count = random.choice((1, 100, 5000, 30_000))
        session = self.host.start(
            "sh", "-c", f"stty -echo; echo go; seq {count}; read -r x; exit 3"
        )
        shown(session, "go")
        sizes = [(random.randint(20, 200), random.randint(5, 60)) for _ in range(4)]
        for cols, rows in sizes:
            session.resize(cols, rows)
        session.send(key="enter")
        text = self._end(session, 3).text()
        self.load.check(
            text == "go\r\n" + numbers(count), f"{count} lines became {len(text)} characters"
        )

    def typed(self) -> None:
        session = self.host.start("sh", "-c", ANSWERS)
        session.wait("ready", timeout=20)
        for _ in range(3):
            word = f"w{random.randrange(10**9)}"
            session.send(word, key="enter")
            session.wait(f"[{word}]", timeout=20)
        with Client(session.path / "ipc.sock") as client:
            self.load.check(client.answers(), "no heartbeat")
        session.send(key="ctrl+d")
        recording = self._end(session, 0)
        self.load.check(len(recording.of_kind("i")) >= 4, "typed text is not recorded")

    def killed(self) -> None:
        number = random.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGHUP))
        session = self.host.start("sleep", "100")
        self.host.kill(session, number)
        self._end(session, 128 + number)

    def stormed(self) -> None:
        """Broken, hostile and hasty clients; afterwards it serves as before."""
        session = self.host.start("sh", "-c", STUBBORN)
        shown(session, "up")
        seed = random.randrange(2**32)
        for _ in range(4):
            script(str(session.path / "ipc.sock"), random.Random(seed))
            seed += 1
        with Client(session.path / "ipc.sock") as client:
            self.load.check(client.answers(), f"no heartbeat after a storm, seed {seed - 4}")
        session.kill("SIGKILL")
        self._end(session, 137)
        self.load.count(storms=4)


def lost(load: Load, control: Path) -> None:
    """A forwarder that is killed: its program ends, its recording is whole up to there."""
    session = vt.spawn(["sh", "-c", "seq 2000; sleep 100"], control_dir=control)
    pid = session.info.pid
    assert pid
    os.kill(parent_of(pid), signal.SIGKILL)
    eventually(lambda: not session.info.running, 10, "the program of a killed forwarder ends")
    text = Recording(session.cast_path, finished=False).text()
    load.check(numbers(2000).startswith(text.replace("^@", "")), "a killed one recorded otherwise")
    try:
        session.wait(timeout=10)
    except vt.SessionLostError:
        pass
    else:
        load.fail("a session whose forwarder was killed has an exit code")
    remove(session)
    load.count(forwarders_killed=1)


class Lasting:
    """A session that lives as long as the soak."""

    def __init__(self, load: Load, host: Forwarded | Hosted) -> None:
        self.load, self.host = load, host
        self.session = host.start("sh", "-c", ANSWERS)
        self.session.wait("ready", timeout=20)
        self.lines = 0

    def round(self) -> None:
        self.lines += 1
        many = "many" if self.lines % MANY_EVERY == 0 else "line"
        self.session.resize(80 + self.lines % 7, 24)
        self.session.send(f"{many} {self.lines}", key="enter")
        self.session.wait(f"[{many} {self.lines}]", timeout=20)
        with Client(self.session.path / "ipc.sock") as client:
            self.load.check(client.answers(), "no heartbeat")
        self.load.count(lines=1)

    def end(self) -> None:
        def answer(number: int) -> str:
            if number % MANY_EVERY:
                return f"line {number}\r\n[line {number}]\r\n"
            return f"many {number}\r\n{numbers(3000)}[many {number}]\r\n"

        self.host.kill(self.session, signal.SIGKILL)
        code = self.host.wait(self.session)
        self.load.check(code == 137, f"the lasting session ended with {code}")
        text = Recording(self.session.cast_path).text()
        expected = "ready\r\n" + "".join(map(answer, range(1, self.lines + 1)))
        self.load.check(text == expected, f"recorded {len(text)} bytes, not {len(expected)}")
        remove(self.session)


def formats(load: Load, folder: Path) -> None:
    """Decoders, filters and recordings without a session."""
    out, frame = ffi.buffer(4096), ffi.buffer(24)
    for _ in range(20):
        length = native.vt_fwd_frame_encode(1, b"typed", 5, out, 4096)
        bytes_ = out.raw[:length]
        decoder = native.vt_fwd_decoder_create()
        status = native.vt_fwd_decoder_next(decoder, bytes_, length, out, 4096, frame)
        kind, _, used, payload = struct.unpack("=IIQQ", frame.raw)
        load.check((status, kind, used) == (0, 1, length), f"decoded {status} {kind} {used}")
        load.check(out.raw[:payload] == b"typed", "other typed text")
        load.check(native.vt_fwd_decoder_destroy(decoder), "a decoder is gone")
        titles = native.vt_fwd_filter_create()
        text = b"\x1b]2;title\x07shown"
        length = native.vt_fwd_filter_write(titles, text, len(text), out, 4096)
        load.check(out.raw[:length] == b"shown", "a title is left")
        native.vt_fwd_filter_destroy(titles)
        cast = native.vt_fwd_cast_create(
            os.fsencode(folder / "one.cast"), 80, 24, 1_700_000_000, b"sh", None, 0
        )
        for number in range(20):
            native.vt_fwd_cast_output(cast, number * 1000, b"\xe2\x82\xac\n", 4)
        load.check(native.vt_fwd_cast_end(cast, 30_000, 0, b"one") == 0, "a recording's end")
        load.check(Recording(folder / "one.cast").text() == "\u20ac\n" * 20, "another recording")
    load.count(formats=60)


def left_behind(control: Path) -> list[str]:
    """Processes that were started for sessions here."""
    mark = f"VIBETUNNEL_CONTROL_DIR={control}".encode()
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def give_back_at_once() -> None:
    """Has glibc keep little of what the checks here have read and freed: whole recordings, by nine
    threads, whose arenas would go up and down by megabytes and hide what the sessions take."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, 1 << 16), (M_TRIM, 1 << 16)):
            libc.mallopt(parameter, value)


def main() -> None:
    give_back_at_once()
    load = Load()
    # A socket's path must be short.
    home = Path(tempfile.mkdtemp(prefix="vt.", dir="/tmp"))
    control = home / "control"
    os.environ["VIBETUNNEL_CONTROL_DIR"] = str(control)  # for `left_behind`
    forwarded, hosted = Forwarded(control), Hosted(control)
    try:
        lasting = [Lasting(load, forwarded), Lasting(load, hosted)]
        pid = lasting[0].session.info.pid
        assert pid
        load.watch("vt forwarder", parent_of(pid))
        load.watch("vt host", os.getpid())
        short = [Sessions(load, forwarded), Sessions(load, hosted)]
        rounds: list[tuple[Callable[[], Any], float]] = [
            *((sessions.round, 0.1) for sessions in short),
            *((one.round, 0.05) for one in lasting),
            (lambda: lost(load, control), 0.2),
            (lambda: formats(load, home), 0.02),
        ]
        load.run(*rounds)
        for one in lasting:
            load.attempt(one.end)
        load.check(native.vt_fwd_running() == 0, f"{native.vt_fwd_running()} sessions still run")
        # What a forwarder that was killed has left to the system may take a moment.
        end = time.monotonic() + 5
        while (left := left_behind(control)) and time.monotonic() < end:
            time.sleep(0.1)
        load.check(not left, f"processes are left: {left}")
        load.check(os.listdir(control) == [], f"sessions are left: {os.listdir(control)}")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    load.done()


if __name__ == "__main__":
    main()
