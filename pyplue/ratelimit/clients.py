"""Who the client is: its address behind trusted proxies, and the key to count it under."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Clients:
    """Finds the client of a request.

    Args:
        trusted_proxies: Networks ("10.0.0.0/8"), addresses, or "unix" for peers on a Unix socket,
            whose X-Forwarded-For is believed. From any other peer the header is ignored: whoever
            sends it could choose whom to be.
        trusted_hops: Instead, the number of proxies in front that each add one address. Only safe
            where nobody can reach the server past them.
        ipv6_prefix: Bits of an IPv6 address that make a client: one host often has a whole /64 to
            choose from. IPv4 addresses inside IPv6 (::ffff:192.0.2.1) count as IPv4.
    """

    def __init__(
        self,
        *,
        trusted_proxies: Iterable[str] = (),
        trusted_hops: int = 0,
        ipv6_prefix: int = 64,
    ) -> None:
        if isinstance(trusted_proxies, str):
            raise TypeError("trusted_proxies is a list of networks, not a str")
        proxies = list(trusted_proxies)
        if proxies and trusted_hops:
            raise ValueError("give trusted_proxies or trusted_hops, not both")
        if trusted_hops < 0 or not 0 < ipv6_prefix <= 128:
            raise ValueError("trusted_hops is 0 or more, ipv6_prefix from 1 to 128")
        self._unix_is_trusted = "unix" in proxies
        self._networks = [ipaddress.ip_network(name) for name in proxies if name != "unix"]
        self._hops = trusted_hops
        self._prefix = ipv6_prefix
        # The same few thousand addresses come again and again.
        self._key_of = functools.lru_cache(maxsize=4096)(self._parse_key)

    def key(self, peer: str | None, forwarded_for: Iterable[str] = ()) -> str:
        """The key of a request's client.

        Args:
            peer: Address at the other end of the connection; None or "" for a Unix socket.
            forwarded_for: Values of the X-Forwarded-For header fields, in order.

        Returns:
            "192.0.2.1", "2001:db8:1:2::/64", or "unix" where no address is known. An address that
            is none is kept as it is.
        """
        return self._key_of(self.address(peer, forwarded_for))

    def address(self, peer: str | None, forwarded_for: Iterable[str] = ()) -> str:
        """The client's address as text; the arguments are those of `key`."""
        nearest = peer or "unix"
        if not self._hops and not self._is_trusted(nearest):
            return nearest
        hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
        hops = [hop for hop in hops if hop]
        if self._hops:
            return hops[-self._hops] if len(hops) >= self._hops else nearest
        # From the nearest proxy on, each trusted one vouches for the address it has added.
        client = nearest
        for hop in reversed(hops):
            if _parse(hop) is None:
                break
            client = hop
            if not self._is_trusted(hop):
                break
        return client

    def _is_trusted(self, text: str) -> bool:
        if text == "unix":
            return self._unix_is_trusted
        address = _parse(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )

    def _parse_key(self, text: str) -> str:
        address = _parse(text)
        if address is None:
            return text
        if address.version == 4 or self._prefix == 128:
            return str(address)
        return str(ipaddress.ip_network((int(address), self._prefix), strict=False))


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> _Address | None:
    """An address, with the port that some proxies add and the zone left out."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
