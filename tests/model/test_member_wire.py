"""Members on the wire between nodes: bounded, by IP addresses, and nothing else is believed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import HostId
from p2pdist.model.member_wire import (
    ADDRESSES_MAX,
    MEMBERS_BYTES_MAX,
    MEMBERS_MAX,
    PLACE_CHARS_MAX,
    members_from_wire,
    members_to_wire,
    nameable,
)
from p2pdist.model.members import Address, Member, Place, Role

HOST = HostId("a" * 32)
THERE = Address("10.0.0.1", 5001)
HERE = Place("dc1", "r1")

host_ids = st.binary(min_size=16, max_size=16).map(lambda data: HostId(data.hex()))
addresses = st.builds(
    Address, st.sampled_from(["10.1.2.3", "2001:db8::7", "127.0.0.1"]), st.integers(1, 65535)
)
places = st.builds(Place, st.text(max_size=8), st.text(max_size=8))
members = st.builds(
    Member,
    host_ids,
    st.just(Role.PEER),
    places,
    st.lists(addresses, min_size=1, max_size=3).map(tuple),
)


@given(st.lists(members, max_size=MEMBERS_MAX))
def test_members_read_back(named: list[Member]) -> None:
    assert members_from_wire(members_to_wire(named)) == tuple(named)


def test_only_ip_addresses_are_named() -> None:
    names = (Address("peer.internal", 5001), THERE, Address("10.0.0.2", 0), Address("0.0.0.0", 1))

    assert nameable(Member(HOST, Role.PEER, HERE, names)) == Member(HOST, Role.PEER, HERE, (THERE,))


@dataclass(frozen=True)
class Unfit:
    member: Member
    why: str


UNFIT = [
    Unfit(Member(HOST, Role.PROXY, HERE, (THERE,)), "a proxy"),
    Unfit(Member(HOST, Role.PEER, HERE), "no address"),
    Unfit(Member(HOST, Role.PEER, HERE, (Address("peer.internal", 1),)), "a host name"),
    Unfit(Member(HOST, Role.PEER, HERE, (Address("fe80::1%eth0", 1),)), "an interface"),
    Unfit(Member(HOST, Role.PEER, HERE, (Address("10.0.0.1", 65536),)), "no such port"),
    Unfit(Member(HOST, Role.PEER, HERE, (THERE,) * (ADDRESSES_MAX + 1)), "many addresses"),
    Unfit(Member(HOST, Role.PEER, Place("d" * (PLACE_CHARS_MAX + 1)), (THERE,)), "a long place"),
    Unfit(Member(HostId("x"), Role.PEER, HERE, (THERE,)), "no host id"),
]


@pytest.mark.parametrize("unfit", UNFIT, ids=lambda unfit: unfit.why)
def test_what_may_not_be_named_is_refused_when_it_comes(unfit: Unfit) -> None:
    data = msgspec.msgpack.encode([unfit.member])

    with pytest.raises(ValueError, match=r"named|host id"):
        members_from_wire(data)


def test_more_than_may_be_named_is_refused() -> None:
    one = Member(HOST, Role.PEER, HERE, (THERE,))

    with pytest.raises(ValueError, match="length"):
        members_from_wire(msgspec.msgpack.encode([one] * (MEMBERS_MAX + 1)))


def test_what_would_be_too_long_loses_its_end() -> None:
    place = Place("\N{SNOWMAN}" * PLACE_CHARS_MAX, "\N{SNOWMAN}" * PLACE_CHARS_MAX)
    long = Member(HOST, Role.PEER, place, (THERE,) * ADDRESSES_MAX)

    data = members_to_wire([long] * MEMBERS_MAX)

    assert len(data) <= MEMBERS_BYTES_MAX
    assert 0 < len(members_from_wire(data)) < MEMBERS_MAX


@given(st.binary(max_size=300))
def test_any_other_bytes_are_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):  # anything else fails the test
        members_from_wire(data)
