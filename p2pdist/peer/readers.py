"""Those who read one blob on this host: where each of them is, and what may go out to it."""

from __future__ import annotations

import itertools

from p2pdist.model.chunkset import ChunkSet
from p2pdist.peer.blob_map import BlobMap
from p2pdist.peer.bulk import BulkTraffic
from p2pdist.peer.core import delivery
from p2pdist.peer.waiters import ChunkWaiters


class BlobReaders:
    """A reader is known by a number; what waits without being one makes nobody hurry."""

    def __init__(self, held: BlobMap, bulk: BulkTraffic) -> None:
        self._held = held
        self._bulk = bulk
        self._ids = itertools.count()
        self._offsets: dict[int, int] = {}
        self._waiters = ChunkWaiters()
        self._ended = False

    def __bool__(self) -> bool:
        return bool(self._offsets)

    def open(self) -> int:
        reader = next(self._ids)
        self._offsets[reader] = 0
        return reader

    def moved(self, reader: int, offset: int) -> None:
        self._offsets[reader] = offset

    def close(self, reader: int) -> bool:
        """Return whether it was open."""
        return self._offsets.pop(reader, None) is not None

    def places(self) -> list[tuple[int, int]]:
        """Each reader and the chunk that it waits for."""
        return [(reader, self._held.chunk_at(at)) for reader, at in self._offsets.items()]

    # --- delivery -------------------------------------------------------------------------------

    def deliverable_end(self, offset: int, *, to_end: bool) -> int:
        """See `core.delivery`."""
        blob, chunk_map = self._held.blob, self._held.map
        if blob is None or chunk_map is None or self._ended:
            return offset
        return delivery.deliverable_end(
            self._held.geometry, blob.verified, offset, sealed=chunk_map.sealed, to_end=to_end
        )

    async def wait_deliverable(self, offset: int, timeout_s: float, *, to_end: bool) -> None:
        """Return when more may go out at `offset`, the blob failed, or the time is over; sometimes
        earlier, so that the caller looks again."""
        if not self._ended and self.deliverable_end(offset, to_end=to_end) <= offset:
            with self._bulk.reader_waits():
                await self._waiters.wait(self._held.geometry.chunk_at(offset), timeout_s)

    async def wait_progress(self, timeout_s: float) -> None:
        """Return when the first chunk that lacks comes, the blob failed, or the time is over."""
        held = self._held
        if not held.complete and not self._ended:
            chunk = min(held.prefix_chunks, held.geometry.chunk_count - 1)
            await self._waiters.wait(chunk, timeout_s)

    def landed(self, bits: int) -> None:
        """Wake who waits for these chunks."""
        self._waiters.wake(ChunkSet(self._held.geometry.chunk_count, bits))

    def look_again(self) -> None:
        """Wake all: something else than a chunk changed."""
        self._waiters.wake_all()

    def end_short(self) -> None:
        """Nothing more goes out to anybody."""
        self._ended = True
        self._waiters.wake_all()
