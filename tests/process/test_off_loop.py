"""Long answers are read in a thread, short ones where they came."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from p2pdist.process.off_loop import OFF_LOOP_BYTES, parsed


def _thread_of(_: bytes) -> int:
    return threading.get_ident()


async def test_a_long_body_is_read_in_a_thread_and_a_short_one_here() -> None:
    assert await parsed(_thread_of, bytes(OFF_LOOP_BYTES - 1)) == threading.get_ident()
    assert await parsed(_thread_of, bytes(OFF_LOOP_BYTES)) != threading.get_ident()


async def test_the_loop_goes_on_meanwhile() -> None:
    loop, begun, over = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def parse(_: bytes) -> bool:
        loop.call_soon_threadsafe(begun.set)
        return over.wait(10)

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(parsed(parse, bytes(OFF_LOOP_BYTES)))
        await begun.wait()
        over.set()

    assert reading.result()


@pytest.mark.parametrize("size", [0, OFF_LOOP_BYTES])
async def test_what_parsing_raises_is_heard(size: int) -> None:
    parse: Callable[[bytes], int] = int
    with pytest.raises(ValueError, match="invalid literal"):
        await parsed(parse, b"x" * size)
