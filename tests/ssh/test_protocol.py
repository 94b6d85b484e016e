"""Hostile clients at the level of SSH messages: nobody gets in, nothing crashes, nothing is kept.

PLUE_SSH_MESSAGES=256 for a whole run by hand; PLUE_SSH_AUTH_ATTEMPTS makes the attack longer.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from .forge import LIBSSH, Client, Forge, Server, serve
from .raw_client import (
    CHANNEL_CLOSE,
    CHANNEL_DATA,
    CHANNEL_EOF,
    CHANNEL_FAILURE,
    CHANNEL_OPEN,
    CHANNEL_REQUEST,
    CHANNEL_SUCCESS,
    EXTENDED_DATA,
    GLOBAL_REQUEST,
    OPEN_CONFIRMATION,
    REQUEST_FAILURE,
    REQUEST_SUCCESS,
    SERVICE_ACCEPT,
    SERVICE_REQUEST,
    USERAUTH_FAILURE,
    USERAUTH_REQUEST,
    USERAUTH_SUCCESS,
    WINDOW_ADJUST,
    Gone,
    RawClient,
    forge_key,
    load,
    string,
    u32,
)

AUTH_ATTEMPTS = int(os.environ.get("PLUE_SSH_AUTH_ATTEMPTS", "10000"))
MESSAGES = int(os.environ.get("PLUE_SSH_MESSAGES", "48"))

LOGIN_GRACE_S = 3

COMMAND = "git-upload-pack 'alice/project'"
EXEC = string(COMMAND)
OPEN = (string("session"), u32(0), u32(1 << 20), u32(32768))

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def target(forge: Forge) -> Iterator[Server]:
    """A server of its own, which at the end has let nobody in that it should not have."""
    with serve(forge, login_grace_s=LOGIN_GRACE_S, event_queue=65536) as own:
        yield own
        own.settled(connections=0, gits_running=0)


@pytest.fixture
def server(target: Server) -> Iterator[Server]:
    """After each attack the server still serves, and nothing of the attack is left."""
    client = Client(target)
    assert client.git("ls-remote", client.url("alice/project"))
    target.settled(connections=0, gits_running=0)
    logins, commands = (target.counters()[n] for n in ("authenticated_total", "commands_total"))
    memory = target.memory_kb()
    target.expected_logins, target.expected_commands = 0, 0
    yield target
    counters = target.settled(connections=0, gits_running=0)
    assert counters["authenticated_total"] - logins == target.expected_logins
    assert counters["commands_total"] - commands <= target.expected_commands
    assert target.has_no_children()
    assert target.memory_kb() - memory < 16 * 1024
    assert client.git("ls-remote", client.url("alice/project"))


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def until_closed(peer: socket.socket, within_s: float = 10) -> bytes:
    """What the server still says until it hangs up; fails when it does not."""
    peer.settimeout(within_s)
    said = b""
    try:
        while data := peer.recv(65536):
            said += data
    except ConnectionError:
        pass
    return said


# ---- before the keys are exchanged ------------------------------------------------------------

BANNERS = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "version 1": b"SSH-1.5-old\r\n",
    "no version": b"SSH-\r\n",
    "a long line": b"SSH-2.0-" + b"x" * 100_000,
    "an endless line": b"x" * 1_000_000,
    "many lines": b"hello\r\n" * 20_000,
    "zeros": b"\0" * 10_000,
    "high bytes": b"\xff" * 10_000,
    "TLS": bytes.fromhex("16030102000100") + b"\1" * 500,
    "formats": b"SSH-2.0-%n%n%n%s%s%s\r\n" + b"\0" * 64,
    "a banner, then noise": b"SSH-2.0-x\r\n" + random.Random(1).randbytes(100_000),
}


@pytest.mark.parametrize("banner", BANNERS.values(), ids=BANNERS.keys())
def test_a_garbage_banner_ends_the_connection(server, banner):
    with connect(server) as peer:
        try:
            peer.sendall(banner)
        except ConnectionError:
            return
        until_closed(peer)


LENGTHS = [0, 1, 3, 35_001, 262_145, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_first_packet_of_an_impossible_length_ends_the_connection(server, length):
    with connect(server) as peer:
        peer.sendall(b"SSH-2.0-x\r\n")
        try:
            peer.sendall(struct.pack(">IB", length, 4) + b"\x14" * 70_000)
        except ConnectionError:
            return
        until_closed(peer)


def test_key_exchange_messages_in_pieces_and_out_of_order(server):
    for number in (0, 20, 30, 50, 90, 255):
        with connect(server) as peer:
            payload = bytes([number]) + random.Random(number).randbytes(43)
            packet = struct.pack(">IB", len(payload) + 5, 4) + payload + b"\0" * 4
            for byte in b"SSH-2.0-x\r\n":
                peer.sendall(bytes([byte]))
            try:
                peer.sendall(packet * 3)
            except ConnectionError:
                continue
            until_closed(peer)


def test_a_silent_client_is_ended_by_the_login_grace(server):
    begun = time.monotonic()
    with connect(server) as peer:
        until_closed(peer)
    assert 2 < time.monotonic() - begun < 6


# ---- before authentication --------------------------------------------------------------------


def test_no_channel_and_no_command_before_authentication(server):
    for ask_first in (True, False):
        with RawClient(server) as client:
            if ask_first:
                client.request_auth()
            begun = time.monotonic()
            try:
                client.send(CHANNEL_OPEN, *OPEN)
                client.send(CHANNEL_REQUEST, u32(0), string("exec"), b"\1", EXEC)
                client.send(CHANNEL_DATA, u32(0), string(b"0000"))
            except Gone:
                pass
            client.never(OPEN_CONFIRMATION, CHANNEL_SUCCESS, CHANNEL_DATA)
            client.wait_gone()
            assert time.monotonic() - begun < LOGIN_GRACE_S / 2, "at once, not at the deadline"


def test_a_client_that_declares_itself_authenticated_is_not(server):
    """CVE-2018-10933."""
    for number in (USERAUTH_SUCCESS, 61, 60, 53, 52):
        with RawClient(server) as client:
            client.request_auth()
            try:
                client.send(number)
                client.send(CHANNEL_OPEN, *OPEN)
                client.send(CHANNEL_REQUEST, u32(0), string("exec"), b"\1", EXEC)
            except Gone:
                continue
            client.never(OPEN_CONFIRMATION, CHANNEL_SUCCESS, CHANNEL_DATA, within_s=0.5)


def test_the_connection_service_is_not_given_before_authentication(server):
    with RawClient(server) as client:
        client.send(SERVICE_REQUEST, string("ssh-connection"))
        try:
            client.send(CHANNEL_OPEN, *OPEN)
        except Gone:
            return
        client.never(OPEN_CONFIRMATION)


@pytest.mark.parametrize("method", ["none", "password", "keyboard-interactive", "gssapi", "x" * 99])
def test_other_methods_never_succeed_and_end(server, method):
    """A flood on one connection: it is cut, whatever the method."""
    with RawClient(server) as client:
        client.request_auth()
        try:
            for _ in range(2_000):
                client.send(
                    USERAUTH_REQUEST,
                    *(string(word) for word in ("git", "ssh-connection", method)),
                    b"\0" + string("secret"),
                )
        except Gone:
            return
        client.never(USERAUTH_SUCCESS, within_s=0.2)
        client.wait_gone()


def test_one_connection_has_six_tries(server, forge):
    mallory, bob = load(forge.keys["mallory"]), load(forge.keys["bob"])
    with RawClient(server) as client:
        client.request_auth()
        client.send(USERAUTH_REQUEST, *map(string, ("git", "ssh-connection", "none")))
        assert client.expect(USERAUTH_FAILURE)
        for tried in range(6):
            wrong = (mallory.asbytes(), mallory) if tried % 2 == 0 else (bob.asbytes(), mallory)
            client.sign(*wrong)
            if tried < 5:
                assert client.expect(USERAUTH_FAILURE, USERAUTH_SUCCESS)[0] == USERAUTH_FAILURE
        with pytest.raises(Gone):
            client.expect(USERAUTH_FAILURE, USERAUTH_SUCCESS)
    server.wait_for("disconnected", reason="max_auth_tries")


def test_tries_sent_all_at_once_are_counted_one_by_one(server, forge):
    """libssh drops a wrong signature without a word, and reads many at a time."""
    alice, mallory = load(forge.keys["alice"]), load(forge.keys["mallory"])
    before = server.counters()["auth_failed_total"]
    with RawClient(server) as client:
        client.request_auth()
        client.send(USERAUTH_REQUEST, *map(string, ("git", "ssh-connection", "none")))
        assert client.expect(USERAUTH_FAILURE)
        packets: list[bytes] = []
        client.transport.packetizer.write_all = packets.append
        for _ in range(12):
            client.sign(alice.asbytes(), mallory)
        client.socket.sendall(b"".join(packets))
        with pytest.raises(Gone):
            client.expect(USERAUTH_SUCCESS)
    server.wait_for("disconnected", reason="max_auth_tries")
    assert server.counters()["auth_failed_total"] - before == 6


def test_tries_behind_one_that_is_decided_upon_are_counted_too(forge):
    """What libssh has dropped by then it does not tell again."""
    alice, mallory = load(forge.keys["alice"]), load(forge.keys["mallory"])
    with serve(forge, "callback") as own, RawClient(own) as client:
        before = own.counters()["auth_failed_total"]
        client.request_auth()
        with client.at_once():
            client.sign(mallory.asbytes(), mallory)
            for _ in range(12):
                client.sign(alice.asbytes(), mallory)
        with pytest.raises(Gone):
            client.expect(USERAUTH_SUCCESS, within_s=5)
        own.wait_for("auth_failed", reason="denied")
        own.wait_for("disconnected", reason="max_auth_tries")
        assert own.counters()["auth_failed_total"] - before == 6


def test_ten_thousand_attempts_let_nobody_in(server, forge, work, load_client):
    """An unknown key, and the victim's key with another's signature, on as many connections as it
    takes; a friend is served meanwhile."""
    forged = forge_key(work / "forged", forge.keys["alice"], forge.keys["mallory"])
    keys = [forge.keys["mallory"].private, forged]
    friend = Client(server)
    descriptors, refused = server.descriptors(), server.counters()["auth_failed_total"]
    memory = []
    for _ in range(2):
        attempts = AUTH_ATTEMPTS // 2
        with load_client.running(server, "guess", attempts, keys) as process:
            while process.poll() is None:
                assert friend.git("ls-remote", friend.url("alice/project"))
                server.expected_logins += 1
                server.expected_commands += 1
            tried, failed, let_in = load_client.result(process)
        assert tried >= attempts
        assert (failed, let_in) == (0, 0)
        server.settled(connections=0, gits_running=0)
        memory.append(server.memory_kb("Anonymous"))
    assert server.expected_logins > 0
    assert server.counters()["auth_failed_total"] - refused >= AUTH_ATTEMPTS
    for reason in ("unknown_key", "bad_signature"):
        server.wait_for("auth_failed", reason=reason)
    assert server.descriptors() <= descriptors
    assert server.has_no_children()
    print(f"{tried} tries twice, memory after each {memory} KB")
    assert memory[1] - memory[0] < 1024, "kept for each attempt"


@pytest.mark.parametrize("size", [256, 30_000, 200_000])
def test_enormous_names_before_authentication(server, size):
    with RawClient(server) as client:
        client.request_auth()
        big = b"u" * size
        try:
            client.send(USERAUTH_REQUEST, string(big), string("ssh-connection"), string("none"))
            client.send(USERAUTH_REQUEST, string("git"), string(big), string(big))
            client.send(
                USERAUTH_REQUEST, string("git\0root"), string("ssh-connection"), b"\xff" * 9
            )
        except Gone:
            return
        client.never(USERAUTH_SUCCESS, within_s=0.3)


def test_floods_of_ignored_messages_before_authentication_are_cut(server):
    with RawClient(server) as client:
        client.request_auth()
        try:
            for _ in range(3_000):
                client.send(2, string(b"x" * 30_000))
        except Gone:
            return
        client.wait_gone()


def test_a_flood_of_service_requests_is_cut(forge):
    """They count as neither try nor offer, and libssh reads on while there are some."""
    with serve(forge, threads=1) as own, RawClient(own) as client:
        with contextlib.suppress(Gone), client.at_once():
            for _ in range(10_000):
                client.send(SERVICE_REQUEST, string("ssh-userauth"))
        friend = Client(own)
        assert friend.git("ls-remote", friend.url("alice/project"))
        own.wait_for("disconnected", reason="pre_auth_limit")
        assert client.count(SERVICE_ACCEPT) < 1_000


def messages(seed: int) -> list[tuple[int, bytes]]:
    """Every message number, each with a payload that is noise, empty or cut off."""
    noise = random.Random(seed)
    numbers = range(1, 256) if MESSAGES >= 256 else noise.sample(range(1, 256), MESSAGES)
    payloads = (b"", noise.randbytes(64), string("session") + b"\xff" * 8, b"\xff\xff\xff\xff")
    return [(n, payloads[n % 4]) for n in numbers if n not in (20, 21)]


def test_no_message_before_authentication_opens_anything(server):
    for number, payload in messages(1):
        with RawClient(server) as client:
            try:
                client.send(number, payload)
                client.send(CHANNEL_OPEN, *OPEN)
            except Gone:
                continue
            client.never(OPEN_CONFIRMATION, USERAUTH_SUCCESS, within_s=0.05)


# ---- after authentication ---------------------------------------------------------------------


@pytest.fixture
def alice(server: Server, forge: Forge) -> Iterator[RawClient]:
    with RawClient(server) as client:
        client.log_in(forge.keys["alice"])
        server.expected_logins = 1
        yield client


def test_no_message_after_authentication_crashes(server, forge):
    for number, payload in messages(2):
        with RawClient(server) as client:
            client.log_in(forge.keys["alice"])
            server.expected_logins += 1
            try:
                client.send(number, payload)
                client.send(number, u32(0) + payload)
            except Gone:
                continue


@pytest.mark.parametrize(
    "kind", ["direct-tcpip", "forwarded-tcpip", "x11", "tun@openssh.com", "", "s" * 5000]
)
def test_only_sessions_are_opened(alice, kind):
    target = string("127.0.0.1") + u32(22) + string("127.0.0.1") + u32(1)
    alice.send(CHANNEL_OPEN, string(kind), u32(0), u32(1 << 20), u32(32768), target)
    alice.never(OPEN_CONFIRMATION, within_s=0.5)


@pytest.mark.parametrize(
    "kind", ["tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com", "x"]
)
def test_global_requests_are_refused(alice, kind):
    alice.send(GLOBAL_REQUEST, string(kind), b"\1", string("0.0.0.0"), u32(0))
    assert alice.expect(REQUEST_SUCCESS, REQUEST_FAILURE)[0] == REQUEST_FAILURE


# The second is below what the kernel takes: libssh keeps the answers itself, until the client
# has joined a key exchange that the server began.
@pytest.mark.parametrize(
    ("requests", "settings", "detail"),
    [
        (120_000, {}, "answers are not read"),
        (60_000, {"rekey_bytes": 1 << 16}, "the key exchange is not answered"),
    ],
    ids=["socket", "key exchange"],
)
def test_answers_do_not_pile_up_for_a_client_that_never_reads(forge, requests, settings, detail):
    with serve(forge, **settings) as own, RawClient(own) as client:
        client.log_in(forge.keys["alice"])
        client.stop_reading()
        memory = own.memory_kb("Anonymous")
        with contextlib.suppress(Gone), client.at_once():
            for _ in range(requests):
                client.send(GLOBAL_REQUEST, string("keepalive@openssh.com"), b"\1")
        own.wait_for("disconnected", reason="protocol", detail=detail)
        assert own.memory_kb("Anonymous") - memory < 8 * 1024


def test_a_client_that_reads_asks_as_often_as_it_likes(server, alice):
    for _ in range(11):
        with alice.at_once():
            for _ in range(1_000):
                alice.send(GLOBAL_REQUEST, string("keepalive@openssh.com"), b"\1")
        for _ in range(1_000):
            alice.expect(REQUEST_SUCCESS)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("pty-req", [string("xterm"), u32(80), u32(24), u32(0), u32(0), string(b"")]),
        ("subsystem", [string("sftp")]),
        ("x11-req", [b"\0", string("MIT"), string("00"), u32(0)]),
        ("auth-agent-req@openssh.com", []),
        ("break", [u32(1)]),
        ("env", [string("LD_PRELOAD"), string("/tmp/x.so")]),
        ("env", [string("GIT_PROTOCOL"), string("version=2; id")]),
        ("exec", [string("id")]),
        ("nonsense", [string("x")]),
    ],
)
def test_channel_requests_that_are_refused(server, alice, kind, parts):
    server.expected_commands = 1
    channel = alice.open()
    granted = alice.request(channel, kind, *parts)
    if kind == "exec":  # a reason on stderr is kinder than a bare refusal; nothing ran either way
        alice.expect(CHANNEL_CLOSE)
        assert server.children() == []
    else:
        assert not granted


def test_a_flood_of_variables(server, alice):
    channel = alice.open()
    try:
        for number in range(5_000):
            name = string(f"NAME{number}")
            alice.request(channel, "env", name, string("v" * 1_000), reply=False)
    except Gone:
        return
    assert alice.request(channel, "env", string("X"), string("y")) is False


def test_the_channel_limit(alice):
    opened = [alice.open(number=n) for n in range(30)]
    assert len([c for c in opened if c is not None]) == 10


def test_one_command_for_a_channel(server, alice):
    server.expected_commands = 1
    channel = alice.open()
    assert alice.request(channel, "exec", EXEC)
    for _ in range(20):
        assert not alice.request(channel, "exec", EXEC)
    assert len(server.children()) <= 1


def test_channel_messages_in_any_order(server, forge):
    """Data before a command, after the end, for nobody; two ends, two closes, ends in advance."""
    noise = random.Random(3)
    server.expected_commands = 1_000
    for _ in range(40):
        with RawClient(server) as client:
            client.log_in(forge.keys["alice"])
            server.expected_logins += 1
            try:
                channels = [client.open(number=0), client.open(number=0), 7, 0xFFFFFFFF]
                for _ in range(30):
                    channel = u32(noise.choice(channels))
                    number, rest = noise.choice(
                        [
                            (CHANNEL_DATA, string(b"0000")),
                            (CHANNEL_DATA, string(b"x" * 40_000)),
                            (EXTENDED_DATA, u32(noise.choice([0, 1, 99])) + string(b"x" * 100)),
                            (CHANNEL_EOF, b""),
                            (CHANNEL_CLOSE, b""),
                            (WINDOW_ADJUST, u32(0xFFFFFFFF)),
                            (CHANNEL_REQUEST, string("exec") + b"\0" + EXEC),
                            (CHANNEL_REQUEST, string("exit-status") + b"\1" + u32(0)),
                            (OPEN_CONFIRMATION, u32(0) + u32(0) + u32(32768)),
                            (CHANNEL_SUCCESS, b""),
                            (CHANNEL_FAILURE, b""),
                        ]
                    )
                    client.send(number, channel + rest)
            except (Gone, AssertionError):
                continue


@pytest.mark.parametrize(("window", "packet"), [(0, 0), (0xFFFFFFFF, 0), (0, 0xFFFFFFFF)])
def test_odd_windows_and_packet_sizes(server, alice, window, packet):
    """CVE-2026-59843: a maximum packet size of zero."""
    server.expected_commands = 1
    alice.send(CHANNEL_OPEN, string("session"), u32(0), u32(window), u32(packet))
    try:
        _, payload = alice.expect(OPEN_CONFIRMATION, within_s=0.5)
    except (Gone, AssertionError):
        return
    assert packet != 0
    channel = struct.unpack(">II", payload[:8])[1]
    try:
        alice.request(channel, "exec", EXEC, reply=False)
        alice.send(CHANNEL_DATA, u32(channel), string(b"0000"))
    except Gone:  # the server has ended the connection, which is an answer too
        return
    alice.never(CHANNEL_DATA, within_s=0.3)


def test_packets_of_one_byte(server, alice):
    """libssh before 0.12.2 would write empty ones for ever: the connection is ended there."""
    server.expected_commands = 2
    usual = alice.run(COMMAND)[1]
    channel = alice.open(number=1, window=3, packet=1)
    if LIBSSH < (0, 12, 2):
        with pytest.raises(Gone):
            alice.expect(CHANNEL_DATA)
        server.wait_for("disconnected", reason="protocol")
        return
    assert alice.request(channel, "exec", EXEC)
    for count in (3, 20):
        assert [alice.expect(CHANNEL_DATA)[1][8:] for _ in range(count)] == [
            usual[place : place + 1] for place in range(count)
        ]
        alice.never(CHANNEL_DATA, within_s=0.3)
        usual = usual[count:]
        alice.send(WINDOW_ADJUST, u32(channel), u32(20))


def test_more_data_than_the_window_allows_is_not_kept(server, alice):
    """git is not reading: the server may buffer a window, not what a client likes to send."""
    server.expected_commands = 1
    channel = alice.open()
    assert alice.request(channel, "exec", string("git-receive-pack 'alice/project'"))
    before = server.memory_kb()
    try:
        for _ in range(1_500):
            alice.send(CHANNEL_DATA, u32(channel), string(b"z" * 32_000))
    except (Gone, TimeoutError):
        pass
    assert server.memory_kb() - before < 16 * 1024


@pytest.mark.parametrize("size", [4_097, 100_000, 250_000])
def test_an_enormous_command(server, alice, size):
    server.expected_commands = 1
    try:
        channel = alice.open()
        name = "a" * size
        granted = alice.request(channel, "exec", string(f"git-upload-pack '{name}'"))
        if granted:
            alice.expect(CHANNEL_CLOSE)
    except Gone:
        pass
    assert server.has_no_children()


def test_many_logins_and_sudden_ends(server, forge):
    """A reset in the middle of everything."""
    for _ in range(60):
        client = RawClient(server)
        client.log_in(forge.keys["alice"])
        server.expected_logins += 1
        server.expected_commands += 1
        channel = client.open()
        client.request(channel, "exec", EXEC, reply=False)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.transport.active = False
        client.socket.close()
