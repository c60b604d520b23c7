"""What a proxy serves of registries that decide by the credentials of each caller.

Nothing of it gets from one repository into another: each has its manifests, links and blobs for
itself, and who asks has to be let by the registry, now or within the last minute. Content is read
with the credentials of a caller. Blobs of several chunks lie among those that hosts exchange, under
names of their own (`private_blobs`); what is smaller is kept in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from cachetools import LRUCache

from p2pdist.errors import ErrorReason, RegistryError, UpstreamError
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, TagKey, digest_algorithm, digest_of
from p2pdist.oci.callers import Caller
from p2pdist.oci.names import ImageName
from p2pdist.process.single_flight import SingleFlight
from p2pdist.process.tasks import TaskOwner
from p2pdist.registry.ports import (
    CACHE,
    BlobSource,
    Manifest,
    PullContext,
    TagPage,
    speaking_for,
)
from p2pdist.registry_proxy.budgets import BudgetSpent, CallerBudgets
from p2pdist.registry_proxy.caller_gate import CallerGate
from p2pdist.registry_proxy.core.verdicts import blob_refusal
from p2pdist.registry_proxy.manifests import ManifestService
from p2pdist.registry_proxy.private_blobs import PrivateBlobs
from p2pdist.swarm.counters import UPSTREAM
from p2pdist.swarm.fallback import OutsideSource
from p2pdist.swarm.node import Node
from p2pdist.swarm.outside import AsCaller, NotSmall, read_single
from p2pdist.swarm.passing import PassingBlob
from p2pdist.swarm.reader import SwarmReader, WholeBlob

# What is forgotten is asked for anew.
REPOSITORIES_MAX: Final = 1024
SMALLS_BYTES_MAX: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class _Small:
    media_type: str
    body: bytes


class Smalls:
    """Manifests, or blobs of one chunk, of all repositories in memory, each for its own alone."""

    def __init__(self, max_bytes: int = SMALLS_BYTES_MAX) -> None:
        self._kept: LRUCache[tuple[ImageName, Digest], _Small] = LRUCache(
            max_bytes, getsizeof=lambda small: len(small.body) + 512
        )

    def of(self, name: ImageName) -> SmallsOf:
        return SmallsOf(name, self._kept)


class SmallsOf:
    """Implements the `SmallStore` of one repository."""

    def __init__(self, name: ImageName, kept: LRUCache[tuple[ImageName, Digest], _Small]) -> None:
        self._name = name
        self._kept = kept

    async def get_small(self, digest: Digest) -> _Small | None:
        return self._kept.get((self._name, digest))

    async def put_small(self, digest: Digest, body: bytes, media_type: str = "") -> None:
        self._kept[self._name, digest] = _Small(media_type, body)

    async def get_statement(self, key: TagKey) -> bytes | None:
        return None


class CallerBackend:
    """Implements `RegistryBackend`."""

    def __init__(
        self,
        gate: CallerGate,
        service_of: Callable[[ImageName, SmallsOf], ManifestService],
        private: PrivateBlobs,
        node: Node,
        source: OutsideSource,
        used: Callable[[str, int], None],
        budgets: CallerBudgets,
    ) -> None:
        """`service_of`: makes what answers for the manifests of one repository, from its own store
        and its registry. `used` hears where bytes of blobs came from."""
        self._gate = gate
        self._service_of = service_of
        self._private = private
        private.refuted = self._refuted
        self._node = node
        self._source = source
        self._used = used
        self._budgets = budgets
        self._smalls = Smalls()
        self._small_blobs = Smalls()
        self._flights: SingleFlight[tuple[ImageName, Digest, Caller], bytes] = SingleFlight("small")
        self._services: LRUCache[ImageName, ManifestService] = LRUCache(REPOSITORIES_MAX)
        self._tasks = TaskOwner("callers")

    async def close(self) -> None:
        for service in list(self._services.values()):
            await service.close()
        await self._tasks.close()
        await self._flights.close()
        self._private.close()
        await self._gate.close()

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        warning = await self._gate.admit(name, context.caller, ("manifests", reference))
        async with self._as_caller(name, context) as service:
            found = await service.manifest(name, reference, context)
        return replace(found, stale=found.stale or warning)

    async def blob_size(self, name: ImageName, digest: Digest, context: PullContext) -> int:
        await self._gate.admit(name, context.caller, ("blobs", digest))
        size = await self._size(name, digest, context)
        if context.ticket_for is not None and not geometry_for(size).single:
            private = self._private.introduce(name, digest, size, context.caller)
            context.ticket = private, self._private.ticket(private, context.ticket_for)
        return size

    async def open_blob(self, name: ImageName, digest: Digest, context: PullContext) -> BlobSource:
        await self._gate.admit(name, context.caller, ("blobs", digest))
        size = await self._size(name, digest, context)
        if size == 0 and digest_of(b"", digest_algorithm(digest)) == digest:
            return WholeBlob(digest, b"")
        if not geometry_for(size).single:
            return self._open_large(name, digest, size, context)
        return WholeBlob(digest, await self._small(name, digest, context))

    async def _small(self, name: ImageName, digest: Digest, context: PullContext) -> bytes:
        """Return a blob of one chunk. Each caller's comes with its own credentials, unless it is
        here: what one is refused is nothing to another."""
        kept = self._small_blobs.of(name)
        if (found := await kept.get_small(digest)) is not None:
            context.bytes_by_source[CACHE] = len(found.body)
            return found.body
        flight = name, digest, context.caller
        body = await self._flights.run(flight, lambda: self._read_small(name, digest, context))
        context.bytes_by_source[UPSTREAM] = len(body)
        return body

    async def _read_small(self, name: ImageName, digest: Digest, context: PullContext) -> bytes:
        source = AsCaller(self._source, context.caller)
        try:
            self._budgets.begin()
            body = await read_single(source, name, digest)
        except NotSmall as error:
            claimed = await self._size(name, digest, context)
            self._refuted(name, digest, claimed, error.size_bytes)
            raise blob_refusal(error, name.upstream) from None
        except UpstreamError as error:
            raise blob_refusal(error, name.upstream) from error
        self._budgets.came(len(body))
        self._used(UPSTREAM, len(body))
        await self._small_blobs.of(name).put_small(digest, body)
        return body

    def _open_large(
        self, name: ImageName, digest: Digest, size: int, context: PullContext
    ) -> BlobSource:
        """What has several chunks the hosts that may have it exchange."""
        source = AsCaller(self._source, context.caller)
        private = self._private.introduce(name, digest, size, context.caller)
        try:
            active = self._private.obtain(private)
            if active.geometry.size_bytes != size:
                self._budgets.begin()
        except BudgetSpent as error:
            raise blob_refusal(error, name.upstream) from None

        def fell_back(label: str, reason: str, nbytes: int) -> None:
            self._budgets.came(nbytes)
            self._node.counters.fallbacks[label] += nbytes
            self._node.counters.fallback_reasons[reason] += nbytes
            self._used(label, nbytes)

        if active.geometry.size_bytes != size:

            def used(label: str, reason: str, nbytes: int) -> None:
                context.bytes_by_source[label] = context.bytes_by_source.get(label, 0) + nbytes
                fell_back(label, reason, nbytes)

            return PassingBlob(source, name, digest, size, used)
        self._node.counters.blob_requests["hit" if active.complete else "origin"] += 1
        return SwarmReader(
            active,
            name,
            context,
            [source],
            size_bytes=size,
            content=digest,
            used_fallback=fell_back,
            starving=lambda: self._private.wanted(private),
            interruption=lambda: self._private.interruption(active),
            fallback_when_full_only=True,
        )

    def _refuted(
        self, name: ImageName, digest: Digest, claimed_bytes: int, actual_bytes: int | None
    ) -> None:
        self._service(name).links.refute(name, digest, claimed_bytes, actual_bytes)

    async def tags(self, name: ImageName, query: str, context: PullContext) -> TagPage:
        """The registry decides itself: nothing of a list is kept."""
        async with self._as_caller(name, context, lists=True) as service:
            return await service.lists.tags(name, query)

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, context: PullContext
    ) -> Manifest:
        async with self._as_caller(name, context, lists=True) as service:
            return await service.lists.referrers(name, digest, artifact_type)

    async def layer_index(self, name: ImageName, digest: Digest, context: PullContext) -> Digest:
        """None is made: a container that starts before its layers are here reads on when its
        caller is long gone."""
        text = f"there are no indexes of layers of {name.upstream}, which decides by its callers"
        raise RegistryError(404, "BLOB_UNKNOWN", text, reason=ErrorReason.NO_SOURCE)

    async def _size(self, name: ImageName, digest: Digest, context: PullContext) -> int:
        if (small := await self._small_blobs.of(name).get_small(digest)) is not None:
            return len(small.body)
        if (size := self._private.size_of(name, digest)) is not None:
            return size
        async with self._as_caller(name, context) as service:
            return await service.blob_size(name, digest)

    @asynccontextmanager
    async def _as_caller(
        self, name: ImageName, context: PullContext, *, lists: bool = False
    ) -> AsyncIterator[ManifestService]:
        """Ask in the name of the caller; what its registry refuses of content ends its right. Who
        may not list may read all the same."""
        try:
            with speaking_for(name.upstream, context.caller):
                yield self._service(name)
        except RegistryError as error:
            raise await self._gate.refused(name, context.caller, error, ends=not lists) from None

    def _service(self, name: ImageName) -> ManifestService:
        service = self._services.get(name)
        if service is None:
            if len(self._services) == REPOSITORIES_MAX:
                _, old = self._services.popitem()
                self._tasks.start(old.close(), name="forget a repository")
            service = self._service_of(name, self._smalls.of(name))
            self._services[name] = service
        return service
