"""vibetunnel-fwd under the real VibeTunnel server: all that a browser does with a session."""

from __future__ import annotations

import collections
import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from vt.harness import Terminal, alive, eventually
from vt.server import Server, vibetunnel
from websockets.sync.client import ClientConnection, connect

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(need: Callable[[str], str]) -> Iterator[Server]:
    """The server, once for all tests, and the home directory of their sessions."""
    with vibetunnel(need) as server:
        yield server


@pytest.fixture
def shell(server: Server) -> Iterator[Terminal]:
    """A session with a shell on a terminal, listed as running."""
    server.home.env["PS1"] = "$ "
    terminal = server.home.terminal("sh", size=(90, 30))
    server.wait_listed(terminal.session.id)
    yield terminal
    terminal.close()


def test_a_session_is_listed_with_its_fields(server: Server, shell: Terminal) -> None:
    entry = server.wait_listed(shell.session.id)
    info = shell.session.info
    assert {key: entry[key] for key in info} == info
    assert entry["source"] == "local"
    assert server.get(f"/sessions/{shell.session.id}")["pid"] == info["pid"]
    assert server.request("GET", "/sessions/nobody")[0] == 404


def test_a_live_stream_shows_input_resize_and_the_end(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    stream = server.stream(name)
    eventually(lambda: stream.header)
    assert (stream.header or {})["width"] == 90
    server.type(name, "echo héllo-$((40+2))\n")
    stream.wait_output("héllo-42")
    answer = server.ask("POST", f"/sessions/{name}/resize", {"cols": 100, "rows": 40})
    assert answer == {"success": True, "cols": 100, "rows": 40}
    eventually(lambda: stream.of_kind("r") == ["100x40"])
    server.type(name, "stty size\n")
    stream.wait_output("40 100")
    server.type(name, "exit 3\n")
    assert stream.exit() == ["exit", 3, name]
    assert shell.wait() == 3
    assert server.wait_listed(name, "exited")["exitCode"] == 3


def test_a_late_stream_replays_the_same(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    live = server.stream(name)
    server.type(name, "echo one; echo t'w'o €\n")
    live.wait_output("two €")
    late = server.stream(name)
    late.wait_output("two €")
    assert late.output() == live.output()
    server.type(name, "exit\n")
    assert live.exit() == late.exit() == ["exit", 0, name]
    after = server.stream(name)
    assert after.exit() == ["exit", 0, name]
    assert after.output() == live.output() == shell.session.recording().text()


def test_a_late_stream_after_a_clear_shows_what_followed_it(
    server: Server, shell: Terminal
) -> None:
    name = shell.session.id
    server.type(name, "echo bef'o're\n")
    shell.expect(b"before")
    server.type(name, "printf '\\033[H\\033[2Jaft''er'\n")
    shell.expect(b"after")
    time.sleep(0.1)
    late = server.stream(name)
    late.wait_output("after")
    assert "before" not in late.output()


def test_keys_arrive_as_escape_sequences(server: Server) -> None:
    process = server.home.start("sh", "-c", "stty raw -echo; echo up; head -c 4 | od -An -tx1")
    name = process.session.id
    process.session.wait().wait_output("up")
    for key in ("arrow_up", "enter"):
        server.ask("POST", f"/sessions/{name}/input", {"key": key})
    assert b"1b 5b 41 0d" in process.wait().out


@pytest.mark.parametrize("size", [1_500_000, 9_000_000])
def test_a_large_paste_arrives_whole(server: Server, size: int) -> None:
    data = ("0123456789 abcdefghij -- a line of the paste\r" * (size // 40))[:size]
    process = server.home.start("sh", "-c", f"stty raw -echo; echo up; head -c {size} | cksum")
    process.session.wait().wait_output("up")
    server.wait_listed(process.session.id)
    server.type(process.session.id, data)
    out = process.wait(60).out
    expected = subprocess.run(
        ["cksum"], input=data.encode(), capture_output=True, check=True
    ).stdout
    assert out.split()[1:3] == expected.split()
    assert process.session.recording().text("i") == data


def test_reset_size_goes_back_to_the_outer_terminal(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    server.ask("POST", f"/sessions/{name}/resize", {"cols": 140, "rows": 50})
    server.type(name, "stty size\n")
    shell.expect(b"50 140")
    assert server.ask("POST", f"/sessions/{name}/reset-size")["success"] is True
    server.type(name, "stty size\n")
    shell.expect(b"30 90")
    assert shell.session.recording(finished=False).of_kind("r") == ["140x50", "90x30"]


def test_a_size_out_of_range_is_refused(server: Server, shell: Terminal) -> None:
    status, _ = server.request(
        "POST", f"/sessions/{shell.session.id}/resize", {"cols": 1001, "rows": 10}
    )
    assert status == 400


def test_a_rename_is_seen_on_the_outer_terminal(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    assert server.ask("PATCH", f"/sessions/{name}", {"name": "my build"})["name"] == "my build"
    shell.expect(b"\x1b]2;my build\x07", timeout=3)
    server.ask("PATCH", f"/sessions/{name}", {"name": "x\x07\x1b]52;c;ZXZpbA==\x07"})
    shell.expect(b"\x1b]2;x]52;c;ZXZpbA==\x07", timeout=3)
    assert b"\x1b]52" not in shell.output
    server.ask("PATCH", f"/sessions/{name}", {"name": "kept"})
    server.type(name, "exit\n")
    shell.wait()
    assert server.wait_listed(name, "exited")["name"] == "kept"


def test_the_text_of_the_screen(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    server.type(name, "echo scr''een\n")
    eventually(lambda: "screen" in server.text(name))


def test_the_buffer(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    server.type(name, "echo buf''fer\n")
    eventually(lambda: "buffer" in server.text(name))
    status, body = server.request("GET", f"/sessions/{name}/buffer")
    assert status == 200
    assert body.startswith(b"TV")


def test_kill_then_clean_up(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    # A shell on a terminal ignores SIGTERM: the program in front of it is what ends.
    server.type(name, "exec sleep 60\n")
    eventually(lambda: b"exec sleep" in shell.output)
    time.sleep(0.2)
    stream = server.stream(name)
    start = time.monotonic()
    assert server.ask("DELETE", f"/sessions/{name}")["message"] == "Session killed"
    assert time.monotonic() - start < 2
    assert stream.exit() == ["exit", 143, name]
    assert shell.wait() == 143
    assert shell.restored()
    assert server.wait_listed(name, "exited")["exitCode"] == 143
    assert not (shell.session.path / "ipc.sock").exists()
    assert server.ask("DELETE", f"/sessions/{name}")["message"] == "Session cleaned up"
    assert not shell.session.path.exists()
    assert server.listed(name) is None


def test_a_child_that_ignores_sigterm_is_killed_by_the_server(server: Server) -> None:
    process = server.home.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    name = process.session.id
    process.session.wait().wait_output("up")
    server.ask("DELETE", f"/sessions/{name}")
    assert process.wait().code == 137
    assert server.wait_listed(name, "exited")["exitCode"] == 137


def test_clean_up_of_a_running_session_does_not_end_it(server: Server) -> None:
    terminal = server.home.terminal("cat")
    server.wait_listed(terminal.session.id)
    server.request("DELETE", f"/sessions/{terminal.session.id}/cleanup")
    eventually(lambda: not terminal.session.path.exists())
    terminal.send(b"still here\r")
    terminal.expect(b"still here\r\nstill here")
    terminal.send(b"\x04")
    assert terminal.wait() == 0
    assert not terminal.session.path.exists()


def test_exited_sessions_are_purged(server: Server) -> None:
    server.home.run("true")
    name = server.home.last.id
    server.wait_listed(name, "exited")
    server.ask("POST", "/cleanup-exited")
    assert server.listed(name) is None
    assert not server.home.last.path.exists()


def test_the_server_restarts_in_mid_session(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    server.type(name, "echo fir''st\n")
    shell.expect(b"first")
    server.stop()
    shell.send(b"echo mea''nwhile\r")
    shell.expect(b"meanwhile")
    server.start()
    server.wait_listed(name)
    stream = server.stream(name)
    stream.wait_output("meanwhile")
    server.type(name, "echo sec''ond\n")
    stream.wait_output("second")
    assert "first" in stream.output()


def test_the_server_is_killed_in_mid_session(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    server.type(name, "echo fir''st\n")
    shell.expect(b"first")
    server.popen.kill()
    server.popen.wait()
    server.log.close()
    server.start()
    server.type(name, "echo sec''ond\n")
    shell.expect(b"second")


def test_two_sessions_at_once(server: Server) -> None:
    terminals = [server.home.terminal("cat") for _ in range(2)]
    names = [terminal.session.id for terminal in terminals]
    for name in names:
        server.wait_listed(name)
    streams = [server.stream(name) for name in names]
    for number in range(20):
        for name in names:
            server.type(name, f"{name}-{number}\n")
    for name, stream in zip(names, streams, strict=True):
        eventually(lambda n=name, s=stream: s.output().count(f"{n}-19") == 2)
    for name, stream, other in zip(names, streams, reversed(names), strict=True):
        assert f"{other}-" not in stream.output()
        server.ask("DELETE", f"/sessions/{name}")
        assert stream.exit() == ["exit", 143, name]


def test_a_program_with_a_large_output_reaches_the_browser_whole(server: Server) -> None:
    process = server.home.start(
        "sh", "-c", "read x; seq 1 50000; sleep 1", stdout=subprocess.DEVNULL
    )
    name = process.session.id
    server.wait_listed(name)
    stream = server.stream(name)
    server.type(name, "\n")
    assert stream.exit(40) == ["exit", 0, name]
    assert stream.output() == "\r\n" + "".join(f"{n}\r\n" for n in range(1, 50_001))


def test_a_killed_forwarder_is_listed_as_exited(server: Server) -> None:
    process = server.home.start("sleep", "60", session_id="reused")
    server.wait_listed("reused")
    pid = process.session.info["pid"]
    process.signal(signal.SIGKILL)
    process.wait()
    eventually(lambda: not alive(pid))
    assert server.wait_listed("reused", "exited")["exitCode"] == 1
    again = server.home.start("sh", "-c", "echo again; sleep 60", session_id="reused")
    server.wait_listed("reused")
    stream = server.stream("reused")
    stream.wait_output("again")
    server.ask("DELETE", "/sessions/reused")
    assert again.wait().code == 143


# ---- WebSocket ----------------------------------------------------------------------------------


def websocket(server: Server, path: str) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}{path}", max_size=None)


def test_websocket_input(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    with websocket(server, f"/ws/input?sessionId={name}") as socket:
        socket.send("echo web''socket €")
        socket.send("\x00enter\x00")
        shell.expect("websocket €".encode())
        socket.send("cat\n")
        socket.send("typed\n")
        shell.expect(b"typed\r\ntyped")
        socket.send("\x04")


def test_websocket_buffer(server: Server, shell: Terminal) -> None:
    name = shell.session.id
    with websocket(server, "/buffers") as socket:
        socket.send(f'{{"type":"subscribe","sessionId":"{name}"}}')
        server.type(name, "echo scr''een\n")
        wanted = b"\x01".join(bytes([letter]) for letter in b"screen")  # one cell each
        seen = b""
        until = time.monotonic() + 10
        while wanted not in seen and time.monotonic() < until:
            try:
                message = socket.recv(timeout=1)
            except TimeoutError:  # the server has not looked at the session before it subscribed
                server.type(name, "echo scr''een\n")
                continue
            if isinstance(message, bytes):
                (length,) = struct.unpack_from("<I", message, 1)
                assert message[0] == 0xBF
                assert message[5 : 5 + length] == name.encode()
                assert message[5 + length : 7 + length] == b"TV"
                seen = message
        assert wanted in seen


def test_the_servers_own_title_command(server: Server, shell: Terminal) -> None:
    """`vibetunnel-fwd --update-title`, as `vt title` calls it, is seen by the server."""
    name = shell.session.id
    done = server.home.cli("--session-id", name, "--update-title", "from the shell")
    assert done.code == 0
    assert server.listed(name) is not None
    assert (server.listed(name) or {})["name"] == "from the shell"
    assert os.path.exists(shell.session.path / "ipc.sock")


KILLS = int(os.environ.get("VT_KILLS", "10"))


def test_a_forwarder_killed_at_any_moment(server: Server) -> None:
    """Its directory is left so that the server lists it as exited and the id is free again."""
    rng = random.Random(KILLS)
    statuses: collections.Counter[str | None] = collections.Counter()
    for number in range(KILLS):
        name = f"killed{number}"
        process = server.home.start(
            "sh",
            "-c",
            "while :; do echo some output; done",
            session_id=name,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(rng.choice((0.0005, 0.001, 0.002, 0.005, 0.02, 0.1)) * rng.random())
        process.signal(signal.SIGKILL)
        process.wait()
        session = process.session
        pid = session.info.get("pid") if session.status() else None
        if pid is not None:
            eventually(lambda pid=pid: not alive(pid), what="the child is hung up")
        entry = server.listed(name)
        statuses[entry["status"] if entry else None] += 1
        if pid is not None:
            assert (entry or {})["status"] == "exited"
        assert server.home.run("printf", "free again", session_id=name).code == 0
        assert session.recording().text() == "free again"
        assert session.info["exitCode"] == 0
        files = {"session.json", "stdin", "stdout", "activity.json"}
        assert set(os.listdir(session.path)) <= files, "nothing of the killed one is left"
    print(f"{KILLS} kills: listed as {dict(statuses)}")
    assert statuses["starting"] <= 1 + KILLS // 50, "said for an instant, as nobody would end it"
