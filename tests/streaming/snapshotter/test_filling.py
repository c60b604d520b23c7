"""The rest of what is shown comes to the host, whatever happens to its mirror meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.names import ImageName
from p2pdist.streaming.snapshotter.filling import Filling
from p2pdist.streaming.snapshotter.layer_files import LayerPlan
from p2pdist.streaming.snapshotter.mirror import MirrorFault

NAME = ImageName("docker.io", "library/app")
A, B = digest_of(b"a"), digest_of(b"b")


def plan(layer: Digest) -> LayerPlan:
    return LayerPlan(NAME.upstream, NAME.repository, layer, [], whole=False)


class ToldMirror:
    def __init__(self) -> None:
        self.asked: list[Digest] = []
        self.held: set[Digest] = set()
        self.away: set[Digest] = set()
        self.was_asked = asyncio.Event()

    async def fill(self, name: ImageName, layer: Digest) -> bool:
        assert name == NAME
        self.asked.append(layer)
        self.was_asked.set()
        if layer in self.away:
            raise MirrorFault("away")
        return layer in self.held


class Place:
    def __init__(self) -> None:
        self.mirror = ToldMirror()
        self.shown = [A, B]
        self.told: list[Digest] = []
        self.filling = Filling(
            self.mirror, self.lacking, self.told.append, again_s=0.01, again_max_s=0.02
        )
        self.running: asyncio.Task[None] | None = None

    def lacking(self) -> list[LayerPlan]:
        return [plan(layer) for layer in self.shown]

    def start(self) -> None:
        self.running = asyncio.get_running_loop().create_task(self.filling.run())

    async def asked(self, count: int) -> None:
        """Return when the mirror was asked that often."""
        async with asyncio.timeout(20):
            while len(self.mirror.asked) < count:
                self.mirror.was_asked.clear()
                await self.mirror.was_asked.wait()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    yield made
    if made.running is not None:
        made.running.cancel()
        await asyncio.gather(made.running, return_exceptions=True)


async def test_what_is_shown_is_asked_for_in_its_order_until_it_is_here(place: Place) -> None:
    place.start()
    await place.asked(5)
    place.mirror.held = {A}
    await place.asked(len(place.mirror.asked) + 3)

    assert place.mirror.asked[:2] == [A, B]
    assert set(place.mirror.asked[-2:]) == {B}


async def test_nobody_asks_for_what_is_here(place: Place) -> None:
    place.mirror.held = {A, B}
    place.start()
    await place.asked(2)
    await asyncio.sleep(0.05)  # five times what it waits elsewhere
    assert place.mirror.asked == [A, B]
    assert place.told == [A, B]

    place.shown.append(digest_of(b"c"))
    place.filling.more()

    await place.asked(3)
    assert place.mirror.asked[2] == digest_of(b"c")


async def test_a_mirror_that_is_away_is_asked_again(place: Place) -> None:
    place.mirror.away = {A, B}
    place.start()
    await place.asked(4)
    place.mirror.away, place.mirror.held = set(), {A, B}
    await place.asked(len(place.mirror.asked) + 2)


async def test_a_layer_that_cannot_come_keeps_no_other_away(place: Place) -> None:
    place.mirror.away = {A}
    place.start()
    await place.asked(6)

    assert B in place.mirror.asked


async def test_what_is_shown_no_more_is_not_asked_for(place: Place) -> None:
    place.start()
    await place.asked(4)
    place.shown = [B]
    await place.asked(len(place.mirror.asked) + 2)
    count = len(place.mirror.asked)
    await place.asked(count + 3)

    assert set(place.mirror.asked[count:]) == {B}
