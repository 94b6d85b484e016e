"""A4 of the contract: the socket, its frames and its commands."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from vt.harness import CONTROL, PULSE, STDIN_DATA, Client, Home, Process, alive, eventually, frame

MIB = 1 << 20


@pytest.fixture
def cat(home: Home) -> Process:
    """A session whose child repeats what it reads."""
    process = home.start("cat")
    process.session.wait()
    return process


def end(process: Process) -> int:
    with process.session.client() as client:
        client.control(cmd="kill")
        return process.wait().code


# ---- frames -------------------------------------------------------------------------------------


def test_a4_one_write_with_resize_title_and_input_is_applied_in_order(cat: Process) -> None:
    session = cat.session
    with session.client() as client:
        client.raw(
            frame(2, {"cmd": "resize", "cols": 100, "rows": 40})
            + frame(2, {"cmd": "update-title", "title": "IPC\x1b]2;unsafe"})
            + frame(1, b"hello\n")
        )
        session.wait_output("hello\r\nhello")
        assert session.info["name"] == "IPC]2;unsafe"
        client.control(cmd="kill", signal="SIGTERM")
    assert cat.wait().code == 143
    events = [(kind, text) for _, kind, text in session.recording().events if kind != "o"]
    assert events == [("r", "100x40"), ("i", "hello\n")]


def test_a4_frames_arrive_one_byte_at_a_time(cat: Process) -> None:
    with cat.session.client() as client:
        for byte in PULSE + frame(1, b"split\n"):
            client.raw(bytes([byte]))
            time.sleep(0.002)
        assert client.receive(5) == PULSE
    cat.session.wait_output("split\r\nsplit")
    assert end(cat) == 143


def test_a4_a_heartbeats_payload_is_ignored(cat: Process) -> None:
    with cat.session.client() as client:
        client.send(4, b"payload")
        assert client.receive(6, timeout=0.5) == PULSE


def test_a4_echoing_every_heartbeat_makes_no_storm(cat: Process) -> None:
    """VibeTunnel's own client echoes too: two that echo everything never stop."""
    with cat.session.client() as client:
        client.raw(PULSE)
        count, until = 0, time.monotonic() + 1.5
        while (left := until - time.monotonic()) > 0:
            if client.receive(5, timeout=left) == PULSE:
                count += 1
                client.raw(PULSE)
        assert 1 <= count <= 15
        time.sleep(1.1)
        client.receive(100, timeout=0.1)
        assert client.answers(), "surplus ones are dropped, later ones answered"


def test_a4_a_client_that_never_reads_is_no_obstacle(cat: Process) -> None:
    with cat.session.client() as deaf, cat.session.client() as client:
        deaf.socket.settimeout(5)
        deaf.raw(PULSE * 50_000)
        deaf.type(b"from the deaf\n")
        cat.session.wait_output("from the deaf")
        client.type(b"from the other\n")
        cat.session.wait_output("from the other")
    assert end(cat) == 143


@pytest.mark.parametrize("kind", [0, 3, 5, 6, 0x10, 0x11, 0x20, 0x21, 0x30, 0x33, 0xFE, 0xFF])
def test_a4_every_type_but_1_2_4_is_ignored(cat: Process, kind: int) -> None:
    with cat.session.client() as client, cat.session.client() as other:
        client.send(kind, b'{"cmd":"kill"}').send(kind).send(kind, b"x" * MIB)
        assert client.answers()
        assert other.receive(1, timeout=0.1) == b"", "and not passed on to others"
    assert end(cat) == 143


def test_a4_a_thousand_status_updates_do_nothing(cat: Process) -> None:
    with cat.session.client() as client:
        client.raw(frame(3, {"app": "claude", "status": "busy"}) * 1000)
        assert client.answers()
        assert client.receive(1, timeout=0.1) == b""


