"""Tasks that wait for a slot, and are cancelled at the worst moment."""

from __future__ import annotations

import asyncio

import pytest

from p2pdist.process.tasks import TaskOwner
from p2pdist.registry_proxy.slots import FetchSlots


async def hold(slots: FetchSlots, until: asyncio.Event) -> None:
    async with slots.held("a"):
        await until.wait()


@pytest.mark.parametrize("released_first", [True, False])
async def test_a_slot_given_to_a_task_that_is_cancelled_is_not_lost(released_first: bool) -> None:
    slots, tasks = FetchSlots(1, {}), TaskOwner("test")
    first, never = asyncio.Event(), asyncio.Event()
    holder = tasks.start(hold(slots, first), name="holder")
    waiter = tasks.start(hold(slots, never), name="waiter")
    await asyncio.sleep(0)
    first.set()
    if released_first:
        await holder
    else:
        await asyncio.sleep(0)  # the holder releases in the turn in which the waiter is cancelled
    waiter.cancel()
    await asyncio.wait({holder, waiter})

    async with asyncio.timeout(5), slots.held("a"):
        pass
    await tasks.close()
