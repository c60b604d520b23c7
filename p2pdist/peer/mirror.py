"""The mirror that a host's runtime pulls from: the `/v2/` backend over one node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from p2pdist.errors import RegistryError, UpstreamError
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest
from p2pdist.oci.layered_image import LayeredImage
from p2pdist.oci.manifest import Descriptor
from p2pdist.oci.names import ImageName
from p2pdist.peer.coming_images import ComingImages
from p2pdist.peer.manifests import ManifestBook
from p2pdist.peer.wanted_images import WantedImages
from p2pdist.process.single_flight import SingleFlight
from p2pdist.registry.ports import BlobSource, Manifest, PullContext, TagPage
from p2pdist.registry.proxy_client import ProxyClient
from p2pdist.registry.reading.client import UpstreamClient, UpstreamRefusal
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core.failures import Failures
from p2pdist.swarm.counters import SMALL, UPSTREAM
from p2pdist.swarm.fallback import OutsideSource
from p2pdist.swarm.layer_indexes import LayerIndexes
from p2pdist.swarm.node import Node
from p2pdist.swarm.outside import SMALL_BYTES_MAX, DirectSource, ProxySource, read_single
from p2pdist.swarm.reader import SwarmReader, WholeBlob
from p2pdist.swarm.smalls import SmallAnswer
from p2pdist.swarm.sourcing import BlobFinder
from p2pdist.swarm.vain import InVain

T = TypeVar("T")

FORWARD_S: Final = 8.0
INDEXES_MAX: Final = 32
"""That are sought at a time for images about to be pulled; others come when they are asked for."""
_UNKNOWN: Final = "BLOB_UNKNOWN"


class MirrorBackend:
    """Implements `RegistryBackend` for a peer."""

    def __init__(
        self,
        node: Node,
        book: ManifestBook,
        finder: BlobFinder,
        proxies: Sequence[ProxyClient],
        upstream: UpstreamClient | None,
        *,
        patience_s: float,
        fill: Callable[[ImageName, Digest, int], bool] | None = None,
    ) -> None:
        """`fill`: have a blob of that size here in time; tells whether it is."""
        self._node = node
        self._fill = fill
        self._patience_s = patience_s
        self._book = book
        self._finder = finder
        self._proxies = proxies
        self._upstream = upstream
        self._smalls: SingleFlight[tuple[ImageName, Digest], SmallAnswer | InVain] = SingleFlight()
        self._answering = node.proxy_links.answering
        direct = upstream is not None
        self._outside: list[OutsideSource] = [
            ProxySource(client, self._answering, direct=direct) for client in proxies
        ]
        if upstream is not None:
            self._outside.append(DirectSource(upstream))
        self._indexes = LayerIndexes(node)
        self.wanted = WantedImages()
        self.coming = ComingImages()
        self._indexes_coming: set[Digest] = set()
        """The layers whose indexes are sought because their image is coming."""

    async def close(self) -> None:
        """No snapshotter waits here any more."""
        self.wanted.close()
        await self.coming.close()

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        found = await self._book.manifest(name, reference, context)
        if context.has_snapshotter:
            self.coming.tell(lambda: self._coming(name, found.digest))
        return found

    async def _coming(self, name: ImageName, manifest: Digest) -> LayeredImage | None:
        """Return an image that is about to be pulled, while the indexes of its layers come here:
        the snapshotter asks for them when it has heard of it."""
        for layer in self._book.images.large_layers(name, manifest):
            if layer not in self._indexes_coming and len(self._indexes_coming) < INDEXES_MAX:
                self._indexes_coming.add(layer)
                bring = self._bring_index(name, layer)
                self._node.tasks.start(bring, name=f"index of {layer[:19]}")
        return await self._book.images.of_manifest(name, manifest, self._read_small)

    async def _bring_index(self, name: ImageName, layer: Digest) -> None:
        """Nobody hears of a failure: who reads it asks anew."""
        try:
            context = PullContext("coming")
            index = await self.layer_index(name, layer, context)
            (await self.open_blob(name, index, context)).close()
        except RegistryError:
            pass
        finally:
            self._indexes_coming.discard(layer)

    async def blob_size(self, name: ImageName, digest: Digest, context: PullContext) -> int:
        size = self._book.size_of(name, digest)
        size = size if size is not None else await self._ask_size(name, digest)
        if context.fill and self._fill is not None:
            context.held = self._fill(name, digest, size)
        return size

    async def open_blob(self, name: ImageName, digest: Digest, context: PullContext) -> BlobSource:
        if context.finds_layers:
            await self._have_shown(name, digest)
        size = await self.blob_size(name, digest, context)
        if geometry_for(size).single:
            return await self._open_small(name, digest, size, context)
        active = self._node.activate(digest, size)
        outcome = "hit" if active.complete else "peer"
        self._node.counters.blob_requests[outcome] += 1
        if not active.complete and not context.demand:
            self._finder.look(name, active)
        return SwarmReader(
            active,
            name,
            context,
            self._outside,
            size_bytes=size,
            used_fallback=self._used_fallback,
            demand_lacks=lambda: self._demand_lacks(name, active),
            starving=lambda: self._starving(name, active),
            forsaken=lambda: self._answering.book.all_hang,
            unfound=lambda: self._book.missing(name, digest),
            patience_s=self._patience_s,
        )

    async def _have_shown(self, name: ImageName, digest: Digest) -> None:
        """If the blob is the config of an image, its layers are what the engine looks for next."""
        if self.wanted.attended:
            image = await self._book.images.of_config(name, digest, self._read_small)
            if image is not None:
                await self.wanted.offer(image)

    def _demand_lacks(self, name: ImageName, active: ActiveBlob) -> None:
        """Take part in the swarm, unless we do: many parts may be demanded one after the other."""
        if not (active.member and active.proxy_linked):
            self._finder.look(name, active)

    def _starving(self, name: ImageName, active: ActiveBlob) -> None:
        self._node.proxy_links.doubt_all()
        self._finder.look(name, active)

    async def tags(self, name: ImageName, query: str, context: PullContext) -> TagPage:
        async def listed(client: ProxyClient) -> TagPage:
            return await client.tags(name, query, timeout_s=FORWARD_S)

        return await self._forwarded(name, f"the tags of {name}", listed)

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, context: PullContext
    ) -> Manifest:
        async def listed(client: ProxyClient) -> Manifest:
            return await client.referrers(name, digest, artifact_type, timeout_s=FORWARD_S)

        return await self._forwarded(name, f"the referrers of {digest}", listed)

    async def layer_index(self, name: ImageName, digest: Digest, context: PullContext) -> Digest:
        await self.blob_size(name, digest, context)  # who may have the layer may have its index
        told = await self._indexes.find(digest)
        self._book.learn_size(name, told.digest, told.size_bytes)
        return told.digest

    async def image_of_chain(self, chain: Digest) -> LayeredImage:
        """The image that a chain ID stands for; raise RegistryError (404) for none of this host."""
        found = await self._book.images.of_chain(chain, self._read_small)
        if found is None:
            raise RegistryError(404, _UNKNOWN, "no image with it was asked for here of late")
        return found

    async def _read_small(self, name: ImageName, blob: Descriptor) -> bytes:
        flight = name, blob.digest
        found = await self._smalls.run(flight, lambda: self._find_small(*flight, blob.size))
        if isinstance(found, InVain):
            raise found.refusal()
        return found.body

    async def _forwarded(
        self, name: ImageName, what: str, ask: Callable[[ProxyClient], Awaitable[T]]
    ) -> T:
        """Ask the proxies; raise RegistryError with the reason when none can tell."""
        failures = Failures(name, what, unknown="NAME_UNKNOWN")

        async def asked(client: ProxyClient) -> T:
            try:
                return await ask(client)
            except UpstreamRefusal as error:
                failures.told(error, error.code)
                raise
            except UpstreamError as error:
                failures.proxy_failed(error)
                raise

        proxies = sorted(self._proxies, key=lambda c: self._answering.book.hung(c.base_url))
        found = await self._answering.first_of(proxies, asked, direct=False)
        if found is None:
            raise failures.refusal()
        return found

    # --- sizes and introductions ----------------------------------------------------------------

    async def _ask_size(self, name: ImageName, digest: Digest) -> int:
        direct, failures = self._upstream is not None, Failures(name, digest, unknown=_UNKNOWN)
        size = await self._finder.size_at_a_proxy(name, digest, direct=direct, heard=failures.heard)
        if size is not None:
            self._book.learn_size(name, digest, size)
            return size
        if self._upstream is not None:
            try:
                size = await self._upstream.blob_size(name, digest)
            except UpstreamError as error:
                failures.told(error, "")
            else:
                self._book.learn_size(name, digest, size)
                return size
        raise failures.refusal()

    # --- blobs of one chunk ---------------------------------------------------------------------

    async def _open_small(
        self, name: ImageName, digest: Digest, size: int, context: PullContext
    ) -> BlobSource:
        flight = name, digest
        found = await self._smalls.run(flight, lambda: self._find_small(name, digest, size))
        if isinstance(found, InVain):
            self._book.missing(name, digest)
            raise found.refusal()
        context.bytes_by_source[found.source] = len(found.body)
        return WholeBlob(digest, found.body)

    async def _find_small(self, name: ImageName, digest: Digest, size: int) -> SmallAnswer | InVain:
        found = await self._finder.small(name, digest, size)
        if isinstance(found, SmallAnswer) or size > SMALL_BYTES_MAX:
            return found
        for source in self._outside:
            try:
                body = await read_single(source, name, digest)
            except UpstreamError as error:
                found.heard(source.label, error)
            else:
                self._used_fallback(source.label, SMALL, len(body))
                return SmallAnswer("", body, source.label)
        return found

    def _used_fallback(self, label: str, reason: str, nbytes: int) -> None:
        self._node.fell_back(label, reason, nbytes)
        if label == UPSTREAM:
            self._node.counters.blob_requests["origin"] += 1
