"""How a peer gets the parts of an image that it was ordered to have."""

from __future__ import annotations

from p2pdist.model.bucket import TokenBucket
from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.peer.manifests import ManifestBook
from p2pdist.registry.ports import PullContext
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.node import Node
from p2pdist.swarm.sourcing import BlobFinder
from p2pdist.swarm.vain import InVain


class PeerSource:
    """Implements `OrderSource`: from the swarm, and from the proxies that bring what it lacks."""

    def __init__(self, node: Node, book: ManifestBook, finder: BlobFinder) -> None:
        self._node = node
        self._book = book
        self._finder = finder

    async def manifest(self, name: ImageName, reference: str) -> None:
        await self._book.manifest(name, reference, PullContext("prewarm"))

    async def small(self, name: ImageName, digest: Digest, size: int) -> None:
        found = await self._finder.small(name, digest, size)
        if isinstance(found, InVain):
            raise found.refusal()

    def begin(
        self, name: ImageName, digest: Digest, size: int, budget: TokenBucket | None
    ) -> ActiveBlob:
        active = self._node.activate(digest, size)
        self._node.fetch_bulk(active, budget)
        return active

    def look(self, name: ImageName, active: ActiveBlob) -> None:
        self._finder.look(name, active)
