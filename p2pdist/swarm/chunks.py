"""The chunks of one blob on this host: those that come in, and those that lie here already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from p2pdist.errors import StoreError
from p2pdist.exchange.link import Link
from p2pdist.process import logs
from p2pdist.store.ports import StoredBlob
from p2pdist.swarm.blob_file import BlobFile
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.counters import source_of
from p2pdist.swarm.intake import Arrival, ChunkIntake
from p2pdist.swarm.ports import NodePorts

log = logging.getLogger(__name__)


class BlobChunks:
    """Counts what was checked, and finds out what has rotted."""

    def __init__(
        self,
        node: NodePorts,
        core: BlobCore,
        held: BlobFile,
        *,
        arrived: Callable[[Arrival, bool], None],
        rotted: Callable[[int], None],
        disk_failed: Callable[[StoreError], None],
    ) -> None:
        """`arrived` hears of each chunk that was checked and whether it was good, `rotted` of those
        that are not here any more."""
        self.received: dict[str, int] = {}
        """Verified payload by source, for the pull's log line."""
        self._node = node
        self._core = core
        self._held = held
        self._arrived = arrived
        self._rotted = rotted
        self._intake = ChunkIntake(node.tasks, self._checked, disk_failed)
        self.take = self._intake.take
        """Have an arrival checked and stored, off the loop."""
        self.store_in = self._intake.store_in

    def _checked(self, arrival: Arrival, good: bool, fresh: bool) -> None:
        if good and fresh:
            self._count(arrival.link, len(arrival.data))
        else:
            self._node.counters.wasted_bytes += len(arrival.data)
        self._arrived(arrival, good)

    def _count(self, link: Link, nbytes: int) -> None:
        source = source_of(link.session.member, self._node.place)
        self._node.counters.received[source] += nbytes
        self.received[source] = self.received.get(source, 0) + nbytes
        self._core.bulk.received(nbytes)
        if self._node.is_proxy and not self._core.bulk:
            self._node.core.urgent_bytes(asyncio.get_running_loop().time())

    # --- what lies here -------------------------------------------------------------------------

    async def checked(self, start: int, stop: int) -> bool:
        """Bytes `start` to `stop` may go out: what an earlier run left is hashed the first time.

        False: some of it had rotted and is wanted again.
        """
        blob, geometry = self._held.blob, self._core.geometry
        assert blob is not None
        first, end = geometry.chunk_at(start), geometry.chunk_at(stop - 1) + 1
        if not blob.unchecked(first, end):
            return True
        lost = await blob.check(first, end)
        self.lost(lost)
        return not lost

    async def rehashed(self, start: int, stop: int) -> None:
        """Hash what lies here of bytes `start` to `stop` again, whenever that was done last: who
        read it says that it is wrong. What is, is wanted again. Raises StoreError."""
        blob, geometry = self._held.blob, self._core.geometry
        if blob is not None:
            first, end = geometry.chunk_at(start), geometry.chunk_at(stop - 1) + 1
            self.lost(await blob.scrub(first, end))

    def lost(self, chunks: Sequence[int]) -> None:
        """These chunks rotted on disk: nobody gets them from here until they came anew."""
        if not chunks:
            return
        self._node.counters.rejected["rot"] += len(chunks)
        logs.event(
            log, logging.WARNING, "chunk.rotted", digest=self._core.digest, chunks=len(chunks)
        )
        self._rotted(sum(1 << chunk for chunk in chunks))

    def sync_soon(self) -> None:
        """Spare the next boot the hashing; nobody waits for the disk meanwhile."""
        if self._held.blob is not None and not self._held.blob.synced:
            self._node.tasks.start(_sync(self._held.blob), name=f"sync {self._core.digest[:19]}")


async def _sync(blob: StoredBlob) -> None:
    blob.hold()
    try:
        await blob.sync()
    except StoreError as error:
        logs.event(log, logging.WARNING, "sync.failed", digest=blob.digest, error=str(error))
    finally:
        blob.release()
