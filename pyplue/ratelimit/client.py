"""Who sent a request: the peer of the connection, or the client that trusted proxies name.

`X-Forwarded-For` is a list to which each proxy adds, at its end, the address that connected to
it. Whatever stands before the first entry of a trusted proxy is the client's own invention, so the
list is read from its end and no further than trust reaches.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# Longer chains of proxies do not exist; what stands before is not read.
MAX_PROXIES = 32
# A peer that is no IP address (the path of a socket, a test client) is cut to this.
MAX_NAME_LENGTH = 100
# In `trusted_proxies`: the peer came through a Unix socket and has no address.
UNIX_SOCKET = "unix"


class ClientAddress:
    """Tells the address by which a client is limited.

    Without trusted_proxies and trusted_hops the header is ignored and the client is the peer.

    Args:
        trusted_proxies: Networks or addresses whose `X-Forwarded-For` is believed, such as
            `["10.0.0.0/8", "::1"]`; `"unix"` stands for peers that connect through a Unix socket.
        trusted_hops: How many proxies stand before this server, where their addresses are not
            known. Safe only when clients cannot connect around them.
        ipv6_prefix: IPv6 addresses are limited by the network of this length. A single customer
            has a /64 or more, so that single addresses would be no limit at all.
        header: Where the proxies write; one that holds a single address (`X-Real-IP`) works too.
    """

    def __init__(
        self,
        *,
        trusted_proxies: Iterable[str] = (),
        trusted_hops: int = 0,
        ipv6_prefix: int = 64,
        header: str = "x-forwarded-for",
    ) -> None:
        if isinstance(trusted_proxies, str):
            raise TypeError("trusted_proxies is a list of networks, not one str")
        networks = list(trusted_proxies)
        if networks and trusted_hops:
            raise ValueError("choose trusted_proxies or trusted_hops, not both")
        if not 0 <= trusted_hops <= MAX_PROXIES:
            raise ValueError(f"trusted_hops must be 0 to {MAX_PROXIES}, not {trusted_hops}")
        if not 1 <= ipv6_prefix <= 128:
            raise ValueError(f"ipv6_prefix must be 1 to 128, not {ipv6_prefix}")
        self.header = header.lower()
        self._hops = trusted_hops
        self._trusts_unix = UNIX_SOCKET in networks
        self._networks = [_network(name) for name in networks if name != UNIX_SOCKET]
        self._host_bits = 128 - ipv6_prefix

    @property
    def reads_header(self) -> bool:
        """Whether anybody is trusted, so that the header counts."""
        return bool(self._hops or self._networks or self._trusts_unix)

    def __call__(self, peer: str | None, forwarded: str = "") -> str:
        """The client's address as a key: "192.0.2.7", "2001:db8::/64", or a peer's name.

        peer: the address that the connection comes from; None or "" through a Unix socket.
        forwarded: the header's value; several fields are joined with commas, in their order.
        """
        address = _parse(peer or "")
        if not self.reads_header:
            return self._key(address, peer)
        entries = forwarded.rsplit(",", MAX_PROXIES)[-MAX_PROXIES:] if forwarded else []
        if self._hops:
            found = _parse(entries[-min(self._hops, len(entries))]) if entries else None
            return self._key(found or address, peer)
        if address is None and (peer or not self._trusts_unix):
            return self._key(None, peer)
        while entries and (address is None or self._is_trusted(address)):
            before = _parse(entries.pop())
            if before is None:
                break
            address = before
        return self._key(address, peer)

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)

    def _key(self, address: IPv4Address | IPv6Address | None, peer: str | None) -> str:
        if address is None:
            return (peer or UNIX_SOCKET)[:MAX_NAME_LENGTH]
        if address.version == 4 or not self._host_bits:
            return str(address)
        network = IPv6Address(int(address) >> self._host_bits << self._host_bits)
        return f"{network}/{128 - self._host_bits}"


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address, perhaps with a port, brackets or a zone; IPv4 mapped into IPv6 as IPv4."""
    text = text.strip().strip('"')
    if len(text) > MAX_NAME_LENGTH:
        return None
    if text.startswith("["):
        text, closing, _ = text[1:].partition("]")
        if not closing:
            return None
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"trusted_proxies: {error}") from None
    mapped = network.network_address
    if isinstance(mapped, IPv6Address) and mapped.ipv4_mapped and network.prefixlen >= 96:
        return IPv4Network((mapped.ipv4_mapped, network.prefixlen - 96))
    return network
