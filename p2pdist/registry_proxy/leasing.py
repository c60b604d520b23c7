"""The proxy's part in leases: who fetches a blob from outside, and whom the others copy from.

A lease spares duplicates, it is no condition of a pull: without a tracker's answer, or where the
holder brings nothing, a proxy goes ahead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from p2pdist.exchange.link import Link
from p2pdist.model.control import LeaseAnswer, SwarmKey, digest_key, origin_key
from p2pdist.model.members import Member
from p2pdist.process import logs
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.node import Node

log = logging.getLogger(__name__)

# Within a datacenter the tracker answers in a millisecond; another one's gets its 0.5 s.
ASK_S: Final = 0.5
ASK_ORIGIN_S: Final = 1.0
# How long a source may bring nothing until the next one is asked (registry contract 3.7: origin
# after 2 s, so that a client still gets its first byte within 5 s).
SOURCE_SILENCE_S: Final = 2.0
POLL_S: Final = 0.1
# A holder that cannot be reached has most likely died, which its tracker knows a moment later.
ASK_AGAIN_S: Final = 0.2
WAIT_MAX_S: Final = 2.0


async def followed(active: ActiveBlob, silence_s: float, source: Link | None = None) -> bool:
    """Return True once a blob is whole or has failed.

    False when nothing came for `silence_s`, or the link to the only `source` is gone.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while not active.complete and active.failure is None:
        await asyncio.sleep(POLL_S)
        silent_s = min(active.idle_s, loop.time() - began_s)
        if silent_s > silence_s or (source is not None and source.closed):
            return active.complete
    return True


@dataclass(frozen=True, slots=True)
class Held:
    """A lease, or the want of one (`fence` 0)."""

    fence: int = 0
    holders: int = 0
    """Hosts of the datacenter that hold some of the blob."""


class OutsideLeases:
    """Asks for leases and, where another proxy has one, copies from it meanwhile."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @asynccontextmanager
    async def held(self, active: ActiveBlob) -> AsyncIterator[Held]:
        """The right of this datacenter to fetch `active` from outside; whole when another did."""
        key = digest_key(active.digest)
        answer = await self._won(active, key, ASK_S)
        try:
            yield Held(answer.fence, answer.holders) if answer is not None else Held()
        finally:
            self._give_back(key, answer)

    @asynccontextmanager
    async def origin(self, active: ActiveBlob) -> AsyncIterator[bool]:
        """The right of all datacenters to read `active` from its registry; False: not granted.

        Whoever had it last is asked before: its datacenter most likely still holds the blob.
        """
        key = origin_key(active.digest)
        answer = await self._won(active, key, ASK_ORIGIN_S)
        try:
            if answer is not None and answer.holder is not None and not active.complete:
                await self._copied(active, answer.holder)
            yield answer is not None and answer.fence > 0
        finally:
            self._give_back(key, answer)

    async def _won(self, active: ActiveBlob, key: SwarmKey, ask_s: float) -> LeaseAnswer | None:
        """Return the grant; None where it is needed no more, or not to be had."""
        loop = asyncio.get_running_loop()
        in_vain_until_s = loop.time() + WAIT_MAX_S
        while not active.complete and active.failure is None:
            answer = await self._node.tracker.lease(key, timeout_s=ask_s)
            if answer is None or answer.fence or answer.holder is None:
                return answer
            before = active.prefix_chunks
            if await self._copied(active, answer.holder):
                return None
            if active.prefix_chunks > before:
                in_vain_until_s = loop.time() + WAIT_MAX_S
            if loop.time() > in_vain_until_s:
                logs.event(log, logging.WARNING, "lease.holder_silent", digest=active.digest)
                return None
            await asyncio.sleep(ASK_AGAIN_S)
        return None

    async def _copied(self, active: ActiveBlob, holder: Member) -> bool:
        """Copy from the proxy that fetches it; False when that stands still or is gone."""
        link = await self._node.follow(active, holder)
        return link is not None and await followed(active, SOURCE_SILENCE_S, link)

    def _give_back(self, key: SwarmKey, answer: LeaseAnswer | None) -> None:
        if answer is not None and answer.fence:
            self._node.tracker.end_lease(key, answer.fence)
