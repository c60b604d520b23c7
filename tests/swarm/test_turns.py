"""Turns: the highest priority first, none lost to somebody who no longer waits."""

from __future__ import annotations

import asyncio

from p2pdist.swarm.turns import Turns


async def _one(turns: Turns, priority: int, name: str, order: list[str]) -> None:
    async with turns.turn(priority):
        order.append(name)
        await asyncio.sleep(0)


async def test_the_highest_priority_comes_first_then_who_came_first() -> None:
    turns, order = Turns(1), list[str]()
    async with asyncio.TaskGroup() as tasks, turns.turn(0):
        for name, priority in (("a", 0), ("b", 5), ("c", 5), ("d", -5)):
            tasks.create_task(_one(turns, priority, name, order))
        await asyncio.sleep(0)
        assert order == []

    assert order == ["b", "c", "a", "d"]


async def test_a_turn_is_not_lost_to_one_that_was_cancelled() -> None:
    turns, order = Turns(1), list[str]()
    async with turns.turn(0):
        cancelled = asyncio.get_running_loop().create_task(_one(turns, 9, "cancelled", order))
        waiting = asyncio.get_running_loop().create_task(_one(turns, 0, "waiting", order))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
    await asyncio.wait_for(waiting, 5)

    assert order == ["waiting"]


async def test_a_turn_that_comes_in_the_moment_of_a_cancel_goes_to_the_next() -> None:
    turns, order = Turns(1), list[str]()
    async with turns.turn(0):
        both = asyncio.get_running_loop().create_task(_one(turns, 9, "cancelled", order))
        waiting = asyncio.get_running_loop().create_task(_one(turns, 0, "waiting", order))
        await asyncio.sleep(0)
    both.cancel()  # its turn was given a moment ago; it has not run since
    await asyncio.gather(both, return_exceptions=True)
    await asyncio.wait_for(waiting, 5)

    assert order == ["waiting"]
