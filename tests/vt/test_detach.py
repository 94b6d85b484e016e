"""--detach and --size: a session in the background, with a size of its own."""

from __future__ import annotations

import os

import pytest

from vt.harness import Home, eventually


def test_it_returns_when_the_session_runs_and_prints_its_id(home: Home) -> None:
    result = home.cli("--detach", "--size", "90x20", "--", "sh", "-c", "stty size; read x; exit 7")
    assert (result.code, result.err) == (0, b"")
    session = home.session(result.out.decode().strip())
    info = session.info
    assert info["status"] == "running"
    assert (info["initialCols"], info["initialRows"]) == (90, 20)
    assert os.getsid(info["pid"]) == info["pid"]
    session.wait_output("20 90")
    session.client().type(b"\n").close()
    session.wait("exited")
    assert session.info["exitCode"] == 7
    eventually(lambda: session.recording(finished=False).exit == (7, session.id))
    assert session.recording().header["width"] == 90


def test_a_session_on_a_terminal_takes_the_size_and_leaves_the_terminal(home: Home) -> None:
    terminal = home.terminal("sh", "-c", "stty size; sleep 30", flags=("--detach",), size=(77, 11))
    assert terminal.wait() == 0
    assert terminal.restored()
    assert terminal.output == f"{terminal.session.id}\r\n".encode()
    terminal.session.wait_output("11 77")
    assert terminal.session.status() == "running", "the end of our terminal is not its end"
    terminal.session.client().control(cmd="kill").close()
    terminal.session.wait("exited")


def test_what_keeps_it_from_starting_is_said_before_it_returns(home: Home) -> None:
    assert home.cli("--detach", "--session-id", "one", "sleep", "30").code == 0
    again = home.cli("--detach", "--session-id", "one", "sleep", "30")
    assert again.code == 1
    assert b"a session with this id is running" in again.err
    assert not again.out


@pytest.mark.parametrize("size", ["80", "x", "0x24", "80x0", "80x65536", "-1x24", "80x24x", ""])
def test_a_size_that_is_none_is_refused(home: Home, size: str) -> None:
    result = home.cli("--size", size, "true")
    assert result.code == 1
    assert b"a size is COLSxROWS" in result.err
    assert home.sessions() == []
