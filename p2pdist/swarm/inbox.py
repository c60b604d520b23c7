"""What is said about one blob, taken in in its order: a head may have to wait for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from p2pdist.errors import PeerFault, StoreError
from p2pdist.exchange.frames import Offer, Retract
from p2pdist.exchange.link import Link
from p2pdist.model.ids import Digest
from p2pdist.process.tasks import TaskOwner
from p2pdist.swarm.blob_map import MapStatement
from p2pdist.swarm.core.fair_queue import FairQueue

# A map of 4,096 chunks is 66 records; 32 neighbours may all have sent theirs before we read one.
INBOX_MAX: Final = 4096

Heard = MapStatement | Offer | Retract


class Inbox:
    """A bounded queue with one worker; the link that fills it is closed."""

    def __init__(
        self,
        tasks: TaskOwner,
        digest: Digest,
        *,
        take: Callable[[Link | None, MapStatement, bytes], Awaitable[None]],
        take_offer: Callable[[Link, Offer | Retract], None],
        punish: Callable[[Link, PeerFault], None],
        disk_failed: Callable[[StoreError], None],
        configured: Callable[[Link], bool],
    ) -> None:
        """`configured`: the other end is a proxy of our settings, which leaves last."""
        self._take = take
        self._take_offer = take_offer
        self._punish = punish
        self._disk_failed = disk_failed
        self._configured = configured
        self._queue: FairQueue[Link, tuple[Heard, bytes]] = FairQueue(INBOX_MAX)
        self._filled = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._worker = tasks.start(self._work(), name=f"statements {digest[:19]}")

    def hear(self, link: Link | None, statement: Heard, record: bytes) -> None:
        """Take in what `link` said (None: our own ingest), now or in its turn."""
        if isinstance(statement, Offer) and link is not None and self.settled:
            # By far the most frequent one, and never waits for the disk: it needs no task.
            try:
                self._take_offer(link, statement)
            except PeerFault as fault:
                self._punish(link, fault)
            return
        sheltered = link is not None and self._configured(link)
        loudest = self._queue.put(link, (statement, record), sheltered=sheltered)
        self._settled.clear()
        self._filled.set()
        if loudest is not None:
            loudest.close("says more about a blob than we can take in")

    @property
    def settled(self) -> bool:
        """All that was put so far has been taken in."""
        return self._settled.is_set()

    async def settle(self) -> None:
        """Return when all that was put so far has been taken in."""
        await self._settled.wait()

    def end(self) -> None:
        self._worker.cancel()

    async def _work(self) -> None:
        while True:
            await self._filled.wait()
            while self._queue:
                link, (statement, record) = self._queue.pop()
                try:
                    await self._take_in(link, statement, record)
                except PeerFault as fault:
                    if link is not None:
                        self._punish(link, fault)
                except StoreError as error:
                    self._disk_failed(error)
            self._filled.clear()
            self._settled.set()

    async def _take_in(self, link: Link | None, statement: Heard, record: bytes) -> None:
        if not isinstance(statement, Offer | Retract):
            await self._take(link, statement, record)
        elif link is not None:
            self._take_offer(link, statement)
