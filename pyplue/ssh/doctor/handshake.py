"""What an SSH server offers, as any client sees it before logging in (RFC 4253, section 7.1)."""

from __future__ import annotations

import socket
from typing import NamedTuple

from pyplue.ssh.errors import SshError

_TIMEOUT_S = 5
_BANNER_MAX = 8192
_PACKET_MAX = 35000
_KEXINIT = 20
_COOKIE_BYTES = 16


class Offer(NamedTuple):
    """The server's name for itself and its lists, most wanted first."""

    banner: str
    kex: list[str]
    host_keys: list[str]
    ciphers: list[str]
    macs: list[str]


def ask(host: str, port: int, *, through_proxy: bool = False) -> Offer:
    """Raises OSError when nobody answers and SshError when it is no SSH server.

    `through_proxy`: begins with the PROXY header of a load balancer's own health check.
    """
    with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
        if through_proxy:
            connection.sendall(b"PROXY UNKNOWN\r\n")
        stream = connection.makefile("rb")
        banner = stream.readline(_BANNER_MAX)
        if not banner.startswith(b"SSH-2.0-"):
            raise SshError(f"what answers on port {port} is no SSH server")
        connection.sendall(b"SSH-2.0-plue_doctor\r\n")
        length = int.from_bytes(stream.read(4), "big")
        packet = stream.read(length) if length <= _PACKET_MAX else b""
    return _parse(banner.decode(errors="replace").strip(), packet)


def _parse(banner: str, packet: bytes) -> Offer:
    """The packet begins with the number of its padding bytes."""
    at = 2 + _COOKIE_BYTES
    if packet[1:2] != bytes([_KEXINIT]):
        raise SshError(f"{banner} does not begin a key exchange")
    lists = []
    for _ in range(6):
        end = at + 4 + int.from_bytes(packet[at : at + 4], "big")
        lists.append(packet[at + 4 : end].decode("ascii", "replace").split(","))
        at = end
    if at > len(packet):
        raise SshError(f"{banner} begins a key exchange that is cut off")
    kex, host_keys, _, ciphers, _, macs = lists
    return Offer(banner, kex, host_keys, ciphers, macs)