@pytest.mark.parametrize("kind", [0, 2, 3, 4, 5, 0xFF])
@pytest.mark.parametrize("length", [MIB + 1, 0xFFFFFFFF])
def test_a4_over_1_mib_closes_that_client_alone(cat: Process, kind: int, length: int) -> None:
    with cat.session.client() as client, cat.session.client() as other:
        client.raw(struct.pack(">BI", kind, length))
        assert client.closed()
        assert other.answers()
    assert end(cat) == 143


def test_a4_a_control_payload_of_exactly_1_mib_is_read(cat: Process) -> None:
    body = b'{"cmd":"update-title","title":"big"'
    with cat.session.client() as client:
        client.send(2, body + b" " * (MIB - len(body) - 1) + b"}")
        eventually(lambda: cat.session.info["name"] == "big")


def test_a4_random_bytes_do_not_crash(cat: Process) -> None:
    with cat.session.client() as client:
        client.raw(b"\xff" * 5)
        assert client.closed()
    with cat.session.client() as client:
        assert client.answers()
    assert end(cat) == 143


def test_a4_many_clients_are_served_at_the_same_time(cat: Process) -> None:
    clients = [cat.session.client() for _ in range(20)]
    for client in clients:
        assert client.answers()
    for client in clients:
        client.close()
    assert end(cat) == 143


def test_a4_a_client_may_stop_sending_right_after_its_frames(cat: Process) -> None:
    with cat.session.client() as client:
        client.control(cmd="resize", cols=90, rows=30).type(b"last words\n")
        client.socket.shutdown(socket.SHUT_WR)
        cat.session.wait_output("last words\r\nlast words")
    with cat.session.client() as client:
        client.type(b"gone at once\n")
    cat.session.wait_output("gone at once\r\ngone at once")
    assert cat.session.recording(finished=False).of_kind("r") == ["90x30"]
    assert end(cat) == 143


def test_a4_an_end_within_a_frame_discards_it(cat: Process) -> None:
    with cat.session.client() as client:
        client.raw(frame(2, {"cmd": "kill"})[:-1])
    with cat.session.client() as client:
        client.raw(b"\x02\0\0")
    time.sleep(0.1)
    with cat.session.client() as client:
        assert client.answers()
    assert end(cat) == 143


BROKEN_COMMANDS: list[bytes] = [
    b"",
    b"{",
    b"not json",
    b"null",
    b"[]",
    b'"kill"',
    b"1",
    b"{}",
    b'{"cmd":null}',
    b'{"cmd":1}',
    b'{"cmd":["kill"]}',
    b'{"cmd":"unknown"}',
    b'{"cmd":"KILL"}',
    b'{"command":"kill"}',
    b'{"cmd":"kill"} trailing',
    b'{"cmd":"kill"]',
    b'{"cmd":"resize"}',
    b'{"cmd":"update-title"}',
    b'{"cmd":"update-title","title":5}',
    b'{"cmd":"update-title","title":null}',
    b'\xff{"cmd":"kill"}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"cmd":"' + b"k" * 500_000 + b'"}',
]


@pytest.mark.parametrize("body", BROKEN_COMMANDS, ids=lambda body: repr(body[:32]))
def test_a4_a_broken_command_is_ignored_and_its_client_served(cat: Process, body: bytes) -> None:
    before = cat.session.info
    with cat.session.client() as client:
        client.send(CONTROL, body)
        assert client.answers()
    assert cat.session.info == before
    assert cat.session.recording(finished=False).events == []
    assert end(cat) == 143


# ---- resize and reset-size ----------------------------------------------------------------------


def test_a4_resize_reaches_the_child_and_the_recording(home: Home) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"
    process = home.start("sh", "-c", script)
    session = process.session.wait()
    session.wait_output("ready")
    with session.client() as client:
        client.control(cmd="resize", cols=100, rows=41)
        session.wait_output("41 100")
        client.control(cmd="resize", cols=1, rows=65535)
        session.wait_output("65535 1")
        client.control(cmd="resize", cols=1, rows=65535)  # recorded even if nothing changes
        client.control(cmd="kill", signal="KILL")
    process.wait()
    assert session.recording().of_kind("r") == ["100x41", "1x65535", "1x65535"]


