"""Whom a proxy names: readers near by, by chance, and nobody who is gone."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.swarm.core import acquaintances
from p2pdist.swarm.core.acquaintances import NAMED, Acquaintances

RACKS = ("r1", "r2", "")


def member(number: int, rack: str = "", dc: str = "dc1") -> Member:
    address = Address(f"10.0.{number >> 8}.{number & 255}", 5001)
    return Member(HostId(f"{number:032x}"), Role.PEER, Place(dc, rack), (address,))


def known(*members: Member) -> Acquaintances:
    found = Acquaintances(Random(1))
    for each in members:
        found.met(each)
    found.validate()
    return found


def test_a_reader_hears_of_all_others_while_they_are_few() -> None:
    readers = [member(number) for number in range(5)]

    named = known(*readers).others(readers[0])

    assert sorted(m.host_id for m in named) == sorted(m.host_id for m in readers[1:])


def test_half_of_them_stand_in_its_rack_and_none_in_another_datacenter() -> None:
    near = [member(number, "r1") for number in range(50)]
    far = [member(number, "r2") for number in range(100, 400)]
    abroad = [member(number, "r1", "dc2") for number in range(400, 500)]
    who = known(*near, *far, *abroad)

    for _ in range(50):
        named = who.others(near[0])
        assert len({m.host_id for m in named}) == len(named) == NAMED
        assert near[0] not in named
        assert sum(m.place.rack == "r1" for m in named) >= NAMED // 2
        assert {m.place.dc for m in named} == {"dc1"}


def test_who_is_named_is_left_to_chance() -> None:
    readers = [member(number) for number in range(100)]
    who = known(*readers)

    times = Counter(m.host_id for _ in range(1000) for m in who.others(readers[0]))

    assert len(times) == 99
    assert max(times.values()) < 2 * 1000 * NAMED / 99


def test_who_is_gone_or_has_moved_is_named_so_no_more() -> None:
    asks, stays, moves = member(1), member(2), member(3)
    who = known(asks, stays, moves)
    elsewhere = Member(moves.host_id, moves.role, moves.place, (Address("10.9.9.9", 1),))

    who.met(elsewhere)
    who.gone(stays.host_id)

    assert who.others(asks) == (elsewhere,)


def test_proxies_and_hosts_without_an_address_are_not_named() -> None:
    proxy = Member(HostId("b" * 32), Role.PROXY, Place("dc1"), (Address("10.0.0.9", 1),))
    unknown = Member(HostId("c" * 32), Role.PEER, Place("dc1"))

    assert not known(proxy, unknown).others(member(1))


def test_no_more_are_remembered_than_is_allowed() -> None:
    who = Acquaintances(Random(1))
    for number in range(acquaintances.KNOWN_MAX + 10):
        who.met(member(number))

    assert len(who) == acquaintances.KNOWN_MAX
    assert len(who.others(member(70_000))) == NAMED


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.sampled_from(RACKS)), max_size=60))
def test_whatever_happens_exactly_those_who_are_there_are_named(
    course: list[tuple[bool, int, str]],
) -> None:
    who, there = Acquaintances(Random(1)), dict[HostId, Member]()
    for comes, number, rack in course:
        one = member(number, rack)
        if comes:
            who.met(one)
            there[one.host_id] = one
        else:
            who.gone(one.host_id)
            there.pop(one.host_id, None)
        who.validate()
    named = who.others(member(99))
    assert len(named) == min(NAMED, len(there))
    assert all(there[m.host_id] == m for m in named)
