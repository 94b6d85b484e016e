"""pyplue.vt: sessions started, driven and watched from Python."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pyplue import vt
from pyplue.vt import frames
from vt.harness import Home, Recording, alive, eventually


def shell(home: Home, **options: object) -> vt.Session:
    options.setdefault("env", {**home.env, "PS1": "$ "})
    return vt.spawn(["sh"], control_dir=home.control, **options)  # type: ignore[arg-type]


def test_a_session_is_driven_to_its_end(home: Home) -> None:
    session = vt.spawn(
        ["sh", "-c", "stty size; read line; echo got $line; exit 7"],
        control_dir=home.control,
        name="a \x1b]2;build\x07",
        cols=90,
        rows=20,
        cwd=home.work,
    )
    assert re.fullmatch(r"fwd_\d+_\d+", session.id)
    assert session.info.status == "running"
    assert session.info.name == "a ]2;build"
    assert session.info.working_dir == str(home.work)
    assert (session.info.cols, session.info.rows) == (90, 20)
    assert session.exit_code is None
    assert session.wait("20 90", timeout=5) == "20 90"
    session.send("thé line", key="enter")
    assert session.wait(timeout=5) == 7
    assert session.exit_code == 7
    assert session.info.status == "exited"
    assert session.text() == "20 90\nthé line\ngot thé line"
    assert Recording(session.cast_path).exit == (7, session.id)
    assert [event.data for event in session.events() if event.code == "i"] == ["thé line\r"]


def test_it_is_like_subprocess_in_what_it_takes(home: Home, tmp_path: Path) -> None:
    program = tmp_path / "show"
    program.write_text('#!/bin/sh\nprintf \'%s.\' "$@" "$ONLY" "$PWD"; env | wc -l\n')
    program.chmod(0o755)
    session = vt.spawn(
        [program, b"raw\xff", "two words", "--", "$HOME", ""],
        control_dir=home.control,
        env={"ONLY": "this", "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        session_id="chosen-id_1",
        cols=300,
    )
    assert session.id == "chosen-id_1"
    assert session.wait(timeout=5) == 0
    assert session.text().startswith(f"raw\ufffd.two words.--.$HOME..this.{tmp_path}.")


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ("ls -l", TypeError),
        (b"ls", TypeError),
        ([], ValueError),
        (["a\0b"], ValueError),
        (["no-such-program-here"], FileNotFoundError),
        (["/no/such/program"], FileNotFoundError),
        (["/etc/passwd"], PermissionError),
        (["/etc"], PermissionError),
    ],
    ids=str,
)
def test_what_cannot_be_started_is_refused_and_leaves_nothing(
    home: Home, argv: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        vt.spawn(argv, control_dir=home.control)  # type: ignore[arg-type]
    assert vt.sessions(control_dir=home.control) == []


def test_what_the_forwarder_refuses_is_said(home: Home, tmp_path: Path) -> None:
    first = vt.spawn(["sleep", "60"], control_dir=home.control, session_id="one")
    with pytest.raises(vt.SessionExistsError, match="choose another"):
        vt.spawn(["sleep", "60"], control_dir=home.control, session_id="one")
    first.kill()
    assert first.wait(timeout=5) == 143
    assert vt.spawn(["true"], control_dir=home.control, session_id="one").wait(timeout=5) == 0
    with pytest.raises(vt.SpawnError, match="socket path"):
        vt.spawn(["true"], control_dir=tmp_path / ("x" * 100))
    with pytest.raises(vt.SpawnError, match="a size is"):
        vt.spawn(["true"], control_dir=home.control, cols=0)
    with pytest.raises(FileNotFoundError):
        vt.spawn(["true"], control_dir=home.control, cwd=tmp_path / "nowhere")


@pytest.mark.parametrize("bad", ["", ".", "..", "../x", "a/b", "a b", "é", "a\0", "a\n", "x" * 300])
def test_an_id_that_is_none_is_refused(home: Home, bad: str) -> None:
    with pytest.raises(vt.InvalidSessionIdError):
        vt.Session.open(bad, control_dir=home.control)
    with pytest.raises(vt.InvalidSessionIdError):
        vt.spawn(["true"], control_dir=home.control, session_id=bad)


def test_a_connection_that_has_sent_half_a_frame_sends_nothing_more(home: Home) -> None:
    session = vt.spawn(["sh", "-c", "stty raw; echo up; sleep 60"], control_dir=home.control)
    session.wait("up", timeout=5)
    with session.connect() as connection:
        with pytest.raises(vt.WaitTimeoutError, match="does not read"):
            connection.send(frames.typed(b"x" * 4_000_000), 0.2)
        with pytest.raises(vt.SessionUnreachableError, match="connect again"):
            connection.send([frames.control("resize", cols=9, rows=9)], 0.2)
    session.resize(90, 20)
    eventually(lambda: session.screen().cols == 90)
    session.kill("KILL")
    session.wait(timeout=5)


def test_keys_have_names(home: Home) -> None:
    session = vt.spawn(
        ["sh", "-c", "stty raw -echo; echo up; head -c 14 | od -An -tx1"], control_dir=home.control
    )
    session.wait("up", timeout=5)
    session.send("é", key=["arrow_up", "ctrl+c", "Ctrl-[", "f5", "enter", "tab"])
    assert "c3 a9 1b 5b 41 03 1b 1b 5b 31 35 7e 0d 09" in session.wait("0d 09", timeout=5)
    for name in ("arrow_sideways", "ctrl+", "ctrl+é", "ctrl+ab", ""):
        with pytest.raises(ValueError, match="is no key"):
            session.send(key=[name])


def test_a_long_text_arrives_whole_and_in_order(home: Home) -> None:
    text = "".join(f"line {n} ünïcödé ✓\n" for n in range(60_000))  # 1.6 MB
    size = len(text.encode())
    session = vt.spawn(
        ["sh", "-c", f"stty raw -echo; echo up; head -c {size} | cksum"],
        control_dir=home.control,
        record_input=True,
    )
    session.wait("up", timeout=5)
    session.send(text, timeout=30)
    wanted = subprocess.run(["cksum"], input=text.encode(), capture_output=True, check=True).stdout
    session.wait(wanted.split()[0].decode(), timeout=10)
    assert "".join(event.data for event in session.events() if event.code == "i") == text


def test_a_program_that_does_not_read_is_an_error_in_time(home: Home) -> None:
    session = vt.spawn(["sh", "-c", "stty raw -echo; echo up; sleep 60"], control_dir=home.control)
    session.wait("up", timeout=5)
    with pytest.raises(vt.WaitTimeoutError, match="does not read"):
        session.send(b"x" * 20_000_000, timeout=0.5)
    session.kill("SIGKILL")
    assert session.wait(timeout=5) == 137


@pytest.mark.parametrize("number", ["SIGTERM", "term", "Hup", 15, 1])
def test_signals_by_name_and_number(home: Home, number: int | str) -> None:
    session = vt.spawn(["sleep", "100"], control_dir=home.control)
    session.kill(number)
    assert session.wait(timeout=5) in (129, 143)


def test_what_no_forwarder_would_obey_is_refused(home: Home) -> None:
    session = vt.spawn(["cat"], control_dir=home.control)
    for bad in ("NOPE", "", "SIG", "SIGSIGTERM", 0, -1, 65, 2**70):
        with pytest.raises(ValueError, match="no signal"):
            session.kill(bad)
    with pytest.raises(TypeError):
        session.resize(80, 2.5)  # type: ignore[arg-type]
    with pytest.raises(vt.SessionNotFoundError):
        vt.Session.open("x", control_dir=session.cast_path)
    session.kill("KILL")
    assert session.wait(timeout=5) == 137


@pytest.mark.parametrize("timeout", [float("inf"), 1e300])
def test_a_timeout_may_be_longer_than_any_clock(home: Home, timeout: float) -> None:
    session = vt.spawn(["sh", "-c", "read x; exit 4"], control_dir=home.control)
    session.send("\r", timeout=timeout)
    assert session.wait(timeout=timeout) == 4


def test_a_timeout_that_is_no_number_or_has_passed(home: Home) -> None:
    session = vt.spawn(["cat"], control_dir=home.control)
    for wait in (
        lambda: session.send("x", timeout=float("nan")),
        lambda: session.wait(timeout=float("nan")),
        lambda: session.wait("x", timeout=float("nan")),
        lambda: session.wait(quiet=float("nan")),
    ):
        with pytest.raises(ValueError, match="NaN"):
            wait()
    for timeout in (0, -1, float("-inf")):
        with pytest.raises(TimeoutError):
            session.wait(timeout=timeout)
    session.kill()


def test_sizes(home: Home) -> None:
    session = shell(home)
    session.resize(120, 33)
    session.send("stty size\r")
    session.wait("33 120", timeout=5)
    screen = session.screen()
    assert (screen.cols, screen.rows) == (120, 33)
    session.reset_size()  # it has no terminal of its own to go back to
    session.send("stty size; echo done\r")
    assert session.wait(re.compile(r"33 120\ndone"), timeout=5)
    for size in [(0, 24), (80, 0), (-1, 1), (65536, 1)]:
        with pytest.raises(ValueError, match="1 to 65535"):
            session.resize(*size)
    session.kill("HUP")
    session.wait(timeout=5)


def test_reset_size_goes_back_to_the_terminal_it_was_started_on(home: Home) -> None:
    terminal = home.terminal("sh", size=(77, 22), env={"PS1": "$ "})
    session = vt.Session.open(terminal.session.wait().id, control_dir=home.control)
    session.resize(100, 40)
    session.reset_size()
    session.send("stty size; exit\r")
    terminal.expect(b"22 77")
    assert terminal.wait() == 0


def test_rename(home: Home) -> None:
    session = shell(home)
    session.rename("night\x1b[31mly \x07build")
    assert session.info.name == "night[31mly build"
    for number in range(50):
        session.rename(f"name {number}")
        assert session.info.name == f"name {number}"
    session.rename("x" * 300)
    assert session.info.name == "x" * 256
    with pytest.raises(ValueError, match="NUL"):
        session.rename("a\0b")
    session.kill("SIGKILL")
    session.wait(timeout=5)
    session.rename("afterwards")
    assert session.info.name == "afterwards"


def test_waiting(home: Home) -> None:
    session = shell(home)
    with pytest.raises(TimeoutError, match=r"'nothing' on the screen\nthe screen:\n-*\n\$"):
        session.wait("nothing", timeout=0.1)
    with pytest.raises(vt.WaitTimeoutError, match="the end of session"):
        session.wait(timeout=0.1)
    session.send("for i in 1 2 3; do echo $((i*10))%; sleep 0.2; done\r")
    match = session.wait(re.compile(r"^(\d+)%$", re.MULTILINE), timeout=5)
    assert match[1] == "10"
    start = time.monotonic()
    assert "30%" in session.wait(quiet=0.5, timeout=10)
    assert time.monotonic() - start >= 0.5
    session.send("while :; do echo loud; sleep 0.05; done\r")
    with pytest.raises(vt.WaitTimeoutError, match="without output"):
        session.wait(quiet=0.4, timeout=1)
    session.send(key="ctrl+c")
    session.send("exit 5\r")
    with pytest.raises(vt.SessionExitedError, match=r"'never' on its screen:\nthe screen"):
        session.wait("never", timeout=5)
    assert session.wait("exit 5", timeout=0), "what was there before the end counts"
    assert session.wait() == session.exit_code == 5


def test_an_exited_session_takes_nothing(home: Home) -> None:
    session = vt.spawn(["sh", "-c", "exit 9"], control_dir=home.control)
    session.wait(timeout=5)
    for refused in (
        lambda: session.send("x"),
        lambda: session.resize(80, 24),
        session.reset_size,
        session.kill,
    ):
        with pytest.raises(vt.SessionExitedError, match=r"has ended \(with exit code 9"):
            eventually(refused)  # its socket is there for a moment after it said so
    assert session.text() == ""
    session.send("")  # nothing


def test_events_are_followed_to_the_exit(home: Home) -> None:
    session = shell(home)
    seen: list[vt.Event] = []

    def follow() -> None:
        seen.extend(session.events())

    thread = threading.Thread(target=follow)
    thread.start()
    session.send("echo on''e\r")
    eventually(lambda: "one\r\n" in "".join(event.data for event in seen))
    session.resize(100, 30)
    session.send("exit 3\r")
    thread.join(10)
    assert not thread.is_alive()
    assert seen[-1].code == "x"
    assert seen[-1].data == "3"
    assert (
        vt.Event(0, "r", "100x30").size == (100, 30) == next(e for e in seen if e.code == "r").size
    )
    assert [event.time for event in seen] == sorted(event.time for event in seen)
    assert list(session.events()) == list(session.events(follow=False)) == seen


def test_events_are_followed_by_asyncio(home: Home) -> None:
    session = shell(home)

    async def echo(number: int) -> list[str]:
        data = []
        async for event in session.events():
            data.append(event.data)
            if event.code == "o" and event.data.startswith("$") and number == 0:
                session.send("exit 4\r")
        return data

    async def both() -> list[list[str]]:
        return await asyncio.wait_for(asyncio.gather(echo(0), echo(1)), 10)

    first, second = asyncio.run(both())
    assert first == second
    assert first[-1] == "4"


def test_following_ends_when_the_forwarder_is_killed(home: Home) -> None:
    process = home.start("sh", "-c", "echo one; sleep 60")
    session = vt.Session.open(process.session.wait().id, control_dir=home.control)
    session.wait("one", timeout=5)
    events = session.events()
    assert next(events).data == "one\r\n"
    pid = session.info.pid
    process.signal(signal.SIGKILL)
    process.wait()
    assert pid is not None
    eventually(lambda: not alive(pid))
    assert list(events) == []
    assert list(events) == []
    assert session.info.status == "exited"
    assert session.exit_code is None
    with pytest.raises(vt.SessionLostError, match="was killed"):
        session.wait()
    with pytest.raises(vt.SessionExitedError, match="its forwarder was killed"):
        session.send("x")


def test_following_ends_when_the_directory_goes(home: Home) -> None:
    session = vt.spawn(["sh", "-c", "echo one; read x; echo two"], control_dir=home.control)
    session.wait("one", timeout=5)
    events = session.events()
    next(events)
    connection = session.connect()
    for entry in session.path.iterdir():
        entry.unlink()
    session.path.rmdir()
    connection.send([b"\x01\0\0\0\x01\r"], 5)
    rest = list(events)
    assert "".join(event.data for event in rest if event.code == "o") == "\r\ntwo\r\n"
    assert rest[-1].code == "x"
    connection.close()
    with pytest.raises(vt.SessionNotFoundError):
        _ = session.info
    with pytest.raises(vt.SessionNotFoundError):
        session.send("x")


def test_a_session_goes_on_without_the_process_that_started_it(home: Home) -> None:
    script = (
        "from pyplue import vt; import sys;"
        "print(vt.spawn(['sh', '-c', 'trap \"\" HUP; echo up; read x; echo got $x']).id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=home.env, capture_output=True, text=True, check=True
    )
    session = vt.Session.open(done.stdout.strip(), control_dir=home.control)
    session.wait("up", timeout=5)
    session.send("it\r")
    assert session.wait(timeout=5) == 0
    assert session.text() == "up\nit\ngot it"


def test_sessions_lists_the_oldest_first(home: Home) -> None:
    assert vt.sessions(control_dir=home.control) == []
    first = shell(home, session_id="zz")
    time.sleep(1.1)  # startedAt is compared by its seconds
    second = shell(home, session_id="aa")
    assert [session.id for session in vt.sessions(control_dir=home.control)] == ["zz", "aa"]
    for session in (first, second):
        session.kill("SIGKILL")
        session.wait(timeout=5)


HUNDRED = int(os.environ.get("VT_SESSIONS", "100"))


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


def children() -> list[str]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "ppid=,pid=,stat=,comm="], capture_output=True, text=True, check=True
    ).stdout
    return [
        line for line in listing.splitlines()
        if line.split()[0] == str(os.getpid()) and line.split()[3] != "ps"
    ]  # fmt: skip


def test_a_hundred_sessions_at_once_leave_nothing_behind(home: Home) -> None:
    gc.collect()
    before, threads, family = descriptors(), threading.active_count(), children()
    all_of_them = [
        vt.spawn(["sh", "-c", "read x; echo got $x; exit 7"], control_dir=home.control)
        for _ in range(HUNDRED)
    ]
    assert len({session.id for session in all_of_them}) == HUNDRED
    assert len(vt.sessions(control_dir=home.control)) == HUNDRED
    assert children() == family, "a session is nobody's child"
    for number, session in enumerate(all_of_them):
        session.send(f"{number}\r")
    for number, session in enumerate(all_of_them):
        assert session.wait(timeout=20) == 7
        assert session.text() == f"{number}\ngot {number}"
        assert list(session.events())[-1].data == "7"
    gc.collect()
    assert descriptors() == before
    assert threading.active_count() == threads
    assert children() == family