@pytest.mark.parametrize(
    "size",
    [
        {"cols": 0, "rows": 10},
        {"cols": 10, "rows": 0},
        {"cols": -1, "rows": 10},
        {"cols": 65536, "rows": 10},
        {"cols": 10**30, "rows": 10},
        {"cols": 80.5, "rows": 24},
        {"cols": "80", "rows": "24"},
        {"cols": 80},
        {"rows": 24},
        {"cols": None, "rows": 24},
        {"cols": True, "rows": True},
        {"cols": [80], "rows": 24},
    ],
    ids=str,
)
def test_a4_a_wrong_size_is_ignored(cat: Process, size: dict[str, Any]) -> None:
    with cat.session.client() as client:
        client.control(cmd="resize", **size)
        assert client.answers()
    assert end(cat) == 143
    assert cat.session.recording().of_kind("r") == []


def test_a4_reset_size_takes_the_outer_terminals_size(home: Home) -> None:
    terminal = home.terminal("sh", size=(83, 29))
    session = terminal.session.wait()
    with session.client() as client:
        client.control(cmd="resize", cols=150, rows=50)
        assert client.answers(), "the resize is done"
        terminal.send(b"stty size\r")
        terminal.expect(b"50 150")
        client.control(cmd="reset-size")
        assert client.answers()
        terminal.send(b"stty size\r")
        terminal.expect(b"29 83")
    terminal.send(b"exit\r")
    assert terminal.wait() == 0
    assert session.recording().of_kind("r") == ["150x50", "83x29"]


def test_a4_reset_size_without_a_terminal_does_nothing(cat: Process) -> None:
    with cat.session.client() as client:
        client.control(cmd="resize", cols=150, rows=50).control(cmd="reset-size")
        assert client.answers()
    assert end(cat) == 143
    assert cat.session.recording().of_kind("r") == ["150x50"]


# ---- kill ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ({}, 15),
        ({"signal": "SIGTERM"}, 15),
        ({"signal": "TERM"}, 15),
        ({"signal": "sigint"}, 2),
        ({"signal": "Hup"}, 1),
        ({"signal": "SIGQUIT"}, 3),
        ({"signal": "SIGUSR1"}, 10),
        ({"signal": "usr2"}, 12),
        ({"signal": "SIGKILL"}, 9),
        ({"signal": 9}, 9),
        ({"signal": 15}, 15),
        ({"signal": 64}, 64),
    ],
    ids=str,
)
def test_a4_kill(home: Home, how: dict[str, Any], number: int) -> None:
    # Not a shell: those catch some of these signals.
    process = home.start("sleep", "60")
    session = process.session.wait()
    with session.client() as client:
        client.control(cmd="kill", **how)
        assert process.wait().code == 128 + number
    assert session.info["exitCode"] == 128 + number


@pytest.mark.parametrize("wrong", ["NOPE", "", "SIG", 0, -9, 65, None, 9.5, [9], True], ids=repr)
def test_a4_kill_with_what_is_no_signal_is_ignored(cat: Process, wrong: Any) -> None:
    pid = cat.session.info["pid"]
    with cat.session.client() as client:
        client.control(cmd="kill", signal=wrong)
        assert client.answers()
        time.sleep(0.05)
        assert alive(pid)
        assert cat.popen.poll() is None


