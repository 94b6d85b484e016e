"""pyplue.vt beside subprocess and pexpect: starting and driving programs, and coming to a session
with a long recording.

Part of `./dev bench vt`.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from fcntl import ioctl

import pexpect
from report import Comparison, Goal

from pyplue import ffi, vt

BEHIND_MB = 50
SCREEN = "The last screen"
OURS = "pyplue.vt, recorded"

START, LINE = "start of a program from Python", "a line typed and answered, from Python"
HUNDRED = "100 programs started, typed to and ended"
ATTACH, TEXT = f"attach to a session with {BEHIND_MB} MB behind it", f"text() of {BEHIND_MB} MB"
CLEARED, UNCLEARED = "pyplue.vt, cleared before the last screen", "pyplue.vt, never cleared"

GOALS = [
    Goal(START, at_most=5e-3, over="subprocess.Popen"),
    Goal(ATTACH, at_most=0.5, name=CLEARED),
    Goal(ATTACH, at_most=0.5, name=UNCLEARED),
]


def timed(work: Callable[[], object]) -> tuple[float, object]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def starts(control: str, rounds: int) -> Comparison:
    """The call alone, as Popen returns when the program has been started; the others when the
    session runs and can be driven: in this process, or in one of its own."""
    command = ["/bin/sleep", "5"]
    config = json.dumps({"argv": command, "control_dir": control}).encode()
    found: dict[str, list[float]] = {
        OURS: [],
        "libvt_fwd, in this process": [],
        "subprocess.Popen": [],
        "pexpect.spawn": [],
    }
    spawned, inside, plain, expected = found.values()
    for number in range(rounds):
        seconds, process = timed(lambda: subprocess.Popen(command))
        plain.append(seconds)
        process.kill()
        process.wait()
        if number % 4 == 0:  # its close takes long
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
    return Comparison(START, "s", "lower", found, ours=2, summary=True)


def answers(control: str, rounds: int) -> Comparison:
    """From typing a line to seeing the answer of a program that reads lines."""
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

    found: dict[str, list[float]] = {OURS: [], "pexpect": []}
    for number in range(rounds):
        for taken, ask in zip(found.values(), (ask_session, ask_pexpect), strict=True):
            taken.append(timed(lambda ask=ask, number=number: ask(number))[0])
    child.close(force=True)
    session.kill("KILL")
    session.wait()
    return Comparison(LINE, "s", "lower", found, summary=True)


def hundred(control: str, rounds: int) -> Comparison:
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

    found: dict[str, list[float]] = {OURS: [], "subprocess.Popen": []}
    for _ in range(rounds):
        for taken, work in zip(found.values(), (sessions, plain), strict=True):
            taken.append(timed(work)[0])
    return Comparison(HUNDRED, "s", "lower", found)


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


def long_sessions(control: str, rounds: int) -> list[Comparison]:
    """A session's screen in a new terminal, the start of Python included, and as text; beside a
    `cat` of its recording, which replays it whole."""
    line = "a line of a build log with path/to/file.zig:12:34 and some more text"
    attach: dict[str, list[float]] = {}
    replayed: dict[str, list[float]] = {}
    text: dict[str, list[float]] = {}
    for name, clear in [(CLEARED, "\\033[H\\033[2J"), (UNCLEARED, "")]:
        # In two pieces: the command is in the recording's first line.
        show = f"printf '{clear}%s{SCREEN[3:]}' {SCREEN[:3]}"
        script = f"yes '{line}' | head -c {BEHIND_MB}000000; {show}; sleep 600"
        session = vt.spawn(["sh", "-c", script], control_dir=control)
        session.wait(SCREEN, timeout=120)
        command = [sys.executable, "-m", "pyplue.vt", "--control-dir", control]
        attach[name] = [shown_after([*command, "attach", session.id]) for _ in range(rounds)]
        replayed[name.replace("pyplue.vt", "cat of the recording")] = [
            shown_after(["/bin/cat", str(session.cast_path)]) for _ in range(rounds)
        ]
        text[name] = [
            timed(vt.Session.open(session.id, control_dir=control).text)[0] for _ in range(rounds)
        ]
        session.kill("KILL")
        session.wait()
    return [
        Comparison(ATTACH, "s", "lower", attach | replayed, ours=2),
        Comparison(TEXT, "s", "lower", text, ours=2),
    ]


def measure(quick: bool) -> list[Comparison]:
    with tempfile.TemporaryDirectory(prefix="vt.", dir="/tmp") as control:
        return [
            starts(control, 20 if quick else 100),
            answers(control, 20 if quick else 100),
            hundred(control, 1 if quick else 5),
            *long_sessions(control, 2 if quick else 5),
        ]
