"""A lease as its proxy asks for it, copies from who has it, and gives it back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from p2pdist.model.control import LeaseAnswer, SwarmKey, digest_key
from p2pdist.model.members import Member
from p2pdist.registry_proxy.core import leasing as core
from p2pdist.registry_proxy.leasing import OutsideLeases
from tests.swarm.active_parts import Motion, SignedMap, in_motion, some_bytes
from tests.tracker.hosts import member

LAYER = SignedMap(some_bytes(2), b"l")
KEY = digest_key(LAYER.digest)
REFUSED = LeaseAnswer(1, KEY, 0, 60.0, holder=member(1))
GRANTED = LeaseAnswer(2, KEY, 5, 60.0, holders=3)


class Link:
    def __init__(self) -> None:
        self.closed = False
        self._ended = asyncio.Event()

    def close(self) -> None:
        self.closed = True
        self._ended.set()

    async def wait_closed(self) -> None:
        await self._ended.wait()


class Tracker:
    """Says who holds the lease, each time that it is asked."""

    def __init__(self, *answers: LeaseAnswer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[SwarmKey, float]] = []
        self.ended: list[int] = []

    async def lease(self, key: SwarmKey, *, timeout_s: float) -> LeaseAnswer:
        self.asked.append((key, timeout_s))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]

    def end_lease(self, key: SwarmKey, fence: int) -> None:
        self.ended.append(fence)


class Proxy:
    """A node that can reach every holder."""

    def __init__(self, *answers: LeaseAnswer) -> None:
        self.tracker = Tracker(*answers)
        self.asked: list[Member] = []
        self.links: list[Link] = []
        self.followed = asyncio.Event()
        node: Any = self
        self.leases = OutsideLeases(node)

    async def follow(self, active: object, holder: Member) -> Link:
        self.asked.append(holder)
        self.links.append(Link())
        self.followed.set()
        return self.links[-1]


async def comes_in(motion: Motion) -> None:
    """What the holder brings, to the last chunk and the seal."""
    await motion.hear(LAYER.head, *LAYER.batches)
    await motion.land(LAYER, 0, 1)
    await motion.hear(LAYER.seal)


class Unmoved:
    """A blob that nobody has to wait for."""

    digest = LAYER.digest
    complete = False
    failure: str | None = None
    prefix_chunks = 0
    idle_s = 0.0
    blob = None


async def test_a_granted_lease_is_given_back() -> None:
    proxy = Proxy(GRANTED)
    active: Any = Unmoved()
    async with proxy.leases.held(active) as use:
        assert (use.fence, use.holders) == (5, 3)
        assert proxy.tracker.ended == []

    assert proxy.tracker.ended == [5]


async def test_who_fails_with_a_lease_gives_it_back() -> None:
    proxy = Proxy(GRANTED)
    active: Any = Unmoved()
    with pytest.raises(ValueError, match="broken"):
        async with proxy.leases.held(active):
            raise ValueError("broken")

    assert proxy.tracker.ended == [5]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No silence ends a wait, so what does is an event."""
    for name in ("SOURCE_SILENCE_S", "IN_VAIN_S"):
        monkeypatch.setattr(core, name, 3600.0)


async def test_what_a_holder_brings_ends_the_wait(tmp_path: Path, patient: None) -> None:
    proxy = Proxy(REFUSED)
    async with asyncio.timeout(10), in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion:

        async def bring() -> None:
            await proxy.followed.wait()
            await comes_in(motion)

        motion.node.tasks.start(bring(), name="bring")
        async with proxy.leases.held(motion.active) as use:
            assert use.fence == 0
            assert motion.active.complete

    assert proxy.asked == [member(1)]
    assert proxy.tracker.ended == []


async def test_a_blob_that_fails_is_not_waited_for(tmp_path: Path, patient: None) -> None:
    proxy = Proxy(REFUSED)
    async with asyncio.timeout(10), in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion:

        async def fail() -> None:
            await proxy.followed.wait()
            motion.active.fail("for this test")

        motion.node.tasks.start(fail(), name="fail")
        async with proxy.leases.held(motion.active) as use:
            assert use.fence == 0


async def test_the_lease_of_one_that_died_is_asked_for_again(tmp_path: Path, patient: None) -> None:
    """Its link ends, and nobody waits until it counts as silent."""
    proxy = Proxy(REFUSED, GRANTED)
    async with asyncio.timeout(10), in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion:

        async def die() -> None:
            await proxy.followed.wait()
            proxy.links[0].close()

        motion.node.tasks.start(die(), name="die")
        async with proxy.leases.held(motion.active) as use:
            assert use.fence == 5

    assert [key for key, _ in proxy.tracker.asked] == [KEY, KEY]
    assert proxy.tracker.ended == [5]


async def test_a_silent_holder_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("SOURCE_SILENCE_S", "IN_VAIN_S", "ASK_AGAIN_S"):
        monkeypatch.setattr(core, name, 0.01)
    proxy = Proxy(REFUSED)
    async with (
        asyncio.timeout(10),
        in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion,
        proxy.leases.held(motion.active) as use,
    ):
        assert use.fence == 0

    assert "lease.holder_silent" in caplog.text
    assert proxy.tracker.ended == []


async def test_the_right_to_read_the_registry_has_a_key_of_its_own(tmp_path: Path) -> None:
    proxy = Proxy(GRANTED)
    async with (
        in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion,
        proxy.leases.origin(motion.active) as granted,
    ):
        assert granted

    ((key, timeout_s),) = proxy.tracker.asked
    assert key != KEY
    assert timeout_s == core.ASK_ORIGIN_S
    assert proxy.tracker.ended == [5]