def test_a4_kill_reaches_the_whole_group(home: Home) -> None:
    process = home.start("sh", "-c", "sleep 61 & echo child=$!; wait")
    session = process.session.wait()
    shown = session.wait_output("\n")
    grandchild = int(shown.split("child=")[1].split()[0])
    with session.client() as client:
        client.control(cmd="kill")
        assert process.wait().code == 143
    eventually(lambda: not alive(grandchild))


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a4_kill_ends_a_stopped_child(home: Home, how: str) -> None:
    """VibeTunnel issue 278: a session stopped by Ctrl-Z could not be ended."""
    process = home.start("sh", "-c", "echo up; kill -STOP $$; sleep 60")
    session = process.session.wait()
    session.wait_output("up")
    pid = session.info["pid"]
    state = Path(f"/proc/{pid}/stat")
    eventually(lambda: state.read_text().rsplit(")", 1)[1].split()[0] == "T")
    with session.client() as client:
        client.control(cmd="kill", signal=how)
        assert process.wait().code == 128 + signal.Signals[how]


def test_a4_after_a_kill_output_goes_on_until_the_child_has_ended(home: Home) -> None:
    script = "trap 'echo caught; sleep 0.5; echo farewell; exit 5' TERM; echo up; sleep 60 & wait"
    process = home.start("sh", "-c", script)
    session = process.session.wait()
    session.wait_output("up")
    with session.client() as client:
        client.control(cmd="kill")
        result = process.wait()
    assert result.code == 5
    assert b"farewell" in result.out
    assert "farewell" in session.recording().text()


def test_a4_kill_of_a_child_that_ignores_it_changes_nothing(home: Home) -> None:
    process = home.start("sh", "-c", "trap '' TERM; echo up; while read x; do echo got $x; done")
    session = process.session.wait()
    session.wait_output("up")
    with session.client() as client:
        client.control(cmd="kill")
        assert client.answers()
        client.type(b"input\n")
        session.wait_output("got input")
        client.control(cmd="kill", signal="KILL")
        assert process.wait().code == 137


# ---- titles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("plain", "plain"),
        ("hi\nthere\x1b[", "hithere["),
        ("IPC\x1b]2;unsafe", "IPC]2;unsafe"),
        ("a\x7f\x80\x9fb\x07", "ab"),
        ("héllo €😀", "héllo €😀"),
        ("x" * 300, "x" * 256),
    ],
)
def test_a4_update_title_is_sanitised_and_stored(cat: Process, title: str, name: str) -> None:
    with cat.session.client() as client:
        client.control(cmd="update-title", title=title)
        eventually(lambda: cat.session.info["name"] == name)
    assert end(cat) == 143
    assert cat.session.info["name"] == name


# ---- input --------------------------------------------------------------------------------------


def test_a4_a_character_split_over_frames_reaches_the_child_exact(home: Home) -> None:
    process = home.start("sh", "-c", "stty raw -echo; echo up; head -c 3 | od -An -tx1")
    session = process.session.wait()
    session.wait_output("up")
    with session.client() as client:
        client.type(b"\xe2").type(b"\x82").type(b"\xac")
        assert b"e2 82 ac" in process.wait().out
    assert session.recording().text("i") == "\ufffd" * 3


def sum_of(home: Home, length: int) -> Process:
    """A session whose child takes `length` bytes in raw mode and says their checksum."""
    process = home.start("sh", "-c", f"stty raw -echo; echo up; head -c {length} | cksum")
    process.session.wait()
    process.session.wait_output("up")
    return process


