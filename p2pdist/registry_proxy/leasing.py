"""The proxy's part in leases: who fetches a blob from outside, and whom the others copy from.

What is asked, waited for and given back is decided in `core/leasing.py`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import assert_never

from p2pdist.exchange.link import Link
from p2pdist.model.control import SwarmKey, digest_key, origin_key
from p2pdist.process import logs
from p2pdist.registry_proxy.core import leasing as core
from p2pdist.registry_proxy.watching import changed, now_s, view_of
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.node import Node

log = logging.getLogger(__name__)


class OutsideLeases:
    """Asks for leases and, where another proxy has one, copies from it meanwhile."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @asynccontextmanager
    async def held(self, active: ActiveBlob) -> AsyncIterator[core.Use]:
        """The right of this datacenter to fetch `active` from outside; whole when another did."""
        lease = _Lease(self._node, active, digest_key(active.digest), core.Kind.DATACENTER)
        async with lease.used() as use:
            yield use

    @asynccontextmanager
    async def origin(self, active: ActiveBlob) -> AsyncIterator[bool]:
        """The right of all datacenters to read `active` from its registry; False: not granted.

        Whoever had it last is asked before: its datacenter most likely still holds the blob.
        """
        lease = _Lease(self._node, active, origin_key(active.digest), core.Kind.ORIGIN)
        async with lease.used() as use:
            yield use.fence > 0


class _Lease:
    """Carries out one `LeaseCore`."""

    def __init__(self, node: Node, active: ActiveBlob, key: SwarmKey, kind: core.Kind) -> None:
        self._node = node
        self._active = active
        self._key = key
        self._core = core.LeaseCore(kind)
        self._link: Link | None = None
        """To the holder that is copied from."""

    @asynccontextmanager
    async def used(self) -> AsyncIterator[core.Use]:
        try:
            yield await self._got()
        finally:
            if (fence := self._core.end()) is not None:
                self._node.tracker.end_lease(self._key, fence)

    async def _got(self) -> core.Use:
        event: core.Event = core.Started(view_of(self._active))
        while True:
            order = self._core.handle(event, now_s())
            match order:
                case core.Ask(timeout_s):
                    answer = await self._node.tracker.lease(self._key, timeout_s=timeout_s)
                    event = core.Answered(answer, view_of(self._active))
                case core.Copy(holder):
                    self._link = await self._node.follow(self._active, holder)
                    reached = core.NotReached if self._link is None else core.Reached
                    event = reached(view_of(self._active))
                case core.Wait():
                    event = await self._looked()
                case core.Use():
                    if order.holder_silent:
                        digest = self._active.digest
                        logs.event(log, logging.WARNING, "lease.holder_silent", digest=digest)
                    return order
                case _:
                    assert_never(order)

    async def _looked(self) -> core.Looked:
        copies = self._core.phase is core.Phase.COPYING
        link = self._link if copies else None
        await changed(self._active, self._core.next_deadline_s(), link)
        gone = link is not None and link.closed
        return core.Looked(view_of(self._active), source_gone=gone)
