"""Blobs that only some callers may read, from other hosts: by tickets that proxies give.

Whether a caller may have a blob a proxy has said before, for each request; the ticket is for this
host, and lets it ask others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from p2pdist.errors import PeerFault
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.private_digests import scope_of
from p2pdist.model.statements import Ticket
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.registry.ports import PullContext, speaking_for
from p2pdist.registry.proxy_client import ProxyClient
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core.tickets import TICKET_S_MAX
from p2pdist.swarm.fallback import OutsideSource
from p2pdist.swarm.node import Node
from p2pdist.swarm.reader import SwarmReader
from p2pdist.swarm.sourcing import INTRODUCE_S, BlobFinder

log = logging.getLogger(__name__)

# A proxy gives one that is good for so long at least. Whoever is shown it looks at its end, by a
# clock of its own; this host does without one.
SHOWN_S: Final = TICKET_S_MAX / 2
KNOWN_MAX: Final = 16384


@dataclass(frozen=True, slots=True)
class PrivatePull:
    """One caller's blob of a repository that a proxy says it may read."""

    name: ImageName
    digest: Digest
    size_bytes: int
    context: PullContext


class PrivatePulls:
    """Those of one peer."""

    def __init__(
        self,
        node: Node,
        finder: BlobFinder,
        own_id: Callable[[], HostId],
        *,
        patience_s: float,
    ) -> None:
        self._node = node
        self._finder = finder
        self._own_id = own_id
        self._patience_s = patience_s
        self._private: LRUCache[tuple[ImageName, Digest], Digest] = LRUCache(KNOWN_MAX)
        """What proxies said that hosts know a blob by."""

    def open(
        self, pull: PrivatePull, ticket: tuple[Digest, bytes] | None, outside: OutsideSource
    ) -> SwarmReader | None:
        """Open the blob; None where the ticket is no good, or there is none and the blob does not
        lie here. `outside`: as the caller, for what no host brings."""
        key = pull.name, pull.digest
        if ticket is None:  # the registry itself let the caller
            private = self._private.get(key)
            stored = None if private is None else self._node.store.get(private)
            if private is None or stored is None or not stored.complete:
                return None
        else:
            private = ticket[0]
            if not self._hold(*ticket):
                return None
            self._private[key] = private
        node, size = self._node, pull.size_bytes
        active = node.activate(private, size)
        node.counters.blob_requests["hit" if active.complete else "peer"] += 1
        if not active.complete:
            self._look(pull, active)
        return SwarmReader(
            active,
            pull.name,
            pull.context,
            [outside],
            size_bytes=size,
            content=pull.digest,
            used_fallback=node.fell_back,
            demand_lacks=lambda: self._look(pull, active),
            starving=lambda: self._look(pull, active),
            forsaken=lambda: node.proxy_links.answering.book.all_hang,
            patience_s=self._patience_s,
        )

    def _look(self, pull: PrivatePull, active: ActiveBlob) -> None:
        """Have its owner among the proxies look for it, in the name of the caller, and get a newer
        ticket from it."""

        async def introduce(client: ProxyClient) -> None:
            with speaking_for(pull.name.upstream, pull.context.caller):
                told = await client.ask_ticket(pull.name, pull.digest, timeout_s=INTRODUCE_S)
            if told.ticket is not None:
                self._hold(*told.ticket)

        self._finder.look_by(active, introduce)

    def _hold(self, private: Digest, record: bytes) -> bool:
        """Keep a ticket to show; False for one that is none for this host and blob."""
        try:
            said = self._node.records.open(record)
        except PeerFault as fault:
            logs.event(log, logging.WARNING, "ticket.refused", error=str(fault))
            return False
        scope = scope_of(private)
        if not isinstance(said, Ticket) or said.scope != scope or said.host_id != self._own_id():
            logs.event(log, logging.WARNING, "ticket.refused", error="it is not for this host")
            return False
        now_s = asyncio.get_running_loop().time()
        self._node.core.tickets.hold(scope, record, now_s + SHOWN_S)
        return True
