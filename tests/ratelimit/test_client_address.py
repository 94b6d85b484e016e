"""Who a client is: mapped and prefixed addresses, trusted proxies, and what clients invent."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplue.ratelimit.client import MAX_NAME_LENGTH, MAX_PROXIES, ClientAddress

PEER = "198.51.100.9"


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:0207", "192.0.2.7"),
        ("0:0:0:0:0:ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, "unix"),
        ("", "unix"),
        ("testclient", "testclient"),
        ("x" * 5000, "x" * MAX_NAME_LENGTH),
    ],
)
def test_a_peer_is_limited_by(peer: str | None, key: str):
    assert ClientAddress()(peer) == key


@pytest.mark.parametrize(
    ("prefix", "key"),
    [(48, "2001:db8:1::/48"), (56, "2001:db8:1:200::/56"), (128, "2001:db8:1:2ff::6")],
)
def test_the_prefix_of_ipv6_can_be_chosen(prefix: int, key: str):
    assert ClientAddress(ipv6_prefix=prefix)("2001:db8:1:2ff::6") == key


@pytest.mark.parametrize("peer", [PEER, "::1", None])
def test_the_header_is_ignored_when_nobody_is_trusted(peer: str | None):
    assert ClientAddress()(peer, "192.0.2.1") == ClientAddress()(peer)


def test_the_header_is_ignored_from_a_peer_that_is_not_trusted():
    client = ClientAddress(trusted_proxies=["10.0.0.0/8"])
    assert client(PEER, "192.0.2.1") == PEER
    assert client(None, "192.0.2.1") == "unix"
    assert client("10.0.0.1.evil", "192.0.2.1") == "10.0.0.1.evil"


@pytest.mark.parametrize(
    ("forwarded", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("spoofed, 192.0.2.1", "192.0.2.1"),
        ("127.0.0.1, 192.0.2.1", "192.0.2.1"),
        ("203.0.113.5, 192.0.2.1, 10.9.9.9", "192.0.2.1"),
        ("192.0.2.1:51234", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::/64"),
        ('"[2001:db8::1]"', "2001:db8::/64"),
        ("2001:db8::1", "2001:db8::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        # Only proxies: the first of them is who asked.
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        # A trusted proxy that writes nonsense is itself the client.
        ("nonsense", "10.0.0.1"),
        ("192.0.2.1, nonsense", "10.0.0.1"),
        ("192.0.2.1,", "10.0.0.1"),
        ("", "10.0.0.1"),
        (",,,", "10.0.0.1"),
        ("192.0.2.1, nonsense, 10.3.3.3", "10.3.3.3"),
        ("1.2.3.4, 256.0.0.1", "10.0.0.1"),
        ("1.2.3.4, 010.0.0.1", "10.0.0.1"),
    ],
)
def test_behind_trusted_networks_the_client_is_the_last_that_is_no_proxy(forwarded: str, key: str):
    assert ClientAddress(trusted_proxies=["10.0.0.0/8"])("10.0.0.1", forwarded) == key
    assert ClientAddress(trusted_proxies=["10.0.0.0/8"])("::ffff:10.0.0.1", forwarded) == key


def test_proxies_are_trusted_by_network_address_or_socket():
    assert ClientAddress(trusted_proxies=["::ffff:10.0.0.0/104"])("10.1.2.3", "192.0.2.1") == (
        "192.0.2.1"
    )
    assert ClientAddress(trusted_proxies=["::1"])("::1", "192.0.2.1") == "192.0.2.1"
    assert ClientAddress(trusted_proxies=["2001:db8::/32"])("2001:db8::5", "192.0.2.1") == (
        "192.0.2.1"
    )
    assert ClientAddress(trusted_proxies=["unix"])(None, "spoofed, 192.0.2.1") == "192.0.2.1"
    assert ClientAddress(trusted_proxies=["unix"])(PEER, "192.0.2.1") == PEER


@pytest.mark.parametrize(
    ("hops", "forwarded", "key"),
    [
        (1, "192.0.2.1", "192.0.2.1"),
        (1, "spoofed, 192.0.2.1", "192.0.2.1"),
        (2, "spoofed, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        (2, "192.0.2.1", "192.0.2.1"),
        (2, "", PEER),
        (1, "nonsense", PEER),
        (1, "192.0.2.1, nonsense", PEER),
    ],
)
def test_with_a_number_of_proxies_the_client_is_that_far_from_the_end(
    hops: int, forwarded: str, key: str
):
    assert ClientAddress(trusted_hops=hops)(PEER, forwarded) == key


def test_a_header_of_a_megabyte_is_read_from_its_end():
    flood = "10.0.0.9," * 120_000
    assert ClientAddress(trusted_proxies=["10.0.0.0/8"])("10.0.0.1", flood + "192.0.2.1") == (
        "192.0.2.1"
    )
    # More proxies than there can be: what stands before them is not looked for.
    client = ClientAddress(trusted_proxies=["10.0.0.0/8"])
    assert client("10.0.0.1", "192.0.2.1" + ",10.0.0.9" * (MAX_PROXIES + 1)) == "10.0.0.9"
    assert client("10.0.0.1", "9" * 1_000_000) == "10.0.0.1"


@given(spoofed=st.text(), client=st.ip_addresses(v=4))
def test_nothing_that_a_client_writes_changes_who_it_is(
    spoofed: str, client: ipaddress.IPv4Address
):
    tells = ClientAddress(trusted_proxies=["10.0.0.0/8"])
    if client in ipaddress.ip_network("10.0.0.0/8"):
        return
    assert tells("10.0.0.1", f"{spoofed},{client}") == str(client)
    assert ClientAddress(trusted_hops=1)("10.0.0.1", f"{spoofed},{client}") == str(client)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trusted_proxies": ["10.0.0.0/33"]}, "trusted_proxies"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "host bits"),
        ({"trusted_proxies": ["proxy.example"]}, "trusted_proxies"),
        ({"trusted_proxies": ["10.0.0.0/8"], "trusted_hops": 1}, "not both"),
        ({"trusted_hops": -1}, "trusted_hops"),
        ({"trusted_hops": 33}, "trusted_hops"),
        ({"ipv6_prefix": 0}, "ipv6_prefix"),
        ({"ipv6_prefix": 129}, "ipv6_prefix"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        ClientAddress(**options)  # type: ignore[arg-type]


def test_a_single_network_as_text_is_refused():
    with pytest.raises(TypeError, match="list"):
        ClientAddress(trusted_proxies="10.0.0.0/8")
