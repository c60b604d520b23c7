"""Those who read one blob on this host: where each of them is, and what may go out to it."""

from __future__ import annotations

import itertools

from p2pdist.model.chunkset import ChunkSet
from p2pdist.swarm.blob_map import BlobMap
from p2pdist.swarm.bulk import BulkTraffic
from p2pdist.swarm.core import delivery
from p2pdist.swarm.core.fetch_events import ReaderMoved
from p2pdist.swarm.waiters import ChunkWaiters


class BlobReaders:
    """A reader is known by a number; what waits without being one makes nobody hurry."""

    def __init__(self, held: BlobMap, bulk: BulkTraffic) -> None:
        self._held = held
        self._bulk = bulk
        self._ids = itertools.count()
        self._offsets: dict[int, int] = {}
        self._ends: dict[int, int] = {}  # of demand readers: where their ranges end
        self._waiters = ChunkWaiters()
        self._ended = False

    def __bool__(self) -> bool:
        return bool(self._offsets)

    @property
    def ordinary(self) -> bool:
        """Somebody reads it who is no demand reader."""
        return len(self._offsets) > len(self._ends)

    def open(self) -> int:
        return next(self._ids)

    def moved(self, reader: int, offset: int, until: int | None) -> None:
        """It waits for the byte at `offset`; `until`: where the part ends that it demands."""
        self._offsets[reader] = offset
        if until is not None:
            self._ends[reader] = until
        else:
            self._ends.pop(reader, None)

    def close(self, reader: int) -> bool:
        """Return whether it was open."""
        self._ends.pop(reader, None)
        return self._offsets.pop(reader, None) is not None

    def place(self, reader: int) -> ReaderMoved:
        """The chunk that it waits for, and the one after the last that it demands."""
        at, until = self._offsets[reader], self._ends.get(reader)
        chunk = self._held.chunk_at(at)
        if until is None:
            return ReaderMoved(reader, chunk)
        return ReaderMoved(reader, chunk, self._held.chunk_at(until - 1) + 1 if until > at else 0)

    def places(self) -> list[ReaderMoved]:
        """Of all readers."""
        return [self.place(reader) for reader in self._offsets]

    # --- delivery -------------------------------------------------------------------------------

    def deliverable_end(self, offset: int, *, to_end: bool = True) -> int:
        """The end of the bytes that may go out from `offset` on; `offset` itself if none may.

        `to_end`: the body is read to the end of the blob (see `core.delivery`).
        """
        blob, chunk_map = self._held.blob, self._held.map
        if blob is None or chunk_map is None or self._ended:
            return offset
        return delivery.deliverable_end(
            self._held.geometry, blob.verified, offset, sealed=chunk_map.sealed, to_end=to_end
        )

    async def wait_deliverable(self, offset: int, timeout_s: float, *, to_end: bool = True) -> None:
        """Return when more may go out at `offset`, the blob failed, or the time is over; sometimes
        earlier, so that the caller looks again."""
        if not self._ended and self.deliverable_end(offset, to_end=to_end) <= offset:
            with self._bulk.reader_waits():
                await self._waiters.wait(self._held.geometry.chunk_at(offset), timeout_s)

    async def wait_progress(self, timeout_s: float) -> None:
        """Return when the first chunk that lacks comes, the blob failed, or the time is over; who
        waits here makes nobody hurry, unlike a reader."""
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
