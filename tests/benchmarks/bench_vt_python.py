"""pyplue.vt beside subprocess and pexpect: starting and driving programs, and coming to a session
with a long recording.

Part of `./dev bench vt`. The best of many, in turns, tells most: other work on the machine only
ever adds.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from fcntl import ioctl

import pexpect

from pyplue import ffi, vt

ROUNDS = 100
BEHIND_MB = int(os.environ.get("VT_BENCH_MB", "50"))
SCREEN = "The last screen"


def timed(work: Callable[[], object]) -> tuple[float, object]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def starts(control: str) -> None:
    """The call alone, as Popen returns when the program has been started; the others when the
    session runs and can be driven: in this process, or in one of its own."""
    command = ["/bin/sleep", "5"]
    config = json.dumps({"argv": command, "control_dir": control}).encode()
    plain, expected, inside, spawned = [], [], [], []
    for _ in range(ROUNDS):
        seconds, process = timed(lambda: subprocess.Popen(command))
        plain.append(seconds)
        process.kill()
        process.wait()
        if len(expected) < ROUNDS // 4:  # its close takes long
            seconds, child = timed(lambda: pexpect.spawn(command[0], command[1:]))
            expected.append(seconds)
            child.close(force=True)
        seconds, handle = timed(lambda: ffi.vt.vt_fwd_start(config, len(config)))
        inside.append(seconds)
        ffi.vt.vt_fwd_kill(handle, signal.SIGKILL)
        ffi.vt.vt_fwd_wait(handle, -1)
        ffi.vt.vt_fwd_close(handle)
        seconds, session = timed(lambda: vt.spawn(command, control_dir=control))
        spawned.append(seconds)
        session.kill("KILL")
        session.wait()
    print(f"\nStart of a program, ms, {ROUNDS} in turns        best   median")
    for name, times in [
        ("subprocess.Popen", plain),
        ("pexpect.spawn, which records nothing", expected),
        ("libvt_fwd", inside),
        ("pyplue.vt.spawn", spawned),
    ]:
        print(f"{name:36} {min(times) * 1e3:14.2f} {statistics.median(times) * 1e3:8.2f}")
    extra = (min(spawned) - min(plain), statistics.median(spawned) - statistics.median(plain))
    print(f"{'pyplue.vt.spawn over Popen':36} {extra[0] * 1e3:14.2f} {extra[1] * 1e3:8.2f}")


def answers(control: str) -> None:
    """From typing a line to seeing the answer of a program that reads lines."""
    rounds = 50
    command = ["/bin/sh", "-c", "while read x; do echo got-$x; done"]
    child = pexpect.spawn(command[0], command[1:], encoding="utf-8", timeout=10)
    child.delaybeforesend = None  # 50 ms, for passwords
    session = vt.spawn(command, control_dir=control)

    def ask_pexpect(number: int) -> None:
        child.sendline(str(number))
        child.expect_exact(f"got-{number}\r\n")

    def ask_session(number: int) -> None:
        session.send(f"{number}\r")
        session.wait(f"got-{number}", timeout=10)

    print(f"\nA line typed and answered, ms, {rounds} in turns  best   median")
    times: dict[str, list[float]] = {"pexpect": [], "pyplue.vt, recorded, a real screen": []}
    for number in range(rounds):
        for taken, ask in zip(times.values(), (ask_pexpect, ask_session), strict=True):
            taken.append(timed(lambda ask=ask, number=number: ask(number))[0])
    for name, taken in times.items():
        print(f"{name:36} {min(taken) * 1e3:14.2f} {statistics.median(taken) * 1e3:8.2f}")
    child.close(force=True)
    session.kill("KILL")
    session.wait()


def hundred(control: str) -> None:
    script = ["/bin/sh", "-c", "read x; exit 7"]

    def plain() -> None:
        processes = [subprocess.Popen(script, stdin=subprocess.PIPE) for _ in range(100)]
        for process in processes:
            process.communicate(b"\n")

    def sessions() -> None:
        running = [vt.spawn(script, control_dir=control) for _ in range(100)]
        for session in running:
            session.send("\n")
        for session in running:
            session.wait()

    print(
        "100 at once, started, typed to, ended: "
        f"subprocess {timed(plain)[0]:.2f} s, pyplue.vt {timed(sessions)[0]:.2f} s"
    )


def shown_after(argv: list[str]) -> float:
    """Seconds until a new terminal of 80x24 has the last screen."""
    master, tty = pty.openpty()
    ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    begin = time.perf_counter()
    process = subprocess.Popen(argv, stdin=tty, stdout=tty, stderr=tty, start_new_session=True)
    seen = b""
    while SCREEN.encode() not in seen:
        if not select.select([master], [], [], 60)[0]:
            raise TimeoutError(f"the screen does not come: {seen[-200:]!r}")
        seen = seen[-100:] + os.read(master, 1 << 16)
    seconds = time.perf_counter() - begin
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        if select.select([master], [], [], 0.01)[0]:
            os.read(master, 1 << 16)
    os.close(master)
    os.close(tty)
    return seconds


def long_sessions(control: str) -> None:
    line = "a line of a build log with path/to/file.zig:12:34 and some more text"
    print(f"\nA session with {BEHIND_MB} MB behind it, ms      attach   replayed whole   text()")
    for name, clear in [
        ("cleared before its last screen", "\\033[H\\033[2J"),
        ("never cleared", ""),
    ]:
        # In two pieces: the command is in the recording's first line.
        show = f"printf '{clear}%s{SCREEN[3:]}' {SCREEN[:3]}"
        script = f"yes '{line}' | head -c {BEHIND_MB}000000; {show}; sleep 600"
        session = vt.spawn(["sh", "-c", script], control_dir=control)
        session.wait(SCREEN, timeout=120)
        command = [sys.executable, "-m", "pyplue.vt", "--control-dir", control]
        attach = min(shown_after([*command, "attach", session.id]) for _ in range(3))
        whole = shown_after(["/bin/cat", str(session.cast_path)])
        text = min(
            timed(vt.Session.open(session.id, control_dir=control).text)[0] for _ in range(3)
        )
        print(f"{name:36} {attach * 1e3:8.0f} {whole * 1e3:16.0f} {text * 1e3:8.0f}")
        session.kill("KILL")
        session.wait()
    python = min(
        timed(lambda: subprocess.run([sys.executable, "-c", "import pyplue.vt.attach"]))[0]
        for _ in range(5)
    )
    print(f"of which Python takes {python * 1e3:.0f} ms to start; whole: cat of the recording")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vt.", dir="/tmp") as control:
        starts(control)
        answers(control)
        hundred(control)
        long_sessions(control)


if __name__ == "__main__":
    main()
