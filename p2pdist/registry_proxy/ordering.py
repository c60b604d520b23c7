"""How a proxy gets the parts of an image that it was ordered to have."""

from __future__ import annotations

from p2pdist.model.bucket import TokenBucket
from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import PullContext
from p2pdist.registry_proxy.authority import ProxyAuthority
from p2pdist.registry_proxy.backend import ProxyBackend
from p2pdist.swarm.active import ActiveBlob


class ProxyOrderSource:
    """Implements `OrderSource`: from outside of the datacenter, where nobody in it has it."""

    def __init__(self, backend: ProxyBackend, authority: ProxyAuthority) -> None:
        self._backend = backend
        self._authority = authority

    async def manifest(self, name: ImageName, reference: str) -> None:
        """It is announced as well, and the tag: whoever waits for this host counts both."""
        await self._backend.manifest(name, reference, PullContext("prewarm"))

    async def small(self, name: ImageName, digest: Digest, size: int) -> None:
        await self._authority.small_for(name, digest)

    def begin(
        self, name: ImageName, digest: Digest, size: int, budget: TokenBucket | None
    ) -> ActiveBlob:
        return self._authority.obtain(digest, size, [name], budget, bulk=True)

    def look(self, name: ImageName, active: ActiveBlob) -> None:
        """Fetch it anew where that has come to an end without it."""
        self._authority.wanted(active.digest, bulk=True)
