"""Sessions inside this process (libvt_fwd) under the real VibeTunnel server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from vt.harness import eventually
from vt.server import Server, vibetunnel

from pyplue import ffi

pytestmark = pytest.mark.timeout(120)

vt = ffi.vt


@pytest.fixture
def server(need: Callable[[str], str]) -> Iterator[Server]:
    with vibetunnel(need) as server:
        yield server


def test_the_server_lists_types_resizes_renames_and_kills(server: Server) -> None:
    control = server.home.control
    config = {"argv": ["sh"], "id": "inside", "control_dir": str(control), "env": {"PS1": "$ "}}
    text = json.dumps(config).encode()
    handle = vt.vt_fwd_start(text, len(text))
    assert handle, vt.vt_fwd_last_message()
    session = server.home.session("inside")
    assert server.wait_listed("inside")["pid"] == vt.vt_fwd_session_pid(handle)
    stream = server.stream("inside")
    server.type("inside", "echo héllo-$((40+2))\n")
    stream.wait_output("héllo-42")
    answer = server.ask("POST", "/sessions/inside/resize", {"cols": 100, "rows": 40})
    assert answer == {"success": True, "cols": 100, "rows": 40}
    eventually(lambda: stream.of_kind("r") == ["100x40"])
    assert server.ask("PATCH", "/sessions/inside", {"name": "renamed"})["name"] == "renamed"
    eventually(lambda: "héllo-42" in server.text("inside"))
    server.ask("DELETE", "/sessions/inside")
    assert vt.vt_fwd_wait(handle, 10_000) in (143, 137)  # an interactive sh ignores SIGTERM
    assert stream.exit()[2] == "inside"
    entry = server.wait_listed("inside", "exited")
    assert entry["exitCode"] == vt.vt_fwd_wait(handle, 0)
    assert entry["name"] == "renamed"
    assert session.recording().exit == (entry["exitCode"], "inside")
    assert vt.vt_fwd_close(handle)


def test_ten_sessions_do_not_mix(server: Server) -> None:
    handles = {}
    for number in range(10):
        name = f"n{number}"
        config = {"argv": ["cat"], "id": name, "control_dir": str(server.home.control)}
        text = json.dumps(config).encode()
        handles[name] = vt.vt_fwd_start(text, len(text))
        assert handles[name]
    for name in handles:
        server.wait_listed(name)
        server.type(name, f"only {name}\n")
    for name, handle in handles.items():
        server.home.session(name).wait_output(f"only {name}\r\nonly {name}")
        assert vt.vt_fwd_stop(handle) == 0
        assert vt.vt_fwd_wait(handle, 10_000) == 143
        assert vt.vt_fwd_close(handle)
        assert server.home.session(name).recording().text().count("only") == 2
