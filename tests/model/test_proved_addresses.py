from __future__ import annotations

import ipaddress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.members import Address
from p2pdist.model.proved_addresses import PORT_MIN, plain, proved, told

SEEN = "10.0.0.7"
EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
hosts = st.ip_addresses().map(str) | st.sampled_from(
    ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "fe80::1%eth0", "224.0.0.1", "0.0.0.0",
     "::", "::ffff:127.0.0.1", "::ffff:10.0.0.7", "10.0.0.7", "host.corp", ""]
)  # fmt: skip
addresses = st.builds(Address, hosts, st.integers(-1, 70_000))
networks = st.lists(
    st.ip_addresses().map(lambda a: ip_network((a, 8), strict=False)) | st.sampled_from(EVERYWHERE),
    max_size=3,
)


def named(announced: str, seen: str = SEEN, nets: tuple[str, ...] = (), port: int = 5301) -> bool:
    address = Address(announced, port)
    return proved([address], seen, [ip_network(net) for net in nets]).addresses == (address,)


@pytest.mark.parametrize(
    ("announced", "seen"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("10.0.0.7", "::ffff:10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("fd00::7", "fd00:0::0:7"),
        ("203.0.113.9", "203.0.113.9"),
    ],
)
def test_where_a_host_is_seen_from_may_be_named(announced: str, seen: str) -> None:
    assert named(announced, seen)
    assert named(announced, seen, port=443)


@pytest.mark.parametrize(
    ("announced", "seen"),
    [
        ("10.0.0.8", "10.0.0.7"),
        ("fd00::8", "fd00::7"),
        ("127.0.0.1", "10.0.0.7"),
        ("host.corp", "10.0.0.7"),
        ("10.0.0.7", ""),
        ("", ""),
        ("fe80::1", "fe80::1%eth0"),
        ("169.254.169.254", "169.254.169.254"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_anything_else_may_not(announced: str, seen: str) -> None:
    assert not named(announced, seen)


def test_networks_of_the_operator_may_be_named_at_ports_of_programs() -> None:
    assert named("192.168.1.9", nets=("10.9.0.0/16", "192.168.0.0/16"))
    assert named("::ffff:192.168.1.9", nets=("192.168.0.0/16",))
    assert not named("192.168.1.9", nets=("192.168.0.0/16",), port=PORT_MIN - 1)
    assert not named("192.168.1.9", nets=("192.169.0.0/16", "fd00::/8"))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "::ffff:169.254.169.254",
     "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255", "host.corp"],
)  # fmt: skip
def test_no_network_holds_what_is_another_thing_to_each_host(host: str) -> None:
    assert not named(host, nets=("0.0.0.0/0", "::/0"))


def test_what_stands_for_the_machine_at_both_ends_may_be_named() -> None:
    announced = [Address("127.0.0.1", 80), Address("10.0.0.9", 5301), Address("10.0.0.10", 5301)]

    found = proved(announced, "127.0.0.1", (), here={"127.0.0.1", "10.0.0.9"})

    assert (found.addresses, found.refused) == (tuple(announced[:2]), tuple(announced[2:]))


@given(st.lists(addresses, max_size=8), hosts, networks)
def test_each_address_that_is_named_has_a_reason(
    announced: list[Address], seen: str, nets: list[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> None:
    found = proved(announced, seen, nets)

    assert [a for a in announced if a in found.addresses] == list(found.addresses)
    assert sorted(map(str, [*found.addresses, *found.refused])) == sorted(map(str, announced))
    for address in found.addresses:
        host = plain(address.host)
        assert host is not None
        for nowhere in ("loopback", "link_local", "multicast", "unspecified"):
            assert not getattr(host, f"is_{nowhere}")
        assert 0 < address.port < 1 << 16
        in_network = address.port >= PORT_MIN and any(host in net for net in nets)
        assert host == plain(seen) or in_network


@given(st.lists(addresses, max_size=8), hosts, networks)
def test_more_networks_name_no_less(
    announced: list[Address], seen: str, nets: list[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> None:
    fewer, more = proved(announced, seen, nets[:1]), proved(announced, seen, nets)

    assert set(fewer.addresses) <= set(more.addresses)


def test_what_is_told_of_refused_addresses_is_short() -> None:
    refused = [Address(f"10.0.0.{n}", 5301) for n in range(8)]

    assert told([], SEEN) == ""
    assert told(refused[:1], SEEN).startswith("10.0.0.0:5301 announced")
    assert SEEN in told(refused[:1], SEEN)
    assert "and 6 more" in told(refused, SEEN)
