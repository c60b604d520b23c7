"""Manifests for the local runtime: from the store, the proxy, the swarm, or straight from upstream.

A tag is believed only with a proxy's signed statement, or from the upstream itself; a digest is its
own proof, whoever sends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from p2pdist.errors import ErrorReason, P2pdistError, RegistryError, UnknownKey, UpstreamError
from p2pdist.model.ids import Digest, TagKey, parse_digest, tag_key
from p2pdist.model.tags import NotBelieved, TagRecord, age_at_hearing_s, believe_tag, open_tag
from p2pdist.oci.doubts import Doubts
from p2pdist.oci.manifest import media_type_of, parse_manifest
from p2pdist.oci.names import ImageName
from p2pdist.peer.core.tag_ages import TagAges
from p2pdist.peer.recent_images import RecentImages
from p2pdist.process import logs
from p2pdist.process.off_loop import parsed
from p2pdist.process.single_flight import SingleFlight
from p2pdist.registry.kept_manifests import kept_type
from p2pdist.registry.ports import Manifest, PullContext, client_accept
from p2pdist.registry.proxy_client import ProxyClient
from p2pdist.registry.reading.client import UpstreamClient, UpstreamRefusal
from p2pdist.swarm.core.failures import Failures
from p2pdist.swarm.core.links import Links
from p2pdist.swarm.counters import PROXY, UPSTREAM
from p2pdist.swarm.node import Node
from p2pdist.swarm.smalls import SmallAnswer

log = logging.getLogger(__name__)

# Registry contract 3.7: manifest 2 s, then a cached copy; without one the proxy gets longer.
PROXY_MANIFEST_S: Final = 2.0
PROXY_MANIFEST_LAST_S: Final = 6.0
# 2 ms of the loop's time.
LINKS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class _Question:
    """A manifest that does not lie here; `held`: the last that was heard about its tag."""

    name: ImageName
    reference: str
    failures: Failures
    held: TagRecord | None = None


class ManifestBook:
    """Finds manifests and remembers the sizes of the blobs that they name."""

    def __init__(
        self,
        node: Node,
        proxies: Sequence[ProxyClient],
        upstream: UpstreamClient | None,
        *,
        tag_ttl_s: float,
        links: Links | None = None,
    ) -> None:
        """`links`: which repository named which digest, as far as this host heard of it."""
        self._node = node
        self._proxies = proxies
        self._upstream = upstream
        self._tag_ttl_s = tag_ttl_s
        self._ages = TagAges()
        self.links = links if links is not None else Links()
        self._doubts = Doubts()
        self.images = RecentImages()
        """Those that this host asked for."""
        self._flights: SingleFlight[tuple[ImageName, str, tuple[str, ...]], Manifest] = (
            SingleFlight()
        )

    def size_of(self, name: ImageName, digest: Digest) -> int | None:
        """The size of a blob that `name` named: as a proxy signed it, else as its manifests claim.

        None where it did not, whatever lies here: to know a digest is no right to read it. Anybody
        may push a manifest that claims anything about a blob; it binds no other repository.
        """
        if not self.links.allowed(name, digest):
            return None
        stored = self._node.store.get(digest)
        if stored is not None:
            return stored.geometry.size_bytes
        return self.links.claim(name, digest)

    def learn_size(self, name: ImageName, digest: Digest, size_bytes: int) -> None:
        self.links.tell(name, digest, size_bytes)

    def missing(self, name: ImageName, digest: Digest) -> None:
        """No source has what was asked for: if a manifest of `name` named it, what was heard of the
        tags there may be over, and a proxy is asked."""
        if self.links.allowed(name, digest):
            self._doubts.missing(name, self._now_s())

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        """Return a manifest; raise RegistryError when nobody has it, with the reason."""
        try:
            digest = parse_digest(reference)
        except ValueError:
            flight = name, reference, client_accept.get()
            found = await self._flights.run(flight, lambda: self._by_tag(name, reference))
        else:
            found = await self._by_digest(name, digest)
        await self._learn(name, found)
        return found

    # --- by digest ------------------------------------------------------------------------------

    async def _by_digest(self, name: ImageName, digest: Digest) -> Manifest:
        named = self.links.allowed(name, digest)
        if named and (local := await self._node.store.get_small(digest)) is not None:
            media_type = await kept_type(local.body, local.media_type)
            if media_type is not None:
                self._node.counters.blob_requests["hit"] += 1
                return Manifest(digest, media_type, local.body)
        flight = name, digest, client_accept.get()
        try:
            return await self._flights.run(flight, lambda: self._fetch(name, digest))
        except RegistryError as error:
            if error.status == 404:
                self.missing(name, digest)
            raise

    async def _fetch(self, name: ImageName, digest: Digest) -> Manifest:
        failures = Failures(name, f"{name}@{digest}")
        question = _Question(name, digest, failures)
        if (found := await self._from_proxies(question, PROXY_MANIFEST_S)) is not None:
            return found
        self._end_if_unlisted(name, failures)
        # Nobody in the swarm can tell whether `name` has it.
        named = self.links.allowed(name, digest)
        if named and (found := await self._from_swarm_by_digest(digest)) is not None:
            return found
        if (found := await self._from_upstream(question)) is not None:
            return found
        if (found := await self._waited_for(question)) is not None:
            return found
        raise failures.refusal()

    async def _from_swarm_by_digest(self, digest: Digest) -> Manifest | None:
        """No peer's word counts for the type: it is the one that the body names, or shows."""
        if (answer := await self._node.smalls.fetch(digest)) is None:
            return None
        try:
            media_type = await parsed(media_type_of, answer.body)
        except ValueError:
            return None
        self._node.counters.blob_requests["peer"] += 1
        return Manifest(digest, media_type, answer.body, source=answer.source)

    # --- by tag ---------------------------------------------------------------------------------

    async def _by_tag(self, name: ImageName, tag: str) -> Manifest:
        key = tag_key(name.upstream, name.repository, tag)
        held = await self._node.smalls.held_statement(key)
        kept = await self._kept(held) if held is not None else None
        age_s = self._age_s(held) if held is not None and kept is not None else self._tag_ttl_s
        now_s = self._now_s()
        doubtful = self._doubts.doubtful(name, key, now_s - age_s, now_s)
        if kept is not None and age_s < self._tag_ttl_s and not doubtful:
            self._node.counters.blob_requests["hit"] += 1
            return kept
        self._doubts.looked(key, now_s)
        patience_s = PROXY_MANIFEST_S if kept is not None else PROXY_MANIFEST_LAST_S
        question = _Question(name, tag, Failures(name, f"{name}:{tag}"), held)
        if (found := await self._from_proxies(question, patience_s)) is not None:
            return found
        if doubtful and (found := await self._from_upstream(question)) is not None:
            return found
        if kept is not None:
            why = "no proxy answers; this tag was last checked a while ago"
            return replace(kept, stale=why)
        self._end_if_unlisted(name, question.failures)
        if (found := await self._from_swarm(key, held)) is not None:
            return found
        if (found := await self._from_upstream(question)) is not None:
            return found
        if (found := await self._waited_for(question)) is not None:
            return found
        raise question.failures.refusal()

    async def _kept(self, held: TagRecord) -> Manifest | None:
        """The manifest of a statement that lies here; None if its time is up or the body gone."""
        try:
            believe_tag(held, now_unix_s=self._unix_s)
        except NotBelieved:
            return None
        small = await self._node.store.get_small(held.statement.digest)
        return _as_stated(held, small.body) if small is not None else None

    def _age_s(self, held: TagRecord) -> float:
        """How long ago the proxy looked; after a restart of ours, as far as its stamp tells."""
        age_s = self._ages.age_s(held.statement.key, self._now_s())
        if age_s is None:
            age_s = age_at_hearing_s(held, self._unix_s)
            self._ages.heard(held.statement.key, age_s, self._now_s())
        return age_s

    async def _from_swarm(self, key: TagKey, held: TagRecord | None) -> Manifest | None:
        told = await self._node.smalls.tag_statement(key, held)
        if told is None:
            return None
        answer = await self._node.smalls.fetch(told.statement.digest)
        if answer is None:
            return None
        await self._hear(told)
        self._node.counters.blob_requests["peer"] += 1
        return await self._kept_typed(replace(_as_stated(told, answer.body), source=answer.source))

    async def _hear(self, told: TagRecord) -> None:
        """Take in what is believed from now on."""
        self._ages.heard(
            told.statement.key,
            age_at_hearing_s(told, self._unix_s),
            self._now_s(),
        )
        await self._node.smalls.keep_statement(told.statement.key, told.record)

    # --- sources --------------------------------------------------------------------------------

    def _end_if_unlisted(self, name: ImageName, failures: Failures) -> None:
        """No proxy serves the registry, and this host does not read it either: the runtime is to go
        on at once. Raises RegistryError."""
        if failures.unlisted and not (self._upstream and self._upstream.reads(name)):
            raise failures.refusal()

    async def _from_proxies(
        self, question: _Question, timeout_s: float, *, leave_hung: bool = True
    ) -> Manifest | None:
        """`leave_hung`: there is another source; without one a proxy that hangs is waited for."""

        async def asked(client: ProxyClient) -> Manifest | None:
            return await self._from_proxy(client, question, timeout_s)

        answering = self._node.proxy_links.answering
        proxies = sorted(self._proxies, key=lambda c: answering.book.hung(c.base_url))
        found = await answering.first_of(proxies, asked, direct=leave_hung)
        if found is not None:
            self._node.counters.blob_requests["dc"] += 1
            self._node.counters.received[PROXY] += len(found.body)
            found = replace(found, source=PROXY)
        return found

    async def _from_proxy(
        self,
        client: ProxyClient,
        question: _Question,
        timeout_s: float,
    ) -> Manifest | None:
        name, reference = question.name, question.reference
        try:
            found = await client.manifest(name, reference, timeout_s=timeout_s)
            return await self._taken(question, found)
        except UpstreamRefusal as error:
            logs.event(log, logging.INFO, "proxy.no_manifest", error=str(error))
            question.failures.told(error, error.code)
        except UpstreamError as error:
            logs.event(log, logging.INFO, "proxy.no_manifest", error=str(error))
            question.failures.proxy_failed(error)
        except P2pdistError as error:
            question.failures.proxy_failed(error)
            logs.event(log, logging.WARNING, "proxy.manifest_refused", error=str(error))
            if isinstance(error, UnknownKey):
                self._node.proxy_links.signed_by_stranger(client.base_url, error.signer)
        return None

    async def _waited_for(self, question: _Question) -> Manifest | None:
        """Wait for proxies that hang when nobody else has it: a slow success beats an error."""
        if self._upstream is not None or not self._node.proxy_links.answering.book.all_hang:
            return None
        return await self._from_proxies(question, PROXY_MANIFEST_LAST_S, leave_hung=False)

    async def _taken(self, question: _Question, found: Manifest) -> Manifest:
        """Store what a proxy told; raise PeerFault or NotBelieved for a tag without a statement
        that holds, and RegistryError for a body that is no manifest."""
        name, reference, held = question.name, question.reference, question.held
        if reference == found.digest:
            taken = await _as_told(found)
        else:
            key = tag_key(name.upstream, name.repository, reference)
            told = open_tag(self._node.keyring, key, found.statement or b"")
            believe_tag(told, now_unix_s=self._unix_s, held=held, digest=found.digest)
            await self._hear(told)
            taken = replace(_as_stated(told, found.body), stale=found.stale)
        return await self._kept_typed(taken)

    async def _kept_typed(self, found: Manifest) -> Manifest:
        """Keep what a proxy vouched for with its type, which the body may not tell."""
        answer = SmallAnswer(found.media_type, found.body)
        await self._node.smalls.keep(found.digest, answer)
        return found

    async def _from_upstream(self, question: _Question) -> Manifest | None:
        if self._upstream is None:
            return None
        name = question.name
        try:
            found = await self._upstream.get_manifest(name, question.reference)
        except UpstreamError as error:
            logs.event(log, logging.INFO, "upstream.no_manifest", image=str(name), error=str(error))
            code = error.code if isinstance(error, UpstreamRefusal) else ""
            question.failures.told(error, code)
            return None
        self._node.counters.blob_requests["origin"] += 1
        self._node.counters.received[UPSTREAM] += len(found.body)
        if name.upstream in self._upstream.servable_hosts:  # else it is for this host alone
            await self._node.smalls.keep(found.digest, SmallAnswer(found.media_type, found.body))
        return Manifest(found.digest, found.media_type, found.body, source=UPSTREAM)

    async def _learn(self, name: ImageName, found: Manifest) -> None:
        try:
            info = await parsed(lambda body: parse_manifest(body, found.media_type), found.body)
        except ValueError:
            return  # not ours to judge: the runtime gets the bytes as they were pushed
        self.images.note(name, found.digest, info)
        self.learn_size(name, found.digest, len(found.body))
        for count, _ in enumerate(self.links.linking(name, info), 1):
            if count % LINKS_AT_ONCE == 0:
                await asyncio.sleep(0)

    @property
    def _unix_s(self) -> float:
        """By which what proxies signed expires."""
        return self._node.health.sober_unix_s

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


async def _as_told(found: Manifest) -> Manifest:
    """A body is proven by its digest and names its type; where it does not, the proxy counts."""
    told = found.media_type
    try:
        media_type = await parsed(lambda body: media_type_of(body, told), found.body)
    except ValueError as error:
        text = f"{found.digest}: {error}"
        raise RegistryError(
            404, "MANIFEST_UNKNOWN", text, reason=ErrorReason.REGISTRY_ERROR
        ) from None
    return replace(found, media_type=media_type)


def _as_stated(told: TagRecord, body: bytes) -> Manifest:
    statement = told.statement
    return Manifest(statement.digest, statement.media_type, body, told.record)
