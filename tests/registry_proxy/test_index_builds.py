"""Builds of indexes that come to nothing."""

from __future__ import annotations

import asyncio
import os
from typing import cast

import pytest

from p2pdist.peer.api import ActiveBlob
from p2pdist.registry_proxy.index_builds import NotBuilt, build_index, yield_to_others


class Waiting:
    """A blob of which nothing came yet; `turns` later the node lets go of it."""

    blob = None
    prefix_chunks = 0
    failure: str | None = None
    store_full = False

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.readers = self

    async def wait_progress(self, timeout_s: float) -> None:
        self.turns -= 1


async def test_a_blob_that_is_let_go_keeps_nobody_waiting_for_a_turn() -> None:
    waiting = Waiting(3)
    with pytest.raises(NotBuilt, match="let go") as caught:
        await build_index(cast("ActiveBlob", waiting), lambda: waiting.turns > 0)
    assert not caught.value.unfit


@pytest.mark.parametrize(("failure", "full"), [("revoked", False), (None, True)])
async def test_a_blob_that_does_not_come_has_no_index(failure: str | None, full: bool) -> None:
    waiting = Waiting(3)
    waiting.failure, waiting.store_full = failure, full
    with pytest.raises(NotBuilt, match=failure or "does not keep"):
        await build_index(cast("ActiveBlob", waiting), lambda: True)


async def test_a_build_gives_way_and_gets_on_beside_busy_processes() -> None:
    """SCHED_IDLE was weighed with 3 against 1,024: on a busy host no index ever came."""
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
