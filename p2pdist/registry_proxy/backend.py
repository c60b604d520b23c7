"""The proxy's `/v2/` backend: everything that peers and hosts without a peer may pull."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, digest_algorithm, digest_of, tag_key
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import BlobSource, Manifest, PullContext, TagPage
from p2pdist.registry_proxy.authority import ProxyAuthority
from p2pdist.registry_proxy.budgets import BudgetSpent, CallerBudgets, unlimited
from p2pdist.registry_proxy.core.verdicts import blob_refusal
from p2pdist.registry_proxy.manifests import ManifestService
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.counters import UPSTREAM
from p2pdist.swarm.fallback import OutsideSource
from p2pdist.swarm.layer_indexes import LayerIndexes
from p2pdist.swarm.node import Node
from p2pdist.swarm.passing import PassingBlob
from p2pdist.swarm.reader import SwarmReader, WholeBlob
from p2pdist.swarm.smalls import SmallAnswer


class ProxyBackend:
    """Implements `RegistryBackend` for a proxy."""

    def __init__(
        self,
        node: Node,
        manifests: ManifestService,
        authority: ProxyAuthority,
        source: OutsideSource,
        budgets: CallerBudgets | None = None,
    ) -> None:
        self._budgets = budgets or unlimited()
        self._node = node
        self._manifests = manifests
        self._authority = authority
        self._source = source
        self._indexes = LayerIndexes(node)

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        found = await self._manifests.manifest(name, reference, context)
        await self._node.smalls.keep(found.digest, SmallAnswer(found.media_type, found.body))
        if found.statement is not None:
            key = tag_key(name.upstream, name.repository, reference)
            await self._node.smalls.keep_statement(key, found.statement)
        return found

    async def blob_size(self, name: ImageName, digest: Digest, context: PullContext) -> int:
        return await self._manifests.blob_size(name, digest)

    async def open_blob(self, name: ImageName, digest: Digest, context: PullContext) -> BlobSource:
        size = await self._manifests.blob_size(name, digest)
        if size == 0 and digest_of(b"", digest_algorithm(digest)) == digest:
            return WholeBlob(digest, b"")
        # Not whole here, and another registry's to give: all of it comes from this one.
        by_itself = self._manifests.access.must_show(name, digest)
        if geometry_for(size).single:
            answer = await self._authority.small_for(name, digest, by_itself=by_itself)
            context.bytes_by_source[answer.source] = len(answer.body)
            return WholeBlob(digest, answer.body)
        if by_itself:
            return self._passing(name, digest, size, context)
        with _budget_told(name):
            active = self._authority.obtain(digest, size, [name])
        if active.geometry.size_bytes != size:
            return self._passing(name, digest, size, context)
        self._node.counters.blob_requests["hit" if active.complete else "origin"] += 1
        return SwarmReader(
            active,
            name,
            context,
            [self._source],
            size_bytes=size,
            used_fallback=self._used_fallback,
            starving=lambda: self._obtain_again(active, [name]),
            interruption=lambda: self._authority.obtaining.interruption(active),
            fallback_when_full_only=True,
        )

    def _passing(
        self, name: ImageName, digest: Digest, size: int, context: PullContext
    ) -> PassingBlob:
        def used(label: str, reason: str, nbytes: int) -> None:
            context.bytes_by_source[label] = context.bytes_by_source.get(label, 0) + nbytes
            self._used_fallback(label, reason, nbytes)

        with _budget_told(name):
            self._budgets.begin()
        return PassingBlob(self._source, name, digest, size, used)

    def _obtain_again(self, active: ActiveBlob, names: list[ImageName]) -> None:
        """Chunks that lay here had rotted: only their bytes are fetched."""
        if active.complete:
            return
        with suppress(BudgetSpent):  # then it comes past the store
            self._authority.obtain(active.digest, active.geometry.size_bytes, names)

    async def tags(self, name: ImageName, query: str, context: PullContext) -> TagPage:
        return await self._manifests.lists.tags(name, query)

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, context: PullContext
    ) -> Manifest:
        return await self._manifests.lists.referrers(name, digest, artifact_type)

    async def layer_index(self, name: ImageName, digest: Digest, context: PullContext) -> Digest:
        await self._manifests.blob_size(name, digest)  # who may have the layer may have its index
        return (await self._indexes.find(digest)).digest

    def _used_fallback(self, label: str, reason: str, nbytes: int) -> None:
        self._node.counters.fallbacks[label] += nbytes
        self._node.counters.fallback_reasons[reason] += nbytes
        self._node.counters.received[UPSTREAM] += nbytes
        self._budgets.came(nbytes)


@contextmanager
def _budget_told(name: ImageName) -> Iterator[None]:
    try:
        yield
    except BudgetSpent as error:
        raise blob_refusal(error, name.upstream) from None
