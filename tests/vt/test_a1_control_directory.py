"""A1 of the contract: the control directory, ids, modes, socket paths, reuse."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import time

import pytest

from vt.harness import Home, Session, alive, eventually

SUN_PATH_MAX = 103  # what Node's clients accept on every system


def entries(home: Home) -> list[str]:
    return sorted(os.listdir(home.control)) if home.control.is_dir() else []


def test_a1_root_is_vibetunnel_control_dir(home: Home) -> None:
    elsewhere = home.path / "c"
    result = home.cli("--session-id", "x", "true", env={"VIBETUNNEL_CONTROL_DIR": str(elsewhere)})
    assert result.code == 0
    assert (elsewhere / "x" / "session.json").is_file()
    assert entries(home) == []


def test_a1_root_is_in_home_when_the_variable_is_empty(home: Home) -> None:
    assert home.cli("--session-id", "x", "true", env={"VIBETUNNEL_CONTROL_DIR": ""}).code == 0
    assert entries(home) == ["x"]


def test_a1_root_is_relative_without_home(home: Home) -> None:
    del home.env["HOME"]
    assert home.cli("--session-id", "x", "true").code == 0
    assert (home.work / ".vibetunnel" / "control" / "x" / "session.json").is_file()


def test_a1_a_session_directory_has_its_four_files(home: Home) -> None:
    process = home.start("cat", stdin=None)
    session = process.session.wait()
    assert sorted(os.listdir(session.path)) == ["ipc.sock", "session.json", "stdin", "stdout"]
    assert stat.S_ISFIFO((session.path / "stdin").stat().st_mode)
    assert stat.S_ISSOCK((session.path / "ipc.sock").stat().st_mode)
    with session.client() as client:
        client.control(cmd="kill")
        process.wait()
    assert sorted(os.listdir(session.path)) == ["session.json", "stdin", "stdout"]


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_a1_modes_are_the_owners_alone_under_any_umask(home: Home, umask: int) -> None:
    home.control.mkdir(parents=True)
    process = home.start("sleep", "60", umask=umask)
    session = process.session.wait()

    def mode(name: str) -> int:
        return stat.S_IMODE((session.path / name).stat().st_mode)

    assert mode(".") == 0o700
    files = ["session.json", "stdout", "stdin", "ipc.sock"]
    assert {name: oct(mode(name)) for name in files} == dict.fromkeys(files, oct(0o600))
    process.signal(signal.SIGTERM)
    process.wait()
    assert mode("session.json") == 0o600


def test_a1_the_default_id_is_fwd_milliseconds_pid(home: Home) -> None:
    before_ms = int(time.time() * 1000)
    assert home.cli("true").code == 0
    (name,) = entries(home)
    match = re.fullmatch(r"fwd_(\d{13})_(\d+)", name)
    assert match is not None
    assert before_ms <= int(match[1]) <= int(time.time() * 1000)
    assert home.session(name).info["id"] == name


@pytest.mark.parametrize("name", ["a", "A-_9", "x" * 64], ids=["short", "all kinds", "64"])
def test_a1_good_ids(home: Home, name: str) -> None:
    root = home.path / "c"  # short: the socket's path must fit with 64 letters too
    result = home.cli("--session-id", name, "true", env={"VIBETUNNEL_CONTROL_DIR": str(root)})
    assert result.code == 0
    assert Session(root, name).info["id"] == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../x", "a b", "a.b", "é", "x" * 65, "a\n", b"\xff", "a;b"],
)
def test_a1_a_bad_id_creates_nothing(home: Home, name: str | bytes) -> None:
    result = home.cli("--session-id", name, "true")
    assert result.code == 1
    assert result.err
    assert entries(home) == []


@pytest.mark.parametrize("excess", [0, 1])
def test_a1_the_sockets_path_has_at_most_103_bytes(home: Home, excess: int) -> None:
    fixed = len(str(home.path)) + len("//x/ipc.sock")
    root = home.path / ("d" * (SUN_PATH_MAX + excess - fixed))
    result = home.cli("--session-id", "x", "true", env={"VIBETUNNEL_CONTROL_DIR": str(root)})
    if excess == 0:
        assert result.code == 0
        assert (root / "x" / "session.json").is_file()
        return
    assert result.code == 1
    assert not root.exists(), "nothing may be created"
    message = result.err.decode()
    assert str(root) in message
    assert str(SUN_PATH_MAX + excess) in message
    assert str(SUN_PATH_MAX) in message


def test_a1_a_running_sessions_id_is_refused_and_it_goes_on(home: Home) -> None:
    first = home.start("cat", session_id="x")
    first.session.wait()
    before = first.session.info
    second = home.cli("--session-id", "x", "echo", "no")
    assert second.code == 1
    assert b"x" in second.err
    assert first.session.info == before
    with first.session.client() as client:
        client.type(b"still here\n")
        first.session.wait_output("still here")
        client.control(cmd="kill")
    assert first.wait().code == 143


def test_a1_an_ended_sessions_id_starts_over(home: Home) -> None:
    assert home.run("printf", "first", session_id="x").code == 0
    (home.last.path / "activity.json").write_text("{}")
    assert home.run("sh", "-c", "printf second; exit 3", session_id="x").code == 3
    assert home.last.recording().text() == "second"
    assert home.last.info["exitCode"] == 3
    assert (home.last.path / "activity.json").read_text() == "{}", "unknown files stay"


def test_a1_the_id_of_a_killed_forwarder_starts_over(home: Home) -> None:
    killed = home.start("sleep", "60", session_id="x")
    info = killed.session.wait().info
    killed.signal(signal.SIGKILL)
    killed.wait()
    eventually(lambda: not alive(info["pid"]), what="the kernel hangs up the child")
    assert killed.session.info["status"] == "running"
    assert (killed.session.path / "ipc.sock").exists(), "the stale socket is the point here"
    process = home.start("cat", session_id="x")

    def pid() -> int | None:
        try:
            return process.session.info.get("pid")
        except FileNotFoundError:  # between the old session and the new one
            return None

    eventually(lambda: pid() not in (None, info["pid"]))
    with process.session.client() as client:
        assert client.answers()
        client.control(cmd="kill")
    assert process.wait().code == 143


@pytest.mark.parametrize(
    "content", [b"", b"not json", b"[]", b"{}", b'{"status":"running"}', b"\xff"]
)
def test_a1_a_broken_session_json_of_an_old_session_is_replaced(home: Home, content: bytes) -> None:
    directory = home.session("x").path
    directory.mkdir(parents=True)
    (directory / "session.json").write_bytes(content)
    assert home.run("printf", "ok", session_id="x").code == 0
    assert home.last.info["status"] == "exited"
    assert home.last.recording().text() == "ok"


def test_a1_a_stdin_that_is_no_fifo_is_an_error(home: Home) -> None:
    directory = home.session("x").path
    directory.mkdir(parents=True)
    (directory / "stdin").write_text("precious")
    result = home.cli("--session-id", "x", "touch", "ran")
    assert result.code == 1
    assert b"stdin" in result.err
    assert (directory / "stdin").read_text() == "precious"
    assert not (home.work / "ran").exists()
    assert home.session("x").status() != "starting"


def test_a1_session_json_follows_its_directory_within_100_ms(home: Home) -> None:
    """The server looks for it 100 ms after the directory; a busy machine gets three tries."""
    waited_s = []
    for name in ("x", "y", "z"):
        session = home.session(name)
        process = home.start("sleep", "60", session_id=name)
        eventually(session.path.is_dir)
        seen = time.monotonic()
        eventually((session.path / "session.json").exists)
        waited_s.append(time.monotonic() - seen)
        process.signal(signal.SIGTERM)
    assert min(waited_s) < 0.1


def test_a1_the_directory_may_vanish_while_it_runs(home: Home) -> None:
    terminal = home.terminal("cat")
    session = terminal.session.wait()
    shutil.rmtree(session.path)
    terminal.send(b"still here\r")
    terminal.expect(b"still here\r\nstill here")
    terminal.resize(90, 20)
    terminal.send(b"\x04")
    assert terminal.wait() == 0
    assert terminal.restored()
    assert not session.path.exists(), "it must not come back"


def test_a1_of_two_that_start_with_one_id_at_once_only_one_runs(home: Home) -> None:
    for turn in range(10):
        name = f"x{turn}"
        pair = [
            home.start("sh", "-c", f"echo ran >>{name}; echo up; sleep 60", session_id=name)
            for _ in "ab"
        ]
        eventually(lambda pair=pair: any(process.popen.poll() is not None for process in pair))
        codes = [process.popen.poll() for process in pair]
        assert sorted(code for code in codes if code is not None) == [1]
        winner = pair[codes.index(None)]
        winner.session.wait().wait_output("up")
        with winner.session.client() as client:
            assert client.answers()
            client.control(cmd="kill")
        assert winner.wait().code == 143
        assert (home.work / name).read_text() == "ran\n"


def test_a1_default_ids_of_many_at_once_differ(home: Home) -> None:
    home.command = [
        "sh",
        "-c",
        'for i in 1 2 3 4 5 6 7 8; do "$@" & done; wait',
        "sh",
        *home.command,
    ]
    assert home.cli("true").code == 0
    assert len(entries(home)) == 8
    assert {session.status() for session in home.sessions()} == {"exited"}
