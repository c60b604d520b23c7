"""Fetches from outside share the slots of a proxy by upstream."""

from __future__ import annotations

from random import Random

import pytest

from p2pdist.registry_proxy.core.slots import FairSlots

TOTAL = 16


def fill(slots: FairSlots[int], upstream: str) -> int:
    """Take all that `upstream` may have; return how many."""
    taken = 0
    while slots.take(upstream):
        taken += 1
    return taken


def test_one_upstream_leaves_room_for_another() -> None:
    slots: FairSlots[int] = FairSlots(TOTAL)
    assert fill(slots, "slow") == TOTAL // 2
    assert fill(slots, "quick") == TOTAL // 4
    assert fill(slots, "third") == TOTAL // 8


def test_the_only_slot_is_given() -> None:
    slots: FairSlots[int] = FairSlots(1)
    assert slots.take("a")
    assert not slots.take("b")


def test_an_upstream_with_a_limit_keeps_it_and_stops_nobody() -> None:
    slots: FairSlots[int] = FairSlots(TOTAL, {"few": 2})
    assert fill(slots, "few") == 2
    slots.wait("few", 1)
    fill(slots, "other")
    slots.wait("other", 2)
    assert slots.release("other") == [2], "the first one waits for its own"
    assert slots.release("few") == [1]
    slots.wait("few", 3)
    assert slots.release("other") == []


def test_who_waits_longest_of_an_upstream_comes_first() -> None:
    slots: FairSlots[int] = FairSlots(TOTAL)
    fill(slots, "slow")
    slots.wait("slow", 1)
    slots.wait("slow", 2)
    assert not slots.take("slow")
    assert slots.release("slow") == [1]
    assert slots.release("slow") == [2]


def test_who_has_least_is_served_before_who_came_first() -> None:
    slots: FairSlots[int] = FairSlots(TOTAL)
    fill(slots, "slow")
    fill(slots, "quick")
    slots.wait("slow", 1)
    slots.wait("quick", 2)
    assert slots.release("slow") == [2]


def test_a_claim_that_is_withdrawn_gets_nothing() -> None:
    slots: FairSlots[int] = FairSlots(2)
    assert slots.take("a")
    slots.wait("a", 1)
    assert slots.withdraw("a", 1)
    assert slots.release("a") == []
    assert not slots.withdraw("a", 1)
    assert slots.take("a")


@pytest.mark.parametrize("seed", range(20))
def test_no_slot_is_lost_or_given_twice(seed: int) -> None:
    rng = Random(seed)
    slots: FairSlots[int] = FairSlots(TOTAL)
    held: list[str] = []
    waiting: dict[int, str] = {}
    for claim in range(2000):
        upstream = rng.choice("abc")
        if rng.random() < 0.5:
            if slots.take(upstream):
                held.append(upstream)
            else:
                slots.wait(upstream, claim)
                waiting[claim] = upstream
        elif held:
            freed = held.pop(rng.randrange(len(held)))
            held += [waiting.pop(granted) for granted in slots.release(freed)]
        assert len(held) <= TOTAL
    while held:
        held += [waiting.pop(granted) for granted in slots.release(held.pop())]
    assert not waiting
