"""A6 of the contract: signals to the forwarder, and what a startup that fails leaves."""

from __future__ import annotations

import os
import signal
import stat
import time

import pytest

from vt.harness import Home, Process, alive, eventually


def up(home: Home, script: str) -> Process:
    process = home.start("sh", "-c", script)
    process.session.wait().wait_output("up")
    return process


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a6_a_signal_is_passed_on_and_the_end_is_orderly(home: Home, number: int) -> None:
    process = up(home, "ulimit -c 0; echo up; exec sleep 60")
    process.signal(number)
    assert process.wait().code == 128 + number
    session = process.session
    assert session.info["status"] == "exited"
    assert session.info["exitCode"] == 128 + number
    assert session.recording().exit == (128 + number, session.id)
    assert not (session.path / "ipc.sock").exists()


def test_a6_under_nohup_a_hang_up_changes_nothing(home: Home) -> None:
    process = home.start(
        "sh",
        "-c",
        "echo up; read x; echo got $x",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    session = process.session.wait()
    session.wait_output("up")
    process.signal(signal.SIGHUP)
    with session.client() as client:
        client.type(b"on\n")
        assert b"got on" in process.wait().out


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_a6_a_signal_that_is_fatal_to_it_gives_the_terminal_back(home: Home, name: str) -> None:
    terminal = home.terminal("sh", "-c", "echo up; exec sleep 60")
    terminal.expect(b"up")
    session = terminal.session.wait()
    terminal.signal(signal.Signals[name])
    assert terminal.wait() != 0
    assert terminal.restored()
    eventually(lambda: not alive(session.info["pid"]), what="the kernel hangs up the child")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a6_the_childs_own_exit_code_counts(home: Home, number: int) -> None:
    name = signal.Signals(number).name[3:]
    process = up(home, f"trap 'echo cleaning up; exit 12' {name}; echo up; sleep 60 & wait")
    process.signal(number)
    result = process.wait()
    assert result.code == 12
    assert b"cleaning up" in result.out
    assert "cleaning up" in process.session.recording().text()


def test_a6_a_stopped_child_is_continued(home: Home) -> None:
    process = up(home, "echo up; kill -STOP $$; sleep 60")
    time.sleep(0.1)
    process.signal(signal.SIGTERM)
    assert process.wait().code == 143


def test_a6_a_second_signal_kills(home: Home) -> None:
    process = up(home, "trap '' TERM INT; echo up; while :; do sleep 0.05; done")
    process.signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.popen.poll() is None, "one signal may be ignored"
    start = time.monotonic()
    process.signal(signal.SIGTERM)
    assert process.wait().code == 137
    assert time.monotonic() - start < 1
    assert process.session.recording().exit == (137, process.session.id)


def test_a6_a_child_that_ignores_the_signal_is_killed_after_three_seconds(home: Home) -> None:
    process = up(home, "trap '' TERM; echo up; while :; do sleep 0.05; done")
    process.signal(signal.SIGTERM)
    start = time.monotonic()
    assert process.wait().code == 137
    assert 2 < time.monotonic() - start < 5
    assert process.session.info["exitCode"] == 137


def test_a6_signals_reach_the_group(home: Home) -> None:
    process = up(home, "sleep 61 & echo child=$! up; wait")
    text = process.session.recording(finished=False).text()
    grandchild = int(text.split("child=")[1].split()[0])
    process.signal(signal.SIGTERM)
    assert process.wait().code == 143
    eventually(lambda: not alive(grandchild))


def test_a6_other_signals_do_not_end_it(home: Home) -> None:
    process = up(home, "echo up; read x; echo got $x")
    for number in (signal.SIGPIPE, signal.SIGWINCH, signal.SIGCHLD, signal.SIGCONT):
        process.signal(number)
    with process.session.client() as client:
        client.type(b"on\n")
        assert b"got on" in process.wait().out


def test_a6_sigkill_of_the_forwarder_hangs_the_child_up(home: Home) -> None:
    process = up(home, "echo up; exec sleep 60")
    pid = process.session.info["pid"]
    process.signal(signal.SIGKILL)
    process.wait()
    eventually(lambda: not alive(pid))
    assert process.session.info["status"] == "running", "a listing makes exited of it"
    recording = process.session.recording(finished=False)
    assert recording.exit is None
    assert "up" in recording.text()


def test_a6_a_signal_at_any_moment_of_the_start_leaves_no_half_session(home: Home) -> None:
    for delay_us in range(0, 3000, 75):
        process = home.start("sleep", "60")
        time.sleep(delay_us / 1e6)
        process.signal(signal.SIGTERM)
        code = process.wait().code
        session = process.session
        if code == -signal.SIGTERM:  # before it could handle one: then nothing has begun
            assert session.status() in (None, "exited")
            continue
        assert code == 143
        assert session.info["status"] == "exited"
        assert session.recording().exit == (143, session.id)


# ---- a startup that fails -----------------------------------------------------------------------


def obstruct_directory(home: Home) -> None:
    home.control.parent.mkdir()
    home.control.write_text("a file in the way")


def obstruct_session(home: Home) -> None:
    home.control.mkdir(parents=True)
    home.session("x").path.write_text("a file in the way")


def obstruct_recording(home: Home) -> None:
    (home.session("x").path / "stdout").mkdir(parents=True)


def obstruct_session_json(home: Home) -> None:
    (home.session("x").path / "session.json").mkdir(parents=True)


def obstruct_socket(home: Home) -> None:
    (home.session("x").path / "ipc.sock").mkdir(parents=True)


def obstruct_with_links(home: Home) -> None:
    home.session("x").path.mkdir(parents=True)
    (home.session("x").path / "stdout").symlink_to("/proc/version")


@pytest.mark.parametrize(
    "obstruct",
    [
        obstruct_directory,
        obstruct_session,
        obstruct_recording,
        obstruct_session_json,
        obstruct_socket,
        obstruct_with_links,
    ],
)
def test_a6_what_cannot_be_created_is_an_error_and_nothing_runs(home: Home, obstruct) -> None:
    obstruct(home)
    result = home.cli("--session-id", "x", "touch", "ran")
    assert result.code == 1
    assert result.err.strip()
    assert not (home.work / "ran").exists()
    if home.session("x").path.is_dir() and (home.session("x").path / "session.json").is_file():
        assert home.session("x").status() == "exited", "never left as starting"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that root cannot write")
def test_a6_a_directory_that_root_cannot_write(home: Home) -> None:
    result = home.cli("--session-id", "x", "touch", "ran", env={"VIBETUNNEL_CONTROL_DIR": "/proc"})
    assert result.code == 1
    assert b"/proc" in result.err
    assert not (home.work / "ran").exists()


def test_a6_a_directory_of_somebody_else(home: Home) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    home.control.mkdir(parents=True)
    for directory in (home.path, home.path / ".vibetunnel", home.control):
        directory.chmod(0o755)
    result = home.cli("--session-id", "x", "true", user=65534, group=65534, extra_groups=[])
    assert result.code == 1
    assert str(home.control).encode() in result.err
    assert stat.S_IMODE(home.control.stat().st_mode) == 0o755
