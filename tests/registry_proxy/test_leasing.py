"""How long a proxy copies from one that holds the lease and brings nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from p2pdist.model.control import LeaseAnswer, SwarmKey, digest_key
from p2pdist.model.ids import digest_of
from p2pdist.model.members import Member
from p2pdist.registry_proxy.leasing import OutsideLeases, followed
from tests.tracker.hosts import member

DIGEST = digest_of(b"layer")


class Active:
    """A blob of which nothing comes."""

    digest = DIGEST
    complete = False
    failure: str | None = None
    prefix_chunks = 0
    idle_s = 3600.0


class Link:
    closed = False


class Tracker:
    """Says who holds the lease, each time that it is asked."""

    def __init__(self, *answers: LeaseAnswer) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.ended: list[int] = []

    async def lease(self, key: SwarmKey, *, timeout_s: float) -> LeaseAnswer:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return answer

    def end_lease(self, key: SwarmKey, fence: int) -> None:
        self.ended.append(fence)


class Proxy:
    """A node that can reach every holder; `active` is what the holders bring."""

    def __init__(self, *answers: LeaseAnswer) -> None:
        self.tracker = Tracker(*answers)
        node: Any = self
        self.leases = OutsideLeases(node)
        self.followed: list[Member] = []

    async def follow(self, active: Active, holder: Member) -> Link:
        self.followed.append(holder)
        return Link()


REFUSED = LeaseAnswer(1, digest_key(DIGEST), 0, 60.0, holder=member(1))
GRANTED = LeaseAnswer(2, digest_key(DIGEST), 5, 60.0, holders=3)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOURCE_SILENCE_S", "POLL_S", "ASK_AGAIN_S"):
        monkeypatch.setattr(f"p2pdist.registry_proxy.leasing.{name}", 0.001)
    monkeypatch.setattr("p2pdist.registry_proxy.leasing.WAIT_MAX_S", 0.05)


async def test_a_silent_source_is_followed_for_a_moment_only() -> None:
    active: Any = Active()
    async with asyncio.timeout(10):
        assert not await followed(active, 0.01)


async def test_a_holder_that_brings_nothing_is_not_waited_for() -> None:
    """A lease spares a second reading of the registry; it is no condition of a pull."""
    proxy, active = Proxy(REFUSED), Active()
    given: Any = active
    async with asyncio.timeout(10), proxy.leases.held(given) as held:
        assert held.fence == 0

    assert set(proxy.followed) == {member(1)}
    assert proxy.tracker.ended == []


async def test_the_lease_of_one_that_died_is_taken_over() -> None:
    proxy, active = Proxy(REFUSED, GRANTED), Active()
    given: Any = active
    async with asyncio.timeout(10), proxy.leases.held(given) as held:
        assert (held.fence, held.holders) == (5, 3)

    assert proxy.tracker.ended == [5]


async def test_a_holder_that_brings_some_is_asked_on() -> None:
    """Slow is not silent: the registry would be read twice."""
    proxy, active = Proxy(REFUSED), Active()
    given: Any = active

    async def bring(active: Active, holder: Member) -> Link:
        active.prefix_chunks += 1
        active.complete = active.prefix_chunks == 100
        return Link()

    proxy.follow = bring  # type: ignore[method-assign]  # a fake of this file
    async with asyncio.timeout(10), proxy.leases.held(given):
        assert active.complete
