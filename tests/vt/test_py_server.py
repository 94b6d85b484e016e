"""pyplue.vt beside the real VibeTunnel server: each drives the sessions of the other."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from pyplue import vt
from vt.harness import eventually
from vt.server import Server, vibetunnel
from vt.test_py_attach import PAINTER, Attached

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(need: Callable[[str], str]) -> Iterator[Server]:
    with vibetunnel(need) as server:
        yield server


def created(server: Server, *command: str) -> vt.Session:
    """A session that a browser has asked the server for: it lives in the server's process."""
    body = {"command": command, "workingDir": str(server.home.work), "cols": 90, "rows": 20}
    name = server.ask("POST", "/sessions", {**body, "name": "from the browser"})["sessionId"]
    server.wait_listed(name)
    return vt.Session.open(name, control_dir=server.home.control)


def test_python_drives_a_session_that_the_server_started(server: Server) -> None:
    session = created(server, "sh", "-c", "PS1='$ ' exec sh -i")
    assert session.id in [s.id for s in vt.sessions(control_dir=server.home.control)]
    info = session.info
    assert (info.name, info.status, info.cols, info.rows) == ("from the browser", "running", 90, 20)
    assert session.exit_code is None
    session.wait("$", timeout=5)
    session.send("echo hé''llo", key="enter")
    assert "\nhéllo\n$" in session.wait("héllo\n$", timeout=5)
    stream = server.stream(session.id)
    session.resize(100, 30)
    session.send("stty size\r")
    session.wait("30 100", timeout=5)
    eventually(lambda: "100x30" in stream.of_kind("r"), 20, "the resize in the stream")
    session.rename("from Python")
    assert (server.listed(session.id) or {})["name"] == "from Python"
    session.send("echo $((6*7))\r")
    session.wait("42", timeout=5)
    eventually(lambda: "42" in server.text(session.id), 20, "the answer in the server's text")
    events = session.events()
    session.send("exit 3\r")
    assert session.wait(timeout=10) == 3
    assert [event.data for event in events][-1] == "3"
    with pytest.raises(vt.SessionExitedError):
        eventually(lambda: session.send("x"))


def test_python_ends_a_session_that_the_server_started(server: Server) -> None:
    session = created(server, "sleep", "60")
    session.kill("SIGTERM")
    assert session.wait(timeout=10) == 143
    server.wait_listed(session.id, "exited")


def test_attach_to_a_session_that_the_server_started(server: Server) -> None:
    session = created(server, sys.executable, "-c", PAINTER)
    session.wait("first", timeout=10)
    view = Attached(session, size=(80, 24))
    try:
        view.shows("again 24 80\nsecond row")
        view.send(b"typed")
        view.shows("got:" + b"typed".hex())
        view.leave()
    finally:
        view.close()
    session.kill("SIGKILL")
    session.wait(timeout=10)


def test_the_server_drives_a_session_that_python_started(server: Server) -> None:
    session = vt.spawn(
        ["sh"],
        control_dir=server.home.control,
        env={**server.home.env, "PS1": "$ "},
        name="from Python",
    )
    entry = server.wait_listed(session.id)
    assert entry["name"] == "from Python"
    assert (entry["initialCols"], entry["initialRows"]) == (80, 24)
    stream = server.stream(session.id)
    server.type(session.id, "echo by the ser''ver\n")
    session.wait("by the server", timeout=5)
    session.send("echo by Py''thon\r")
    stream.wait_output("by Python")
    server.ask("POST", f"/sessions/{session.id}/resize", {"cols": 132, "rows": 40})
    eventually(lambda: (session.screen().cols, session.screen().rows) == (132, 40))
    eventually(lambda: "by Python" in server.text(session.id))
    server.ask("PATCH", f"/sessions/{session.id}", {"name": "renamed\x1b[31m"})
    assert session.info.name == "renamed\x1b[31m", (
        "as it was written; printable() makes it harmless"
    )
    session.send("exec sleep 60\r")
    session.wait(quiet=0.3, timeout=5)
    events = session.events()
    server.ask("DELETE", f"/sessions/{session.id}")
    assert session.wait(timeout=10) == 143
    assert [event.data for event in events][-1] == "143"
    assert stream.exit() == ["exit", 143, session.id]
    server.ask("DELETE", f"/sessions/{session.id}")
    with pytest.raises(vt.SessionNotFoundError):
        _ = session.info


def test_sessions_survive_the_server(server: Server) -> None:
    ours = vt.spawn(["cat"], control_dir=server.home.control)
    theirs = created(server, "cat")
    server.wait_listed(ours.id)
    events = theirs.events()
    server.popen.send_signal(signal.SIGKILL)
    server.popen.wait()
    server.log.close()
    ours.send("still here\r")
    ours.wait("still here\nstill here", timeout=5)
    # Theirs ended with the process that it lived in: everybody is told so, and nothing hangs.
    assert [event.code for event in events if event.code == "x"] in ([], ["x"])
    assert not theirs.info.running
    with pytest.raises(ConnectionError):
        theirs.send("x")
    server.start()
    server.wait_listed(ours.id)
    ours.send(key="ctrl+d")
    assert ours.wait(timeout=5) == 0
