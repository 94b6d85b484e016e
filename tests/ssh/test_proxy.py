"""Behind a load balancer: the PROXY protocol, from the real haproxy and from raw sockets."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .forge import At, Client, Forge, Server, commit, free_port, serve, wait_for_port
from .raw_client import RawClient

pytestmark = pytest.mark.timeout(60)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(block)) + block


def ipv4(client: str) -> bytes:
    return socket.inet_aton(client) + socket.inet_aton("10.0.0.1") + struct.pack(">HH", 5555, 22)


def ipv6(client: str) -> bytes:
    target = socket.inet_pton(socket.AF_INET6, "::1")
    return socket.inet_pton(socket.AF_INET6, client) + target + struct.pack(">HH", 5555, 22)


@pytest.fixture(scope="module")
def behind(forge: Forge) -> Iterator[Server]:
    """A server that takes everybody on this machine for a load balancer."""
    with serve(forge, proxy_protocol_from=["127.0.0.0/8"]) as running:
        yield running


@contextmanager
def haproxy(server: Server, options: str, directory: Path) -> Iterator[At]:
    """The real one, sending the header that `options` ask for."""
    port = free_port()
    (directory / "haproxy.cfg").write_text(
        "global\n  maxconn 200\n"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend ssh\n  bind 127.0.0.1:{port}\n  default_backend plue\n"
        f"backend plue\n  server one 127.0.0.1:{server.port} {options}\n"
    )
    log = (directory / "haproxy.log").open("wb")
    process = subprocess.Popen(
        ["haproxy", "-db", "-f", str(directory / "haproxy.cfg")], stdout=log, stderr=log
    )
    try:
        wait_for_port(port)
        yield At(server.forge, port)
    finally:
        process.terminate()
        process.wait(timeout=10)
        log.close()


@pytest.mark.parametrize(
    "options",
    ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"],
    ids=["v1", "v2", "v2 with a checksum"],
)
def test_git_through_haproxy_keeps_the_clients_address(
    behind: Server, forge: Forge, work: Path, need: Callable[[str], str], options: str
):
    need("haproxy")
    name = f"alice/{work.name}"
    seen = work / "seen"
    hook = forge.repository(name) / "hooks" / "pre-receive"
    hook.write_text(f'#!/bin/sh\nprintf %s "$PLUE_ADDRESS" > {seen}\n')
    hook.chmod(0o755)
    with haproxy(behind, options, work) as through:
        client = Client(through, "alice", "-o", "BindAddress=127.0.0.2", directory=work)
        clone = client.clone(name, "clone")
        pushed = commit(forge, clone, "file")
        client.git("push", "-q", "origin", "main", cwd=clone)
    assert forge.git("rev-parse", "main", cwd=forge.repositories / f"{name}.git") == pushed
    assert seen.read_text() == "127.0.0.2"
    behind.wait_for("accepted", address="127.0.0.2", proxy="127.0.0.1")
    behind.wait_for("finished", address="127.0.0.2", repository=name)


TLV = b"\x04\x00\x05plue!"

HEADERS = {
    "v1 IPv4": (b"PROXY TCP4 192.0.2.7 10.0.0.1 5555 22\r\n", "192.0.2.7"),
    "v1 IPv6": (b"PROXY TCP6 2001:db8::7 ::1 5555 22\r\n", "2001:db8::7"),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v1 unknown and more": (b"PROXY UNKNOWN a b c d\r\n", "127.0.0.1"),
    "v2 IPv4": (v2(0x21, 0x11, ipv4("192.0.2.8")), "192.0.2.8"),
    "v2 IPv6 and vectors": (v2(0x21, 0x21, ipv6("2001:db8::8") + TLV * 9), "2001:db8::8"),
    "v2 IPv4 written as IPv6": (v2(0x21, 0x21, ipv6("::ffff:192.0.2.8")), "192.0.2.8"),
    "v2 UDP": (v2(0x21, 0x12, ipv4("192.0.2.9")), "127.0.0.1"),
    "v2 UNIX": (v2(0x21, 0x31, b"/run/x".ljust(216, b"\0")), "127.0.0.1"),
    "v2 unspecified": (v2(0x21, 0x00, TLV), "127.0.0.1"),
    "v2 local": (v2(0x20, 0x00, b""), "127.0.0.1"),
    "v2 local with addresses": (v2(0x20, 0x11, ipv4("192.0.2.9")), "127.0.0.1"),
}


@pytest.mark.parametrize("header", HEADERS)
def test_every_kind_of_header_counts(behind: Server, forge: Forge, header: str):
    text, address = HEADERS[header]
    before = len(behind.events("authenticated"))
    with RawClient(behind, text) as client:
        client.log_in(forge.keys["alice"])
        assert client.run("git-upload-pack 'alice/project'")[0] == 0
    assert newer(behind, "authenticated", before)["address"] == address


def newer(server: Server, name: str, before: int) -> dict[str, Any]:
    """The newest event of that name once there are more than `before`."""
    deadline = time.monotonic() + 10
    while len(events := server.events(name)) <= before:
        assert time.monotonic() < deadline, name
        time.sleep(0.02)
    return events[-1]


@pytest.mark.parametrize("header", ["v1 IPv6", "v2 IPv6 and vectors"])
def test_a_header_may_come_in_pieces_and_with_the_banner_behind_it(behind: Server, header: str):
    text, address = HEADERS[header]
    stream = text + b"SSH-2.0-raw\r\n"
    for step in (1, 7, 20, len(stream)):
        with connect(behind) as client:
            for start in range(0, len(stream), step):
                client.sendall(stream[start : start + step])
                if step > 1 or start < 50:
                    time.sleep(0.002)  # so that it arrives in pieces
            answer = b""
            while b"curve25519-sha256" not in answer:  # its key exchange: it has the banner whole
                answer += (more := client.recv(4096))
                assert more, answer
            assert answer.startswith(b"SSH-2.0-plue")
        behind.wait_for("disconnected", address=address)


def connect(server: Server) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def ended(client: socket.socket) -> bool:
    """Whether the server closes without having said a word."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


