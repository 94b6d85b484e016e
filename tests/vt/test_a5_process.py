"""A5 of the contract: the child, its terminal, input, output and the end."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vt.harness import Home, Process, Terminal, alive, eventually

# What a child finds when it starts, as JSON. No imports that would open files meanwhile.
LOOK_AROUND = """
import os, json, sys, termios
status = dict(line.split() for line in open("/proc/self/status") if line.startswith("Sig"))
look = {
    "pid": os.getpid(), "pgid": os.getpgid(0), "sid": os.getsid(0),
    "foreground": os.tcgetpgrp(0), "ttys": [os.ttyname(fd) for fd in (0, 1, 2)],
    "controlling": os.open("/dev/tty", os.O_RDWR) >= 0,
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "ignored": status["SigIgn:"], "blocked": status["SigBlk:"],
    "iutf8": bool(termios.tcgetattr(0)[0] & 0o40000), "size": list(os.get_terminal_size(0)),
    "cwd": os.getcwd(), "env": {k: v for k, v in os.environ.items()},
}
open("look.json", "w").write(json.dumps(look))
"""
PYTHON = [sys.executable, "-S", "-E", "-c"]


def look_around(home: Home, **options) -> dict:
    result = home.run(*PYTHON, LOOK_AROUND, **options)
    assert result.code == 0, result.out
    return json.loads((home.work / "look.json").read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a5_the_childs_surroundings(home: Home) -> None:
    found = look_around(home, env={"VIBETUNNEL_FWD_STARTED_FILE": "started", "TERM": "dumb"})
    assert found["pid"] == found["pgid"] == found["sid"] == found["foreground"]
    assert len(set(found["ttys"])) == 1
    assert found["controlling"]
    # 3 is /dev/tty, opened by the child itself, 4 the listing.
    assert found["fds"] == [0, 1, 2, 3, 4], "no descriptor of the forwarder leaks"
    assert found["iutf8"]
    assert found["cwd"] == str(home.work)
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25), nothing else is.
    assert int(found["ignored"], 16) & ~(1 << 12 | 1 << 24) == 0
    assert int(found["blocked"], 16) == 0
    assert found["env"]["TERM"] == "xterm-256color"
    assert found["env"]["VIBETUNNEL_SESSION_ID"] == home.last.id
    assert "VIBETUNNEL_FWD_STARTED_FILE" not in found["env"]
    assert found["env"]["HOME"] == str(home.path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a5_signals_ignored_or_blocked_by_the_caller_are_reset_for_the_child(home: Home) -> None:
    def unfriendly() -> None:
        for number in range(1, 65):
            if number not in (9, 19, 32, 33):
                signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})

    script = "grep -E '^Sig(Ign|Blk)' /proc/self/status"
    out = home.run("sh", "-c", script, preexec_fn=unfriendly, restore_signals=False).out
    assert re.findall(rb"Sig(\w+):\s+(\w+)", out) == [
        (b"Blk", b"0" * 16),
        (b"Ign", b"0" * 16),
    ]


def test_a5_arguments_and_environment_are_exact(home: Home) -> None:
    odd = b"a\xff b\n\x01\xc3\xa9'\""
    script = 'printf %s "$1" | od -An -tx1; printf %s "$ODD" | od -An -tx1'
    environment = {**{k.encode(): v.encode() for k, v in home.env.items()}, b"ODD": odd}
    argv = [*home.command, "--session-id", "x", "--", "sh", "-c", script, "sh", odd]
    out = subprocess.run(
        argv, env=environment, capture_output=True, stdin=subprocess.DEVNULL
    ).stdout
    assert bytes.fromhex(out.decode()) == odd * 2


def test_a5_names_in_argv0_stay_as_given(home: Home) -> None:
    out = home.run("sh", "-c", 'tr "\\0" " " </proc/$$/cmdline').out
    assert out.startswith(b"sh -c ")


# ---- sizes --------------------------------------------------------------------------------------


def test_a5_the_size_is_the_outer_terminals(home: Home) -> None:
    terminal = home.terminal("stty", "size", size=(77, 33))
    assert terminal.wait() == 0
    assert terminal.output.strip() == b"33 77"
    assert terminal.session.recording().header["width"] == 77


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a5_an_unknown_size_is_120x40(home: Home, on_terminal: bool) -> None:
    if on_terminal:
        terminal = home.terminal("stty", "size", size=(0, 0))
        assert terminal.wait() == 0
        shown, session = terminal.output, terminal.session
    else:
        shown, session = home.run("stty", "size").out, home.last
    assert shown.strip() == b"40 120"
    header = session.recording().header
    assert (header["width"], header["height"]) == (120, 40)
    assert (session.info["initialCols"], session.info["initialRows"]) == (120, 40)


def test_a5_a_nested_session_with_a_size_takes_it_at_once(home: Home) -> None:
    terminal = home.terminal("stty", "size", size=(66, 22), env={"VIBETUNNEL_SESSION_ID": "outer"})
    terminal.wait()
    assert terminal.output.strip() == b"22 66"
    assert terminal.session.info["initialCols"] == 66
    assert terminal.session.info["attachedViaVT"] is True


def test_a5_an_outer_resize_reaches_the_child_and_the_recording(home: Home) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"
    terminal = home.terminal("sh", "-c", script, size=(80, 24))
    terminal.expect(b"ready")
    terminal.resize(101, 37)
    terminal.expect(b"37 101")
    terminal.resize(101, 37)  # unchanged: the kernel tells nobody
    terminal.resize(60, 20)
    terminal.expect(b"20 60")
    terminal.signal(signal.SIGWINCH)  # unchanged too
    time.sleep(0.1)
    terminal.signal(signal.SIGTERM)
    terminal.wait()
    assert terminal.session.recording().of_kind("r") == ["101x37", "60x20"]


# ---- the outer terminal's modes -----------------------------------------------------------------


def running(home: Home, script: str = "echo up; exec sleep 60") -> Terminal:
    terminal = home.terminal("sh", "-c", script)
    terminal.expect(b"up")
    terminal.session.wait()
    assert not terminal.restored(), "the terminal is raw while it runs"
    return terminal


def kill_child(number: int) -> Callable[[Terminal], None]:
    return lambda terminal: os.kill(terminal.session.info["pid"], number)


def ask(**command) -> Callable[[Terminal], None]:
    def send(terminal: Terminal) -> None:
        with terminal.session.client() as client:
            client.control(**command)

    return send


ENDINGS: dict[str, tuple[Callable[[Terminal], None], int]] = {
    "Ctrl-C": (lambda terminal: terminal.send(b"\x03"), 130),
    "SIGTERM to the forwarder": (lambda terminal: terminal.signal(signal.SIGTERM), 143),
    "SIGINT to the forwarder": (lambda terminal: terminal.signal(signal.SIGINT), 130),
    "SIGHUP to the forwarder": (lambda terminal: terminal.signal(signal.SIGHUP), 129),
    "SIGQUIT to the forwarder": (lambda terminal: terminal.signal(signal.SIGQUIT), 131),
    "SIGKILL of the child": (kill_child(signal.SIGKILL), 137),
    "SIGSEGV of the child": (kill_child(signal.SIGSEGV), 139),
    "kill through the socket": (ask(cmd="kill"), 143),
}


@pytest.mark.parametrize(("way", "code"), ENDINGS.values(), ids=ENDINGS.keys())
def test_a5_stty_is_unchanged_after_every_ending(
    home: Home, way: Callable[[Terminal], None], code: int
) -> None:
    terminal = running(home)
    way(terminal)
    assert terminal.wait() == code
    assert terminal.restored()
    session = terminal.session
    assert session.info["exitCode"] == code
    assert session.recording().exit == (code, session.id)
    assert not (session.path / "ipc.sock").exists()


@pytest.mark.parametrize(
    "command",
    [["true"], ["sh", "-c", "exit 3"], ["no-such-program"], ["/etc/passwd"], ["/"]],
    ids=str,
)
def test_a5_stty_is_unchanged_after_a_command_that_ends_at_once(
    home: Home, command: list[str]
) -> None:
    terminal = home.terminal(*command)
    terminal.wait()
    assert terminal.restored()


def test_a5_stty_is_unchanged_when_a_session_cannot_start(home: Home) -> None:
    home.control.parent.mkdir()
    home.control.write_text("in the way")
    terminal = home.terminal("true")
    assert terminal.wait() == 1
    assert terminal.restored()


def test_a5_a_terminal_with_other_modes_gets_them_back(home: Home) -> None:
    probe = home.terminal("true")
    probe.wait()
    home.running.remove(probe)
    subprocess.run(
        ["stty", "-echo", "intr", "^X", "-ixon", "min", "3"], stdin=probe.tty, check=True
    )
    odd = probe.stty()
    code = subprocess.run(
        [*home.command, "--session-id", "again", "--", "true"],
        stdin=probe.tty,
        stdout=probe.tty,
        stderr=probe.tty,
        env=home.env,
        check=False,
    ).returncode
    assert code == 0
    assert probe.stty() == odd
    probe.close()


# ---- input --------------------------------------------------------------------------------------


def test_a5_typed_input_is_recorded(home: Home) -> None:
    terminal = home.terminal("cat")
    terminal.session.wait()
    terminal.send("héllo\r".encode())
    terminal.expect("héllo\r\nhéllo\r\n".encode())
    terminal.send(b"\x04")
    assert terminal.wait() == 0
    assert terminal.session.recording().text("i") == "héllo\r\x04"


def test_a5_the_end_of_input_is_not_the_end(home: Home) -> None:
    process = home.start(
        "sh", "-c", "read a; echo first=$a; read b; echo second=$b", stdin=subprocess.PIPE
    )
    assert process.popen.stdin is not None
    process.popen.stdin.write(b"line1\n")  # followed by the hang-up, with the data still unread
    process.popen.stdin.close()
    process.popen.stdin = None
    session = process.session.wait()
    session.wait_output("first=line1")
    time.sleep(0.1)
    assert process.popen.poll() is None
    with session.client() as client:
        client.type(b"line2\n")
        result = process.wait()
    assert result.code == 0
    assert b"second=line2" in result.out


def test_a5_input_from_a_pipe_arrives_whole(home: Home) -> None:
    lines = b"".join(b"%06d some input\n" % number for number in range(20_000))
    process = home.start(
        "sh", "-c", f"stty raw -echo; head -c {len(lines)} | cksum", stdin=subprocess.PIPE
    )
    out, _ = process.popen.communicate(lines, timeout=30)
    expected = subprocess.run(["cksum"], input=lines, capture_output=True, check=True).stdout
    assert b"%s %s" % tuple(expected.split()[:2]) in out
    assert process.session.recording().text("i") == lines.decode()


def test_a5_stdin_from_dev_null_is_fed_through_the_socket(home: Home) -> None:
    process = home.start("sh", "-c", "read a; echo got=$a")
    with process.session.wait().client() as client:
        client.type(b"x\n")
        assert b"got=x" in process.wait().out


# ---- standard descriptors -----------------------------------------------------------------------


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)], ids=str)
def test_a5_closed_standard_descriptors(home: Home, closed: tuple[int, ...]) -> None:
    def close() -> None:
        for fd in closed:
            os.close(fd)

    process = home.start("sh", "-c", "echo out; echo err >&2; ls /proc/self/fd", preexec_fn=close)
    assert process.wait().code == 0
    recording = process.session.recording()
    assert recording.text().startswith("out\r\nerr\r\n")
    assert recording.text().split()[2:] == ["0", "1", "2", "3"]
    assert recording.raw.startswith(b'{"'), "nothing else went into the file"
    assert process.session.info["exitCode"] == 0


def test_a5_an_outer_reader_that_goes_away_ends_nothing(home: Home) -> None:
    process = home.start(
        "sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line$i; i=$((i+1)); done; exit 9"
    )
    assert process.popen.stdout is not None
    process.popen.stdout.close()
    process.popen.stdout = None
    assert process.wait().code == 9
    assert process.session.recording().text().endswith("line1999\r\n")


def test_a5_an_outer_reader_that_is_slow_gets_everything(home: Home) -> None:
    read, write = os.pipe()
    process = home.start("sh", "-c", "seq 1 100000", stdout=write)
    os.close(write)
    time.sleep(0.5)
    with os.fdopen(read, "rb") as file:
        shown = file.read()
    assert process.wait().code == 0
    expected = "".join(f"{n}\r\n" for n in range(1, 100_001))
    assert shown.decode() == expected
    assert process.session.recording().text() == expected


@pytest.mark.parametrize("survives", [False, True])
def test_a5_the_window_is_closed(home: Home, survives: bool) -> None:
    """The outer terminal hangs up: the child is told, and a child that survives is recorded."""
    script = "trap 'echo hup; sleep 0.3; exit 4' HUP; echo up; sleep 60 & wait"
    terminal = home.terminal("sh", "-c", script if survives else "echo up; exec sleep 60")
    terminal.expect(b"up")
    session = terminal.session.wait()
    terminal.hang_up()
    code = terminal.popen.wait(10)
    assert code == (4 if survives else 129)
    assert session.info["exitCode"] == code
    assert session.recording().exit == (code, session.id)


# ---- the command --------------------------------------------------------------------------------


def test_a5_a_command_that_is_not_found_is_127_and_says_so(home: Home) -> None:
    result = home.run("no-such-program-x")
    assert result.code == 127
    assert b"no-such-program-x" in result.out
    recording = home.last.recording()
    assert recording.exit == (127, home.last.id)
    assert "no-such-program-x" in recording.text()
    assert recording.text().count("\n") == 1
    assert home.last.info["status"] == "exited"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("not executable", 126),
        ("directory", 126),
        ("no known format", 126),
        ("missing interpreter", 127),
        ("empty name", 127),
        ("missing path", 127),
    ],
)
def test_a5_a_command_that_cannot_run(home: Home, kind: str, code: int) -> None:
    file = home.work / "program"
    file.write_text("#!/no/such/interpreter\n" if kind == "missing interpreter" else "echo hi\n")
    file.chmod(0o644 if kind == "not executable" else 0o755)
    given = {"directory": "/", "empty name": "", "missing path": "./nope"}.get(kind, str(file))
    result = home.run(given)
    assert result.code == code
    assert result.out.strip()
    assert home.last.recording().exit == (code, home.last.id)
    assert home.last.recording().text().strip()


def test_a5_the_path_is_searched_as_a_shell_does(home: Home) -> None:
    for name, mode in (("one", 0o644), ("two", 0o755)):
        (home.path / name).mkdir()
        (home.path / name / "tool").write_text("#!/bin/sh\necho ran from $0\n")
        (home.path / name / "tool").chmod(mode)
    path = f"{home.path}/none:{home.path}/one:{home.path}/two:{home.env['PATH']}"
    assert b"two/tool" in home.run("tool", env={"PATH": path}).out


def test_a5_nothing_is_wrapped_in_a_shell(home: Home) -> None:
    assert home.run("echo", "$HOME", "*", "`id`").out == b"$HOME * `id`\r\n"


@pytest.mark.parametrize("code", [0, 1, 2, 42, 126, 127, 128, 255])
def test_a5_the_exit_code_is_the_childs(home: Home, code: int) -> None:
    assert home.run("sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize(
    "name", ["HUP", "INT", "QUIT", "ABRT", "KILL", "SEGV", "PIPE", "ALRM", "TERM"]
)
def test_a5_a_signals_death_is_128_plus_its_number(home: Home, name: str) -> None:
    assert (
        home.run("sh", "-c", f"ulimit -c 0; kill -{name} $$").code
        == 128 + signal.Signals[f"SIG{name}"]
    )


def test_a5_a_broken_pipe_in_the_child_is_141(home: Home) -> None:
    assert home.run("bash", "-c", "yes | head -1; exit ${PIPESTATUS[0]}").code == 141


# ---- the end ------------------------------------------------------------------------------------


def test_a5_the_last_output_is_never_lost(home: Home) -> None:
    for count in (1, 1000, 60_000):
        for _ in range(5):
            out = home.run("sh", "-c", f"head -c {count} /dev/zero | tr '\\0' x; printf END").out
            assert out == b"x" * count + b"END"
            assert home.last.recording().text() == out.decode()


@pytest.mark.parametrize("keeps", ["sleep 30 &", "(trap '' HUP; sleep 3) &", "setsid sleep 3 &"])
def test_a5_a_background_job_does_not_hold_the_end_up(home: Home, keeps: str) -> None:
    start = time.monotonic()
    assert home.run("bash", "-c", f"{keeps} echo done; exit 6").code == 6
    assert time.monotonic() - start < 2
    assert home.last.recording().text() == "done\r\n"


def test_a5_nothing_is_left_behind(home: Home) -> None:
    process = home.start("sh", "-c", "sleep 0.05")
    pid = process.session.wait().info["pid"]
    process.wait()
    eventually(lambda: not alive(pid))
    assert not alive(process.pid)


# ---- the outer terminal, shared with others -----------------------------------------------------


def test_a5_the_outer_descriptors_stay_blocking(home: Home) -> None:
    """A shell shares them: left non-blocking, by a kill -9 say, its next read would fail."""
    terminal = home.terminal("cat")
    terminal.session.wait()
    terminal.send(b"x\r")
    terminal.expect(b"x\r\nx")
    assert not fcntl.fcntl(terminal.tty, fcntl.F_GETFL) & os.O_NONBLOCK
    read, write = os.pipe()
    process = home.start("cat", stdout=write, stdin=subprocess.PIPE)
    process.session.wait()
    assert not fcntl.fcntl(write, fcntl.F_GETFL) & os.O_NONBLOCK
    process.signal(signal.SIGTERM)
    process.wait()
    os.close(read)
    os.close(write)


def test_a5_a_terminal_that_stands_still_stops_nobody_else(home: Home) -> None:
    terminal = home.terminal("sh", "-c", "echo up; exec yes 'a line that nobody reads'")
    terminal.expect(b"up")
    session = terminal.session.wait()
    terminal.paused.set()  # as after Ctrl-S, or in a tmux that hangs
    time.sleep(0.5)
    with session.client() as client:
        assert client.answers()
        client.control(cmd="resize", cols=70, rows=20)
        assert client.answers()
        client.control(cmd="kill")
        eventually(lambda: session.status() == "exited", 6, "the end is on disk")
    terminal.paused.clear()
    assert terminal.wait() == 143
    assert terminal.restored()
    # Asked to end, it waits two seconds for the terminal; the recording has the rest.
    assert session.recording().text().encode().startswith(terminal.output)


def test_a5_a_terminal_that_stood_still_at_the_end_gets_everything(home: Home) -> None:
    terminal = home.terminal("seq", "1", "20000")
    terminal.paused.set()
    time.sleep(3)
    assert terminal.popen.poll() is None
    terminal.paused.clear()
    assert terminal.wait() == 0
    assert terminal.output.decode() == "".join(f"{n}\r\n" for n in range(1, 20_001))
    assert terminal.session.recording().text().encode() == terminal.output


def test_a5_a_terminal_that_stands_still_for_ever_can_be_left(home: Home) -> None:
    terminal = home.terminal("sh", "-c", "echo up; exec yes 'a line that nobody reads'")
    terminal.expect(b"up")
    session = terminal.session.wait()
    terminal.paused.set()
    time.sleep(0.3)
    terminal.signal(signal.SIGTERM)
    time.sleep(0.3)
    terminal.signal(signal.SIGTERM)
    terminal.popen.wait(10)
    assert session.info["status"] == "exited"
    assert session.recording().exit is not None


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("state", ["quiet", "input ended", "reader gone", "hung up"])
def test_a5_doing_nothing_takes_no_processor_time(home: Home, state: str) -> None:
    running: Terminal | Process
    if state == "hung up":
        running = home.terminal("sh", "-c", "trap '' HUP; echo up; sleep 30")
        running.expect(b"up")
        running.session.wait()
        running.hang_up()
    else:
        running = home.start("sleep", "30", stdin=subprocess.PIPE)
        running.session.wait()
        if state == "input ended" and running.popen.stdin is not None:
            running.popen.stdin.close()
            running.popen.stdin = None
        if state == "reader gone" and running.popen.stdout is not None:
            running.popen.stdout.close()
            running.popen.stdout = None
    time.sleep(0.2)
    before = processor_ticks(running.pid)
    time.sleep(0.8)
    assert processor_ticks(running.pid) - before <= 2, "of 80 that were there to take"