def pattern(length: int) -> bytes:
    return (b"0123456789abcdefghijklmnopqrstuvwxyz -- a paste of text\r" * (length // 50 + 1))[
        :length
    ]


@pytest.mark.parametrize("length", [1_500_000, 9_000_000])
def test_a4_a_large_paste_in_one_frame_arrives_whole(home: Home, length: int) -> None:
    data = pattern(length)
    process = sum_of(home, length)
    with process.session.client() as client:
        client.socket.settimeout(30)
        client.type(data)
        out = process.wait(60).out
    expected = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout
    assert expected.split() == out.split()[1:3]
    assert process.session.recording().text("i") == data.decode()


def test_a4_input_frames_over_16_mib_close_that_client(cat: Process) -> None:
    with cat.session.client() as client, cat.session.client() as other:
        client.raw(struct.pack(">BI", STDIN_DATA, 0xFFFFFFFF))
        assert client.closed()
        assert other.answers()
    assert end(cat) == 143


def test_a4_a_hundred_frames_of_1_kb(home: Home) -> None:
    process = sum_of(home, 100 * 1024)
    start = time.monotonic()
    with process.session.client() as client:
        for _ in range(100):
            client.type(b"k" * 1024)
        assert process.wait().code == 0
    assert time.monotonic() - start < 5
    assert process.session.recording().text("i") == "k" * 102400


def test_a4_two_sessions_do_not_mix(home: Home) -> None:
    # Without echo: the terminal may echo the next line in the middle of what cat writes.
    quiet_cat = ("sh", "-c", "stty -echo; echo up; exec cat")
    one, two = home.start(*quiet_cat), home.start(*quiet_cat)
    for process in (one, two):
        process.session.wait().wait_output("up")
    with one.session.client() as first, two.session.client() as second:
        for number in range(50):
            first.type(f"one{number}\n".encode())
            second.type(f"two{number}\n".encode())
        for session, word in ((one.session, "one49"), (two.session, "two49")):
            session.wait_output(word)
    assert "two" not in one.session.recording(finished=False).text()
    assert "one" not in two.session.recording(finished=False).text()


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "canonical"])
def test_a4_a_child_that_does_not_read_stalls_nobody_else(home: Home, raw: bool) -> None:
    mode = "stty raw -echo;" if raw else ""
    script = f"{mode} echo up; i=0; while :; do echo tick$i; i=$((i+1)); sleep 0.05; done"
    process = home.start("sh", "-c", script)
    session = process.session.wait()
    session.wait_output("up")
    with session.client() as pasting, session.client() as other:
        pasting.socket.setblocking(False)
        sent, until = 0, time.monotonic() + 1
        data = memoryview(frame(1, pattern(8 * MIB)))
        while time.monotonic() < until and sent < len(data):
            try:
                sent += pasting.socket.send(data[sent:])
            except BlockingIOError:
                time.sleep(0.01)
        if raw:
            assert sent < 4 * MIB, "the queue has a bound"
        assert other.answers()
        seen = session.recording(finished=False).text()
        last = int(seen.rsplit("tick", 1)[1].split()[0])
        session.wait_output(f"tick{last + 5}", timeout=3)
        other.control(cmd="kill", signal="KILL")
        assert process.wait().code == 137


# ---- the end ------------------------------------------------------------------------------------


def test_a4_at_the_end_clients_see_it_and_the_socket_is_gone(cat: Process) -> None:
    with cat.session.client() as client:
        assert end(cat) == 143
        assert client.closed()
    assert not (cat.session.path / "ipc.sock").exists()
    with pytest.raises(FileNotFoundError):
        Client(cat.session.path / "ipc.sock")


def test_a4_an_input_frame_of_16_mib_is_taken_and_one_byte_more_is_not(home: Home) -> None:
    size = 16 * MIB
    process = sum_of(home, size)
    with process.session.client() as client:
        client.raw(struct.pack(">BI", STDIN_DATA, size + 1))
        assert client.closed()
    with process.session.client() as client:
        client.socket.settimeout(60)
        client.type(b"x" * size)
        assert process.wait(60).out.split()[2] == str(size).encode()


def test_a4_input_and_output_are_recorded_in_their_order(cat: Process) -> None:
    with cat.session.client() as client:
        for number in range(20):
            client.type(f"line{number}\n".encode())
            eventually(
                lambda n=number: cat.session.wait_output(f"line{n}").count(f"line{n}\r") == 2
            )
    events = cat.session.recording(finished=False).events
    for number in range(20):
        typed = next(i for i, e in enumerate(events) if e[1:] == ("i", f"line{number}\n"))
        shown = next(i for i, e in enumerate(events) if e[1] == "o" and f"line{number}\r" in e[2])
        assert typed < shown
