"""Manifests for the local runtime: from the store, the proxy, the swarm, or straight from upstream.

A tag is believed only with a proxy's signed statement, or from the upstream itself; a digest is its
own proof, whoever sends it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from cachetools import LRUCache

from p2pdist.errors import P2pdistError, PeerFault, RegistryError, UpstreamError
from p2pdist.model.ids import Digest, TagKey, parse_digest, tag_key
from p2pdist.model.statements import TagStatement
from p2pdist.oci.manifest import media_type_of, parse_manifest
from p2pdist.oci.names import ImageName
from p2pdist.peer.counters import PROXY, UPSTREAM
from p2pdist.peer.node import Node
from p2pdist.peer.smalls import SmallAnswer
from p2pdist.runtime import logs
from p2pdist.runtime.clock import unix_s
from p2pdist.runtime.proxy_client import ProxyClient
from p2pdist.runtime.serving import Manifest, PullContext
from p2pdist.runtime.single_flight import SingleFlight
from p2pdist.runtime.upstream import UpstreamClient, UpstreamRefusal

log = logging.getLogger(__name__)

# Registry contract 3.7: manifest 2 s, then a cached copy; without one the proxy gets longer.
PROXY_MANIFEST_S: Final = 2.0
PROXY_MANIFEST_LAST_S: Final = 6.0
SIZES_MAX: Final = 200_000
DEFINITE: Final = frozenset({401, 403, 404})
"""An upstream's answers that no other source may overrule."""


