"""Brings blobs of a named repository to this peer: introductions to proxies, and what is small.

A proxy looks only for blobs of repositories that it was told of: names travel over `/v2/`, never
over the exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from p2pdist.errors import UpstreamError
from p2pdist.exchange.link import Link
from p2pdist.model.ids import Digest, digest_algorithm, digest_of
from p2pdist.oci.names import ImageName
from p2pdist.process.single_flight import SingleFlight
from p2pdist.registry.proxy_client import ProxyClient
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.answering import Answering
from p2pdist.swarm.counters import PROXY
from p2pdist.swarm.node import Node
from p2pdist.swarm.smalls import SmallAnswer
from p2pdist.swarm.vain import InVain

INTRODUCE_S: Final = 3.0
# The second proxy is asked soon, as the first may just have died; a fleet that starves must not
# become a herd of its proxies.
LOOK_PAUSE_FIRST_S: Final = 0.5
LOOK_PAUSE_MAX_S: Final = 8.0


@dataclass(slots=True)
class _Search:
    """Which proxies were asked to look for a blob, and when the next one may be."""

    tried: set[str] = field(default_factory=set)
    running: bool = False
    not_before_s: float = 0.0
    pause_s: float = LOOK_PAUSE_FIRST_S


class BlobFinder:
    """One per peer: the mirror and prewarm orders share its searches."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._smalls: SingleFlight[tuple[ImageName, Digest], SmallAnswer | InVain] = SingleFlight()
        self._searches: WeakKeyDictionary[ActiveBlob, _Search] = WeakKeyDictionary()
        """Of the blobs in motion."""

    def look(self, name: ImageName, active: ActiveBlob) -> None:
        """Have a proxy look for a blob: its owner first, another one each time that is in vain."""

        async def introduce(client: ProxyClient) -> None:
            await client.introduce(name, active.digest, timeout_s=INTRODUCE_S)

        self.look_by(active, introduce)

    def look_by(
        self, active: ActiveBlob, introduce: Callable[[ProxyClient], Awaitable[None]]
    ) -> None:
        """The same, where `introduce` tells a proxy in which repository the blob lies."""
        self._node.fetch(active)
        search = self._searches.setdefault(active, _Search())
        now_s = asyncio.get_running_loop().time()
        if not search.running and now_s >= search.not_before_s:
            search.running = True
            search.not_before_s = now_s + search.pause_s
            search.pause_s = min(2 * search.pause_s, LOOK_PAUSE_MAX_S)
            look = self._introduce_next(active, search, introduce)
            self._node.tasks.start(look, name=f"introduce {active.digest[:19]}")

    async def _introduce_next(
        self,
        active: ActiveBlob,
        search: _Search,
        introduce: Callable[[ProxyClient], Awaitable[None]],
    ) -> None:
        """Tell a proxy in which repository a blob lies, so that it may look for it; then ask it."""
        try:
            clients = await self._node.proxy_links.clients(active.digest)
            fresh = [client for client in clients if client.base_url not in search.tried]
            if not fresh:
                search.tried.clear()

            async def reached(client: ProxyClient) -> Link | None:
                search.tried.add(client.base_url)
                await introduce(client)
                return await self._node.proxy_links.reach(client)

            link = await self._answering.first_of(fresh or clients, reached, direct=False)
            if link is not None:
                active.attach(link)
        finally:
            search.running = False

    async def size_at_a_proxy(
        self,
        name: ImageName,
        digest: Digest,
        *,
        direct: bool,
        heard: Callable[[UpstreamError], None],
    ) -> int | None:
        """Tell a proxy where a blob lies; return the size that it tells, None if none does.

        `direct`: there is a source beside the proxies. `heard` is told why one did not, and may
        raise RegistryError.
        """

        async def introduced(client: ProxyClient) -> int:
            try:
                return await client.introduce(name, digest, timeout_s=INTRODUCE_S)
            except UpstreamError as error:
                heard(error)
                raise

        clients = await self._node.proxy_links.clients(digest)
        return await self._answering.first_of(clients, introduced, direct=direct)

    @property
    def _answering(self) -> Answering:
        return self._node.proxy_links.answering

    # --- blobs of one chunk ---------------------------------------------------------------------

    async def small(self, name: ImageName, digest: Digest, size: int) -> SmallAnswer | InVain:
        """Return a whole small blob from the store, a proxy or the swarm, or why not."""
        if size == 0 and digest_of(b"", digest_algorithm(digest)) == digest:
            return SmallAnswer("", b"")
        return await self._smalls.run((name, digest), lambda: self._small(name, digest))

    async def _small(self, name: ImageName, digest: Digest) -> SmallAnswer | InVain:
        vain = InVain(name, digest)
        if not self._node.store.has_small(digest):
            await self.size_at_a_proxy(
                name, digest, direct=True, heard=lambda error: vain.heard(PROXY, error)
            )
        return await self._node.smalls.fetch(digest) or vain
