"""One `/v2/` surface over two backends, by the registry that is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import BlobSource, Manifest, PullContext, RegistryBackend, TagPage


class BackendByRegistry:
    """Implements `RegistryBackend`: for those that decide by their callers, and for the others."""

    def __init__(
        self,
        ordinary: RegistryBackend,
        by_caller: RegistryBackend,
        decides: Callable[[str], Awaitable[bool]],
    ) -> None:
        """`decides`: whether a registry does so by its callers."""
        self._ordinary = ordinary
        self._by_caller = by_caller
        self._decides = decides

    async def _of(self, name: ImageName) -> RegistryBackend:
        return self._by_caller if await self._decides(name.upstream) else self._ordinary

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        return await (await self._of(name)).manifest(name, reference, context)

    async def blob_size(self, name: ImageName, digest: Digest, context: PullContext) -> int:
        return await (await self._of(name)).blob_size(name, digest, context)

    async def open_blob(self, name: ImageName, digest: Digest, context: PullContext) -> BlobSource:
        return await (await self._of(name)).open_blob(name, digest, context)

    async def tags(self, name: ImageName, query: str, context: PullContext) -> TagPage:
        return await (await self._of(name)).tags(name, query, context)

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, context: PullContext
    ) -> Manifest:
        return await (await self._of(name)).referrers(name, digest, artifact_type, context)

    async def layer_index(self, name: ImageName, digest: Digest, context: PullContext) -> Digest:
        return await (await self._of(name)).layer_index(name, digest, context)
