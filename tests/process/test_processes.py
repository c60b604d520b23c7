"""Processes that give way."""

from __future__ import annotations

import asyncio
import os

from p2pdist.process.processes import yield_to_others


async def test_it_gives_way_and_gets_on_beside_busy_processes() -> None:
    """SCHED_IDLE was weighed with 3 against 1,024: on a busy host nothing ever came of it."""
    process = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        yield_to_others(process.pid)

        assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
        assert 5 <= os.getpriority(os.PRIO_PROCESS, process.pid) <= 15
    finally:
        process.kill()
        await process.wait()


async def test_a_process_that_has_ended_gives_way_too() -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()

    yield_to_others(process.pid)
