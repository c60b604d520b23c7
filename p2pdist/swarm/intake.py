"""Chunks on their way from a link to the disk: checked in batches, off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from p2pdist.errors import StoreError
from p2pdist.exchange.link import Link
from p2pdist.model.ids import RequestId
from p2pdist.process.tasks import TaskOwner
from p2pdist.store.ports import StoredBlob


class Arrival(NamedTuple):
    """An unverified chunk, the link it came by, and the request that it answers."""

    link: Link
    request_id: RequestId
    chunk: int
    data: bytearray


class ChunkIntake:
    """What comes while others are being checked goes with them in the next thread hop.

    Requests bound what can wait here: nothing arrives that was not asked for.
    """

    def __init__(
        self,
        tasks: TaskOwner,
        checked: Callable[[Arrival, bool, bool], None],
        disk_failed: Callable[[StoreError], None],
    ) -> None:
        """`checked` hears of each arrival: whether it was good, and whether it was new."""
        self._tasks = tasks
        self._checked = checked
        self._disk_failed = disk_failed
        self._blob: StoredBlob | None = None
        self._waiting: list[Arrival] = []
        self._busy = False

    def store_in(self, blob: StoredBlob | None) -> None:
        """Check against the map of `blob` and write there; None drops what comes.

        What waits was asked for under another map: it says nothing about this one.
        """
        self._blob = blob
        self._waiting.clear()

    def take(self, arrival: Arrival) -> None:
        self._waiting.append(arrival)
        if not self._busy:
            self._busy = True
            self._tasks.start(self._work(), name="check chunks")

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._check(batch)
        finally:
            self._busy = False

    async def _check(self, batch: list[Arrival]) -> None:
        blob = self._blob
        if blob is None:
            return
        chunk_map = blob.chunk_map
        hash_of = chunk_map.hash_of
        live = [a for a in batch if not a.link.closed and hash_of(a.chunk) is not None]
        fresh = [a.chunk not in blob.verified for a in live]
        try:
            good = await blob.admit_many([(a.chunk, a.data, hash_of(a.chunk) or b"") for a in live])
        except StoreError as error:
            self._disk_failed(error)
            return
        if self._blob is not blob or blob.chunk_map is not chunk_map:
            return
        for arrival, is_good, is_fresh in zip(live, good, fresh, strict=True):
            self._checked(arrival, is_good, is_fresh)
            arrival.link.give_back(arrival.data)