class ManifestBook:
    """Finds manifests and remembers the sizes of the blobs that they name."""

    def __init__(
        self,
        node: Node,
        proxies: Sequence[ProxyClient],
        upstream: UpstreamClient | None,
        *,
        tag_ttl_s: float,
    ) -> None:
        self._node = node
        self._proxies = proxies
        self._upstream = upstream
        self._tag_ttl_s = tag_ttl_s
        self._sizes: LRUCache[tuple[ImageName, Digest], int] = LRUCache(SIZES_MAX)
        self._flights: SingleFlight[tuple[ImageName, str], Manifest] = SingleFlight()

    def size_of(self, name: ImageName, digest: Digest) -> int | None:
        """The size of a blob: as a proxy signed it, else as the manifests of `name` claim it.

        Anybody may push a manifest that claims anything about a blob; it binds no other repository.
        """
        stored = self._node.store.get(digest)
        if stored is not None:
            return stored.geometry.size_bytes
        return self._sizes.get((name, digest))

    def learn_size(self, name: ImageName, digest: Digest, size_bytes: int) -> None:
        self._sizes[name, digest] = size_bytes

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        """Return a manifest; raise RegistryError 404 when nobody has it."""
        try:
            digest = parse_digest(reference)
        except ValueError:
            found = await self._flights.run(
                (name, reference), lambda: self._by_tag(name, reference)
            )
        else:
            found = await self._by_digest(name, digest)
        self._learn(name, found)
        return found

    # --- by digest ------------------------------------------------------------------------------

    async def _by_digest(self, name: ImageName, digest: Digest) -> Manifest:
        if (local := await self._node.store.get_small(digest)) is not None:
            self._node.counters.blob_requests["hit"] += 1
            return Manifest(digest, local.media_type or media_type_of(local.body), local.body)
        return await self._flights.run((name, digest), lambda: self._fetch(name, digest))

    async def _fetch(self, name: ImageName, digest: Digest) -> Manifest:
        if (found := await self._from_proxies(name, digest, PROXY_MANIFEST_S)) is not None:
            return found
        if (answer := await self._node.smalls.fetch(digest)) is not None:
            self._node.counters.blob_requests["peer"] += 1
            return self._told(digest, answer)
        if (found := await self._from_upstream(name, digest)) is not None:
            return found
        raise RegistryError(404, "MANIFEST_UNKNOWN", f"no source for {name}@{digest}")

    @staticmethod
    def _told(digest: Digest, answer: SmallAnswer) -> Manifest:
        """The body is proven by its digest; its type has to agree with what the body says."""
        try:
            media_type = media_type_of(answer.body)
        except ValueError as error:
            raise RegistryError(404, "MANIFEST_UNKNOWN", f"{digest}: {error}") from None
        return Manifest(digest, media_type, answer.body)

    # --- by tag ---------------------------------------------------------------------------------

    async def _by_tag(self, name: ImageName, tag: str) -> Manifest:
        key = tag_key(name.upstream, name.repository, tag)
        kept = await self._kept(key)
        if kept is not None and kept[0].issued_at_s + self._tag_ttl_s > unix_s():
            self._node.counters.blob_requests["hit"] += 1
            return kept[1]
        patience_s = PROXY_MANIFEST_S if kept is not None else PROXY_MANIFEST_LAST_S
        if (found := await self._from_proxies(name, tag, patience_s)) is not None:
            return found
        if kept is not None:
            return self._stale(kept[1])
        if (found := await self._from_swarm(key)) is not None:
            return found
        if (found := await self._from_upstream(name, tag)) is not None:
            return found
        raise RegistryError(404, "MANIFEST_UNKNOWN", f"no source for {name}:{tag}")

    async def _kept(self, key: TagKey) -> tuple[TagStatement, Manifest] | None:
        """The statement about a tag that lies here, with its manifest; None if either is not."""
        record = await self._node.store.get_statement(key)
        if record is None:
            return None
        try:
            statement = self._node.keyring.open(record)
        except PeerFault:
            return None  # its key was taken out of the configuration
        if not isinstance(statement, TagStatement) or statement.expires_at_s <= unix_s():
            return None
        body = await self._node.store.get_small(statement.digest)
        if body is None:
            return None
        return statement, Manifest(statement.digest, statement.media_type, body.body, record)

    @staticmethod
    def _stale(kept: Manifest) -> Manifest:
        why = "no proxy answers; this tag was last checked a while ago"
        return Manifest(kept.digest, kept.media_type, kept.body, kept.statement, stale=why)

    async def _from_swarm(self, key: TagKey) -> Manifest | None:
        told = await self._node.smalls.tag_statement(key)
        if told is None:
            return None
        statement, record = told
        answer = await self._node.smalls.fetch(statement.digest)
        if answer is None:
            return None
        await self._node.smalls.keep_statement(key, record)
        self._node.counters.blob_requests["peer"] += 1
        return Manifest(statement.digest, statement.media_type, answer.body, record)

    # --- sources --------------------------------------------------------------------------------

    async def _from_proxies(
        self, name: ImageName, reference: str, timeout_s: float
    ) -> Manifest | None:
        for client in self._proxies:
            try:
                found = await client.manifest(name, reference, timeout_s=timeout_s)
                await self._keep(name, reference, found)
            except UpstreamError as error:
                if error.status in DEFINITE:
                    named = isinstance(error, UpstreamRefusal) and error.code == "NAME_UNKNOWN"
                    code = "NAME_UNKNOWN" if named else "MANIFEST_UNKNOWN"
                    raise RegistryError(404, code, str(error)) from None
                logs.event(log, logging.INFO, "proxy.no_manifest", error=str(error))
            except P2pdistError as error:
                logs.event(log, logging.WARNING, "proxy.manifest_refused", error=str(error))
            else:
                self._node.counters.blob_requests["dc"] += 1
                self._node.counters.received[PROXY] += len(found.body)
                return found
        return None

    async def _keep(self, name: ImageName, reference: str, found: Manifest) -> None:
        """Store what a proxy told; raise PeerFault for a tag without its statement."""
        if reference != found.digest:
            key = tag_key(name.upstream, name.repository, reference)
            statement = self._node.keyring.open(found.statement or b"")
            if (
                not isinstance(statement, TagStatement)
                or statement.key != key
                or statement.digest != found.digest
            ):
                raise PeerFault("a tag statement about something else", reason="map")
            await self._node.smalls.keep_statement(key, found.statement or b"")
        await self._node.smalls.keep(found.digest, SmallAnswer(found.media_type, found.body))

    async def _from_upstream(self, name: ImageName, reference: str) -> Manifest | None:
        if self._upstream is None:
            return None
        try:
            found = await self._upstream.get_manifest(name, reference)
        except UpstreamError as error:
            logs.event(log, logging.INFO, "upstream.no_manifest", image=str(name), error=str(error))
            return None
        self._node.counters.blob_requests["origin"] += 1
        self._node.counters.received[UPSTREAM] += len(found.body)
        await self._node.smalls.keep(found.digest, SmallAnswer(found.media_type, found.body))
        return Manifest(found.digest, found.media_type, found.body)

    def _learn(self, name: ImageName, found: Manifest) -> None:
        try:
            info = parse_manifest(found.body, found.media_type)
        except ValueError:
            return  # not ours to judge: the runtime gets the bytes as they were pushed
        for descriptor in (*info.manifests, *info.layers, *((info.config,) if info.config else ())):
            self.learn_size(name, descriptor.digest, descriptor.size)
