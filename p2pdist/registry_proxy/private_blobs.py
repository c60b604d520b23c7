"""Blobs that only some callers may read, in the swarm all the same.

Hosts know each by a private digest. A host with a certificate gets a ticket for the repository
where the registry let one of its callers read it, and takes the blob from whoever has it, by that;
what nobody has a proxy reads with the credentials of somebody who was let.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from cachetools import LRUCache, TTLCache

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.private_digests import Scope, scope_of
from p2pdist.model.statements import Signer, Ticket
from p2pdist.oci.callers import Caller
from p2pdist.oci.names import ImageName
from p2pdist.process.metrics import Sample
from p2pdist.registry_proxy.budgets import BudgetSpent
from p2pdist.registry_proxy.obtaining import Obtaining, Origin
from p2pdist.registry_proxy.private_names import PrivateNames
from p2pdist.registry_proxy.watching import now_s
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core.tickets import TICKET_S_MAX
from p2pdist.swarm.fallback import OutsideBody, OutsideSource
from p2pdist.swarm.node import Node
from p2pdist.swarm.outside import AsCaller

# A host that asks for many blobs of one repository shows the same ticket for all of them.
TICKET_KEPT_S: Final = TICKET_S_MAX / 2
TICKETS_MAX: Final = 4096
# What is forgotten is known again once somebody asks for it, as every host does first, and again
# where nothing comes. Credentials are kept no longer than that.
KNOWN_MAX: Final = 16384
KNOWN_S: Final = 600.0
# Any of them may lose its right while a blob is read.
CALLERS_MAX: Final = 4

_KEY: Final = "private digests"
_REFUSED: Final = frozenset({ErrorReason.CREDENTIALS, ErrorReason.DENIED})


class _Known:
    """What a private digest stands for, and who was let read it, the last one first."""

    def __init__(self, name: ImageName, digest: Digest, size_bytes: int) -> None:
        self.name = name
        self.digest = digest
        self.size_bytes = size_bytes
        self.callers: list[Caller] = []

    def let(self, caller: Caller) -> None:
        others = [known for known in self.callers if known != caller]
        self.callers = [caller, *others][:CALLERS_MAX]

    def lost(self, caller: Caller) -> None:
        """The registry does not let it any more; the last one is kept, to be refused again."""
        self.callers = [known for known in self.callers if known != caller] or self.callers


class PrivateBlobs:
    """Those of one proxy."""

    def __init__(
        self,
        node: Node,
        signer: Signer,
        obtaining: Obtaining,
        source: OutsideSource,
        *,
        own_id: Callable[[], HostId],
        proved: Callable[[], bool],
        unix_s: Callable[[], float],
    ) -> None:
        """`source`: registries, to be asked as a caller. `proved`: this host has a certificate, and
        so links over which it may give and take what is private. `unix_s`: the wall clock that
        tickets end by."""
        self.refuted: Callable[[ImageName, Digest, int, int | None], None] = lambda *_: None
        """Hears of a size that was said of a blob and is wrong, and of the right one, if any."""
        self._node = node
        self._signer = signer
        self._obtaining = obtaining
        self._source = source
        self._own_id = own_id
        self._proved = proved
        self._unix_s = unix_s
        self._known: TTLCache[Digest, _Known] = TTLCache(KNOWN_MAX, KNOWN_S, now_s)
        self._sweep: asyncio.TimerHandle | None = None
        self.tickets_signed = 0
        self._tickets: LRUCache[tuple[Scope, HostId], tuple[bytes, float]] = LRUCache(TICKETS_MAX)

    def known_as(self, name: ImageName, digest: Digest) -> Digest:
        """What hosts know a blob of this repository by, until the proxies have another key."""
        return PrivateNames(self._signer.derived(_KEY)).digest(name, digest)

    def size_of(self, name: ImageName, digest: Digest) -> int | None:
        """The size of a blob that lies here whole."""
        stored = self._node.store.get(self.known_as(name, digest))
        whole = stored is not None and stored.complete and stored.chunk_map.sealed
        return stored.geometry.size_bytes if stored is not None and whole else None

    def introduce(self, name: ImageName, digest: Digest, size_bytes: int, caller: Caller) -> Digest:
        """The registry lets `caller` read a blob, which has several chunks, of this repository: it
        may be asked for by the private digest that is returned."""
        private = self.known_as(name, digest)
        known = self._known.get(private)
        if known is None or known.size_bytes != size_bytes:
            known = _Known(name, digest, size_bytes)
        known.let(caller)
        self._known[private] = known
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KNOWN_S, self._forget)
        return private

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()

    def _forget(self) -> None:
        """What nobody asked for of late is dropped also where nobody asks for anything."""
        self._known.expire()
        again = bool(self._known)
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(KNOWN_S / 10, self._forget) if again else None

    def ticket(self, private: Digest, host: HostId) -> bytes:
        """Return the record that lets `host` have blobs of the repository of `private`."""
        scope, now_unix_s = scope_of(private), self._unix_s()
        record, until_s = self._tickets.get((scope, host), (b"", 0.0))
        if not now_unix_s < until_s <= now_unix_s + TICKET_KEPT_S:
            ends_s = int(now_unix_s + TICKET_S_MAX)
            record = self._signer.sign(Ticket(scope, host, ends_s))
            self.tickets_signed += 1
            self._tickets[scope, host] = record, now_unix_s + TICKET_KEPT_S
        return record

    def samples(self) -> Iterator[Sample]:
        yield Sample(
            "p2pdist_tickets_signed_total", "counter",
            "Tickets signed for hosts, by which others give them what only some may read.",
            {}, self.tickets_signed,
        )  # fmt: skip

    def obtain(self, private: Digest) -> ActiveBlob:
        """Return a blob that was introduced in motion; it is fetched if it is not whole. It has
        another size than was said where that is proven. Raises BudgetSpent."""
        known = self._known[private]
        active = self._taken_up(private, known)
        if not active.complete and not self._obtaining.runs(private):
            paid = self._obtaining.ask(active)
            self._show_own(private)
            self._obtaining.start(active, self._origin(private, known), paid=paid)
        return active

    def wanted(self, private: Digest) -> None:
        """A host that may have it asks for a blob that is not whole here."""
        if private not in self._known or self._obtaining.runs(private):
            return
        if not self._obtaining.rests(private):
            try:
                self.obtain(private)
            except BudgetSpent:  # who asked goes to the registry itself, or asks again
                return

    def interruption(self, active: ActiveBlob) -> UpstreamError | None:
        """What its registry said last where a blob in motion has not come."""
        return self._obtaining.interruption(active)

    def _taken_up(self, private: Digest, known: _Known) -> ActiveBlob:
        active = self._node.actives.get(private)
        if active is not None and not self._obtaining.runs(private):
            proven = active.map is not None and active.map.sealed
            if active.geometry.size_bytes != known.size_bytes and not proven:
                self._node.give_up(active, f"claimed to have {known.size_bytes} bytes")
        return self._node.activate(private, known.size_bytes)

    def _show_own(self, private: Digest) -> None:
        """Other proxies, and peers that have it, want to see a ticket of us too."""
        record = self.ticket(private, self._own_id())
        self._node.core.tickets.hold(scope_of(private), record, now_s() + TICKET_KEPT_S)

    def _origin(self, private: Digest, known: _Known) -> Origin:
        def refuted(name: ImageName, actual_bytes: int | None) -> None:
            self._known.pop(private, None)
            self.refuted(name, known.digest, known.size_bytes, actual_bytes)

        return Origin(
            [known.name],
            _AsOneOf(self._source, known),
            known.digest,
            refuted=refuted,
            alone=not self._proved(),
            federated=False,
        )


class _AsOneOf:
    """A registry's blob, read with the credentials of one of those who were let; implements
    `OutsideSource`, whatever digest it is asked for."""

    def __init__(self, source: OutsideSource, known: _Known) -> None:
        self.label: Final = source.label
        self._source = source
        self._known = known

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[OutsideBody]:
        async with AsyncExitStack() as stack:
            yield await self._opened(stack, start)

    async def _opened(self, stack: AsyncExitStack, start: int) -> OutsideBody:
        known = self._known
        refused: UpstreamError | None = None
        for caller in list(known.callers):
            source = AsCaller(self._source, caller)
            opening = source.open_blob(known.name, known.digest, start=start)
            try:
                return await stack.enter_async_context(opening)
            except UpstreamError as error:
                if error.reason not in _REFUSED:
                    raise
                refused = error
                known.lost(caller)
        assert refused is not None, "one of them is kept"
        raise refused
