"""Brings blobs to a proxy: one search for each, whoever asks and however often.

One proxy of a datacenter reads a blob from outside at a time, the others copy from it (`leasing`);
where it is looked for, and in which order, is decided in `core/sources.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from random import Random
from typing import Final, assert_never
from weakref import WeakKeyDictionary

from p2pdist.errors import P2pdistError, UpstreamError
from p2pdist.model.ids import Digest
from p2pdist.model.statements import Signer
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.registry_proxy.budgets import CallerBudgets
from p2pdist.registry_proxy.core import sources as core
from p2pdist.registry_proxy.core.leasing import Use
from p2pdist.registry_proxy.core.pauses import Pauses
from p2pdist.registry_proxy.ingest import Ingest
from p2pdist.registry_proxy.leasing import OutsideLeases
from p2pdist.registry_proxy.slots import FetchSlots
from p2pdist.registry_proxy.watching import changed, held_chunks, now_s, view_of
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.counters import UPSTREAM
from p2pdist.swarm.fallback import OutsideSource
from p2pdist.swarm.node import Node

log = logging.getLogger(__name__)

FETCHES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a blob comes from, and what it is."""

    names: Sequence[ImageName]
    """Repositories that it is read of, one after the other; one at least."""
    source: OutsideSource
    content: Digest
    """What all of it has to hash to."""
    refuted: Callable[[ImageName, int | None], None]
    """Hears of a name whose claim of a size is wrong, and how long its registry's body is."""
    delivered: Callable[[ImageName], None] = lambda _: None
    introduce: Callable[[float], Awaitable[bool]] | None = None
    """Tell proxies of other datacenters where it lies, with that many seconds for each; False: none
    has it to give. None: there are none to be asked."""
    alone: bool = False
    """No other host may have it: nobody is asked for it, nor for leave to read it."""
    federated: bool = True
    """Other datacenters may have it, too: one of them reads it from its registry."""


class Obtaining:
    """The searches of one proxy."""

    def __init__(
        self,
        node: Node,
        signer: Signer,
        rng: Random,
        *,
        concurrency: Mapping[str, int],
        budgets: CallerBudgets,
    ) -> None:
        """`concurrency`: how many blobs to fetch at a time of an upstream that has a limit.
        `budgets`: what whoever asks may have fetched."""
        self._node = node
        self._signer = signer
        self._rng = rng
        self._budgets = budgets
        self._leases = OutsideLeases(node)
        self._running: dict[Digest, ActiveBlob] = {}
        self._pauses = Pauses()
        self._interruptions: WeakKeyDictionary[ActiveBlob, UpstreamError] = WeakKeyDictionary()
        self._slots = FetchSlots(FETCHES_MAX, concurrency)

    def runs(self, digest: Digest) -> bool:
        """It is being brought."""
        return digest in self._running

    def rests(self, digest: Digest) -> bool:
        """It was found to be wrong of late: nobody's Interest has it read again so soon."""
        return not self._pauses.over(digest, now_s())

    def interruption(self, active: ActiveBlob) -> UpstreamError | None:
        """What its registry said last where a blob in motion has not come."""
        return self._interruptions.get(active)

    def ask(self, active: ActiveBlob) -> float:
        """Take what lacks here of a blob from the budget of whoever asks; return the bytes. Raises
        BudgetSpent."""
        return self._budgets.begin(_missing_bytes(active))

    def start(
        self,
        active: ActiveBlob,
        origin: Origin,
        *,
        paid: float = 0.0,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        """`paid`: bytes, by whoever asked first. `over` is called when the search has ended."""
        self._running[active.digest] = active
        work = self._obtain(active, origin, paid, over)
        self._node.tasks.start(work, name=f"obtain {active.digest[:19]}")

    async def _obtain(
        self, active: ActiveBlob, origin: Origin, paid: float, over: Callable[[], None]
    ) -> None:
        before = active.received.get(UPSTREAM, 0)
        try:
            await self._clear_way(active)
            async with (
                self._slots.held(origin.names[0].upstream),
                self._lease(active, origin) as lease,
            ):
                await self._search(active, origin, lease)
        except P2pdistError as error:
            logs.event(log, logging.ERROR, "obtain.failed", digest=active.digest, error=str(error))
            active.fail(str(error))
        finally:
            del self._running[active.digest]
            self._budgets.came(active.received.get(UPSTREAM, 0) - before - paid)
        over()

    def _lease(self, active: ActiveBlob, origin: Origin) -> AbstractAsyncContextManager[Use]:
        return nullcontext(Use()) if origin.alone else self._leases.held(active)

    async def _search(self, active: ActiveBlob, origin: Origin, lease: Use) -> None:
        """Carry out one `SourcesCore`."""
        search = core.SourcesCore(parents=origin.introduce is not None)
        event: core.Event = core.Leased(lease.fence > 0, lease.holders, view_of(active))
        async with AsyncExitStack() as right:
            while True:
                order = search.handle(event, now_s())
                match order:
                    case core.FollowSwarm():
                        active.turned_to("swarm")
                        active.join()
                        event = core.Looked(view_of(active))
                    case core.Introduce(timeout_s):
                        assert origin.introduce is not None
                        found = await origin.introduce(timeout_s)
                        event = core.Introduced(found, view_of(active))
                    case core.FollowParents():
                        active.turned_to("parents")
                        self._node.fetch(active)
                        event = core.Looked(view_of(active))
                    case core.Wait():
                        await changed(active, search.next_deadline_s())
                        event = core.Looked(view_of(active))
                    case core.AskOrigin():
                        active.turned_to("origin_lease")
                        granted = True
                        if origin.federated:
                            granted = await right.enter_async_context(self._leases.origin(active))
                        event = core.OriginTold(granted, view_of(active))
                    case core.ReadRegistry(alone):
                        await self._ingest(active, origin, alone=alone or origin.alone)
                        event = core.RegistryRead()
                    case core.Stop():
                        return
                    case _:
                        assert_never(order)

    async def _clear_way(self, active: ActiveBlob) -> None:
        """Remove what lies here of an attempt with another size, which was never proven."""
        stored = self._node.store.get(active.digest)
        if stored is not None and stored.geometry != active.geometry:
            await self._node.store.remove(active.digest)

    async def _ingest(self, active: ActiveBlob, origin: Origin, *, alone: bool) -> None:
        ingest = Ingest(
            self._node,
            active,
            self._signer,
            origin.source,
            origin.names,
            self._rng,
            alone=alone,
            content=origin.content,
            refuted=origin.refuted,
            interrupted=lambda error: self._interruptions.update({active: error}),
            delivered=origin.delivered,
        )
        await ingest.run()
        if ingest.disproved:
            self._pauses.disproved(active.digest, now_s())
        elif active.complete:
            self._pauses.proved(active.digest)


def _missing_bytes(active: ActiveBlob) -> float:
    """What is still to come of it, in whole chunks."""
    geometry = active.geometry
    return geometry.size_bytes * (1 - held_chunks(active) / geometry.chunk_count)