BAD = {
    "SSH at once": (b"SSH-2.0-OpenSSH_9.2\r\n", "proxy_missing"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "proxy_missing"),
    "v1 without addresses": (b"PROXY TCP4\r\n", "proxy_malformed"),
    "v1 without CR": (b"PROXY UNKNOWN\n", "proxy_malformed"),
    "v1 too long": (b"PROXY UNKNOWN" + b"x" * 200, "proxy_malformed"),
    "v2 of version 1": (v2(0x11, 0x11, ipv4("192.0.2.7")), "proxy_malformed"),
    "v2 with an unknown command": (v2(0x2F, 0x11, ipv4("192.0.2.7")), "proxy_malformed"),
    "v2 with an unknown family": (v2(0x21, 0x51, ipv4("192.0.2.7")), "proxy_malformed"),
    "v2 shorter than its addresses": (v2(0x21, 0x21, ipv4("192.0.2.7")), "proxy_malformed"),
    "v2 with a vector that lies": (
        v2(0x21, 0x11, ipv4("192.0.2.7") + b"\x01\x00\x09short"),
        "proxy_malformed",
    ),
    "v2 with a wrong checksum": (
        v2(0x21, 0x11, ipv4("192.0.2.7") + b"\x03\x00\x04\0\0\0\0"),
        "proxy_malformed",
    ),
    "v2 of 64 KB": (SIGNATURE + b"\x21\x11\xff\xff", "proxy_malformed"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_missing_or_malformed_header_is_refused(behind: Server, case: str):
    text, reason = BAD[case]
    before = len(behind.events("refused"))
    refused = behind.counters()["refused_total"]
    with connect(behind) as client:
        client.sendall(text)
        assert ended(client)
    event = newer(behind, "refused", before)
    assert (event["reason"], event["address"]) == (reason, "127.0.0.1")
    assert behind.counters()["refused_total"] == refused + 1


def test_a_health_check_that_only_connects_is_no_warning(behind: Server):
    connect(behind).close()
    assert behind.wait_for("refused", reason="proxy_closed")["level"] == "debug"


def test_the_server_says_nothing_before_the_header(behind: Server):
    with connect(behind) as client:
        client.sendall(b"PROXY TCP4 192.0.2.7")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_stalled_headers_hold_up_nobody_and_end_with_the_login_grace(forge: Forge):
    with serve(forge, proxy_protocol_from=["127.0.0.1"], login_grace_s=2, threads=1) as own:
        descriptors = own.descriptors()
        with ExitStack() as stack:
            for number in range(60):
                stalled = stack.enter_context(connect(own))
                stalled.sendall((b"PROXY TCP4 1", SIGNATURE[:11], b"")[number % 3])
            begun = time.monotonic()
            with RawClient(own, b"PROXY TCP4 192.0.2.7 10.0.0.1 1 22\r\n") as client:
                client.log_in(forge.keys["alice"])
                assert client.run("git-upload-pack 'alice/project'")[0] == 0
            assert time.monotonic() - begun < 1.5, "the stalled ones were in the way"
            own.wait_for("refused", reason="proxy_timeout")
            assert ended(stalled)
        own.settled(connections=0, refused_total=60)
        deadline = time.monotonic() + 10
        while own.descriptors() > descriptors:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_stalled_header_does_not_keep_the_server_from_stopping(forge: Forge):
    with serve(forge, proxy_protocol_from=["127.0.0.1"]) as own, connect(own) as stalled:
        stalled.sendall(b"PROXY ")
        time.sleep(0.1)
        assert own.ask("stop")["stopped_s"] < 3
        assert ended(stalled)


def test_the_client_behind_the_proxy_counts_for_the_cap_on_one_address(forge: Forge):
    settings = {"proxy_protocol_from": ["127.0.0.1"], "max_unauthenticated_per_ip": 2}
    with serve(forge, **settings) as own, ExitStack() as stack:

        def arrive(client: str) -> socket.socket:
            opened = stack.enter_context(connect(own))
            opened.sendall(b"PROXY TCP4 %s 10.0.0.1 1 22\r\n" % client.encode())
            return opened

        for _ in range(2):
            assert arrive("192.0.2.7").recv(4) == b"SSH-"
        assert ended(arrive("192.0.2.7"))
        own.wait_for("refused", reason="max_unauthenticated_per_ip", address="192.0.2.7")
        for _ in range(2):
            assert arrive("192.0.2.8").recv(4) == b"SSH-"


def test_waiting_for_a_header_counts_as_unauthenticated(forge: Forge):
    settings = {"proxy_protocol_from": ["127.0.0.1"], "max_unauthenticated": 3}
    with serve(forge, **settings) as own, ExitStack() as stack:
        waiting = [stack.enter_context(connect(own)) for _ in range(3)]
        time.sleep(0.1)
        assert ended(stack.enter_context(connect(own)))
        own.wait_for("refused", reason="max_unauthenticated")
        waiting[0].close()
        own.wait_for("refused", reason="proxy_closed")
        with RawClient(own, b"PROXY UNKNOWN\r\n") as client:
            client.log_in(forge.keys["alice"])


@pytest.mark.parametrize("header", ["v1 IPv4", "v2 IPv4"])
def test_from_any_other_address_a_header_is_a_bad_banner(forge: Forge, header: str):
    with serve(forge, proxy_protocol_from=["10.0.0.0/8", "fd00::/8"]) as own:
        with connect(own) as client:
            client.sendall(HEADERS[header][0] + b"SSH-2.0-raw\r\n")
            while client.recv(1000):
                pass
        assert own.wait_for("disconnected")["address"] == "127.0.0.1"
        assert not [e for e in own.events() if e.get("address", "").startswith("192.")]
        with RawClient(own) as client:
            client.log_in(forge.keys["alice"])
