"""Those who wait for bytes of one blob on this host."""

from __future__ import annotations

import asyncio

from p2pdist.model.chunkset import ChunkSet
from p2pdist.swarm.bulk import BulkPorts, reader_waits
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.waiters import ChunkWaiters


class BlobReaders:
    """What waits here without being a reader of the core (`wait_progress`) makes nobody hurry."""

    def __init__(self, node: BulkPorts, core: BlobCore) -> None:
        self._node = node
        self._core = core
        self._waiters = ChunkWaiters()

    def __bool__(self) -> bool:
        """Somebody has it open."""
        return bool(self._core.wanting.readers)

    def deliverable_end(self, offset: int, *, to_end: bool = True) -> int:
        """The end of the bytes that may go out from `offset` on; `offset` itself if none may.

        `to_end`: the body is read to the end of the blob (see `core.delivery`).
        """
        return self._core.deliverable_end(offset, to_end=to_end)

    async def wait_deliverable(self, offset: int, timeout_s: float, *, to_end: bool = True) -> None:
        """Return when more may go out at `offset`, the blob failed, or the time is over; sometimes
        earlier, so that the caller looks again."""
        ended = self._core.failure is not None
        if not ended and self.deliverable_end(offset, to_end=to_end) <= offset:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            with reader_waits(self._node):
                await self._waiters.wait(self._core.geometry.chunk_at(offset), timeout_s)
            self._core.log.waited(loop.time() - began_s, offset, loop.time())

    async def wait_progress(self, timeout_s: float) -> None:
        """Return when the first chunk that lacks comes, the blob failed, or the time is over; who
        waits here makes nobody hurry, unlike a reader."""
        core = self._core
        if not core.complete and core.failure is None:
            count = core.geometry.chunk_count
            chunk = min(ChunkSet(count, core.held).first_missing(), count - 1)
            await self._waiters.wait(chunk, timeout_s)

    def wake(self, bits: int | None) -> None:
        """Wake who waits for these chunks; None: all, as something else than a chunk changed."""
        if bits is None:
            self._waiters.wake_all()
        else:
            self._waiters.wake(ChunkSet(self._core.geometry.chunk_count, bits))
