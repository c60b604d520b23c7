"""What wakes a core that waits for a blob."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from p2pdist.registry_proxy.watching import changed, now_s, view_of
from tests.swarm.active_parts import Motion, SignedMap, in_motion, some_bytes

LAYER = SignedMap(some_bytes(4), b"l")
LATE_S = 3600.0


class Link:
    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def wait_closed(self) -> None:
        await self.ended.wait()


async def test_a_view_tells_what_is_here(tmp_path: Path) -> None:
    async with in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion:
        assert (view_of(motion.active).held_chunks, view_of(motion.active).over) == (0, False)
        await motion.hear(LAYER.head, *LAYER.batches)
        await motion.land(LAYER, 0, 1, 3)

        view = view_of(motion.active)
        assert (view.prefix_chunks, view.held_chunks, view.complete) == (2, 3, False)
        assert view.idle_s < LATE_S
        motion.active.fail("for this test")
        assert view_of(motion.active).failed


async def test_the_first_chunk_that_lacks_wakes(tmp_path: Path) -> None:
    async with in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion:
        await motion.hear(LAYER.head, *LAYER.batches)
        await woken_by(motion, motion.land(LAYER, 0))


async def test_the_seal_wakes(tmp_path: Path) -> None:
    async with in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion:
        await motion.hear(LAYER.head, *LAYER.batches)
        await motion.land(LAYER, 0, 1, 2, 3)
        await woken_by(motion, motion.hear(LAYER.seal))


async def test_a_failure_wakes(tmp_path: Path) -> None:
    async with in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion:

        async def fail() -> None:
            motion.active.fail("for this test")

        await woken_by(motion, fail())


async def test_the_end_of_the_link_wakes(tmp_path: Path) -> None:
    async with in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion:
        link = Link()

        async def end() -> None:
            link.ended.set()

        await woken_by(motion, end(), link)


async def test_its_time_wakes(tmp_path: Path) -> None:
    async with asyncio.timeout(10), in_motion(tmp_path, LAYER.digest, len(LAYER.data)) as motion:
        for link in (None, Link()):
            real: Any = link
            await changed(motion.active, now_s() + 0.01, real)


async def woken_by(motion: Motion, happens: Any, link: Link | None = None) -> None:
    real: Any = link
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(changed(motion.active, now_s() + LATE_S, real))
        await asyncio.sleep(0)
        assert not waiting.done()
        await happens
