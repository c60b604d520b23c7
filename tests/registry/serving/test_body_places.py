from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from p2pdist.process.tasks import TaskOwner
from p2pdist.registry.serving import body_places
from p2pdist.registry.serving.body_places import STALLED_S, BodyPlace, BodyPlaces

SOON_S = 0.05
DEADLINE_S = 20.0


class Bodies:
    """Holds places for bodies by name, and notes whose place went to another."""

    def __init__(self, most: int) -> None:
        self.lost: list[str] = []
        self.held: dict[str, BodyPlace] = {}
        self.tasks = TaskOwner("test")
        self._places = BodyPlaces(most)
        self._open: dict[str, AsyncExitStack] = {}

    async def begin(self, name: str, who: str, within_s: float = SOON_S) -> None:
        stack = AsyncExitStack()
        place = self._places.held(who, lambda: self.lost.append(name), within_s=within_s)
        self.held[name] = await stack.enter_async_context(place)
        self._open[name] = stack

    async def end(self, *names: str) -> None:
        for name in names or list(self._open):
            await self._open.pop(name).aclose()


@pytest.fixture
async def bodies() -> AsyncIterator[Bodies]:
    made = Bodies(2)
    yield made
    await made.end()


async def test_a_host_that_has_all_places_makes_room_for_another(bodies: Bodies) -> None:
    """1,100 bodies of one client that read nothing used to keep everybody out for ten minutes."""
    await bodies.begin("a1", "a")
    await bodies.begin("a2", "a")
    await bodies.begin("b1", "b")

    assert bodies.lost == ["a1"]


async def test_who_has_as_many_as_all_others_waits(bodies: Bodies) -> None:
    await bodies.begin("a1", "a")
    await bodies.begin("b1", "b")

    with pytest.raises(TimeoutError):
        await bodies.begin("c1", "c")
    assert bodies.lost == []


async def test_a_place_goes_to_who_waits_longest(bodies: Bodies) -> None:
    await bodies.begin("a1", "a")
    await bodies.begin("a2", "a")
    first = bodies.tasks.start(bodies.begin("a3", "a", DEADLINE_S), name="body")
    await asyncio.sleep(0)
    second = bodies.tasks.start(bodies.begin("a4", "a", DEADLINE_S), name="body")
    await asyncio.sleep(0)

    await bodies.end("a1")
    await first
    assert not second.done()
    await bodies.end("a2")
    await second
    assert bodies.lost == []


async def test_who_stopped_waiting_gets_no_place(bodies: Bodies) -> None:
    await bodies.begin("a1", "a")
    await bodies.begin("a2", "a")
    with pytest.raises(TimeoutError):
        await bodies.begin("a3", "a")

    await bodies.end("a1")
    await bodies.begin("a4", "a")
    assert set(bodies.held) == {"a1", "a2", "a4"}


async def test_a_body_that_stands_still_makes_room_for_one_of_the_same_host(
    bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All clients of a mirror have one address."""
    monkeypatch.setattr(body_places, "LOOK_AGAIN_S", 0.01)
    await bodies.begin("a1", "a")
    await bodies.begin("a2", "a")
    stalled_s = 0.0
    bodies.held["a2"].stalled_s = lambda: stalled_s
    waiting = bodies.tasks.start(bodies.begin("a3", "a", DEADLINE_S), name="body")
    await asyncio.sleep(0.03)
    assert not waiting.done()

    stalled_s = STALLED_S
    await waiting
    assert bodies.lost == ["a2"]


async def test_what_was_lost_is_not_given_back_twice(bodies: Bodies) -> None:
    await bodies.begin("a1", "a")
    await bodies.begin("a2", "a")
    await bodies.begin("b1", "b")
    await bodies.end("a1")

    with pytest.raises(TimeoutError):
        await bodies.begin("c1", "c")
