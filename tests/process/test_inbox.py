from __future__ import annotations

import asyncio
import time
from typing import TypeVar

import pytest

from p2pdist.process.inbox import TURN_S, Inbox

T = TypeVar("T")


async def emptied(inbox: Inbox[T]) -> int:
    """Return the turns of the loop until all was dealt with."""
    turns = 0
    while len(inbox):  # an inbox has no event for its tests
        turns += 1
        await asyncio.sleep(0)
    return turns


async def test_items_are_dealt_with_in_order_each_until_it_is_done() -> None:
    dealt: list[str] = []
    left = {"long": 3}

    def work(item: str) -> bool:
        dealt.append(item)
        left[item] = left.get(item, 1) - 1
        return left[item] > 0

    inbox = Inbox(work)
    for item in ("first", "long", "last"):
        inbox.put(item)
    await emptied(inbox)

    assert dealt == ["first", "long", "long", "long", "last"]


async def test_the_loop_turns_between_slices_of_work() -> None:
    def work(item: int) -> bool:
        until_s = time.monotonic() + TURN_S / 2
        while time.monotonic() < until_s:
            pass
        return False

    inbox = Inbox(work)
    for item in range(20):
        inbox.put(item)

    assert await emptied(inbox) >= 10


async def test_what_fails_is_not_met_again(caplog: pytest.LogCaptureFixture) -> None:
    dealt: list[int] = []

    def work(item: int) -> bool:
        dealt.append(item)
        if item == 1:
            raise RuntimeError("a bug")
        return False

    failures: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(str(context["exception"])))
    inbox = Inbox(work)
    for item in range(3):
        inbox.put(item)
    await emptied(inbox)

    assert dealt == [0, 1, 2]
    assert failures == ["a bug"]


async def test_a_closed_one_forgets_what_it_had() -> None:
    dealt: list[int] = []

    def work(item: int) -> bool:
        dealt.append(item)
        inbox.close()
        return True

    inbox = Inbox(work)
    inbox.put(1)
    inbox.put(2)
    for _ in range(3):
        await asyncio.sleep(0)
    inbox.put(3)
    await asyncio.sleep(0)

    assert dealt == [1]
