"""What a peer serves of registries that decide by the credentials of each caller.

Each request goes on to a proxy with the credentials that came with it, and the proxy has the
registry decide. Without a proxy the registry itself is asked, where this host may do that. Nothing
of it is kept here, but blobs of several chunks between hosts with certificates: those the proxy
gives a ticket for, with its yes, and they come from whoever has them (`private_pulls`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, TypeVar

from cachetools import LRUCache

from p2pdist.errors import (
    CallerRefused,
    ErrorReason,
    P2pdistError,
    RegistryError,
    UpstreamError,
)
from p2pdist.model.ids import Digest, TagKey, digest_algorithm, digest_of, tag_key
from p2pdist.model.tags import TagRecord, believe_tag, open_tag
from p2pdist.oci import refusals
from p2pdist.oci.auth import Challenge, parse_challenges
from p2pdist.oci.callers import challenges_for
from p2pdist.oci.names import ImageName
from p2pdist.peer.private_pulls import PrivatePull, PrivatePulls
from p2pdist.registry.ports import (
    BlobSource,
    Manifest,
    PullContext,
    TagPage,
    speaking_for,
)
from p2pdist.registry.proxy_client import Introduced, ProxyClient
from p2pdist.registry.reading.client import UpstreamClient, UpstreamRefusal
from p2pdist.swarm.core.failures import Failures
from p2pdist.swarm.counters import BY_CALLER, PROXY, UPSTREAM
from p2pdist.swarm.fallback import OutsideSource
from p2pdist.swarm.node import Node
from p2pdist.swarm.outside import AsCaller, DirectSource, FirstSource, ProxySource
from p2pdist.swarm.passing import PassingBlob
from p2pdist.swarm.reader import WholeBlob

T = TypeVar("T")

# The proxy asks the registry twice: whether the caller may, and for what it wants.
FORWARD_S: Final = 12.0
TAGS_MAX: Final = 10_000


class CallerForward:
    """Implements `RegistryBackend` for a peer."""

    def __init__(
        self,
        node: Node,
        proxies: Sequence[ProxyClient],
        upstream: UpstreamClient | None,
        private: PrivatePulls,
    ) -> None:
        self._node = node
        self._private = private
        self._proxies = proxies
        self._upstream = upstream
        self._answering = node.proxy_links.answering
        self._heard: LRUCache[TagKey, TagRecord] = LRUCache(TAGS_MAX)
        """The last that was believed of each tag: nothing older counts."""

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        async def of_proxy(client: ProxyClient) -> Manifest:
            found = await client.manifest(name, reference, timeout_s=FORWARD_S)
            self._believe(name, reference, found)
            return replace(found, source=PROXY)

        async def of_registry(upstream: UpstreamClient) -> Manifest:
            told = await upstream.get_manifest(name, reference)
            return Manifest(told.digest, told.media_type, told.body, source=UPSTREAM)

        what = f"{name}@{reference}" if ":" in reference else f"{name}:{reference}"
        return await self._found(name, context, what, of_proxy, of_registry)

    def _believe(self, name: ImageName, reference: str, found: Manifest) -> None:
        """Raise PeerFault or NotBelieved for a tag without a statement that holds."""
        if reference != found.digest:
            key = tag_key(name.upstream, name.repository, reference)
            told = open_tag(self._node.keyring, key, found.statement or b"")
            held, now_unix_s = self._heard.get(key), self._node.health.sober_unix_s
            self._heard[key] = believe_tag(
                told, now_unix_s=now_unix_s, held=held, digest=found.digest
            )

    async def blob_size(self, name: ImageName, digest: Digest, context: PullContext) -> int:
        return (await self._introduced(name, digest, context)).size_bytes

    async def _introduced(
        self, name: ImageName, digest: Digest, context: PullContext
    ) -> Introduced:
        async def of_proxy(client: ProxyClient) -> Introduced:
            return await client.ask_ticket(name, digest, timeout_s=FORWARD_S)

        async def of_registry(upstream: UpstreamClient) -> Introduced:
            return Introduced(await upstream.blob_size(name, digest), None)

        return await self._found(
            name, context, digest, of_proxy, of_registry, unknown="BLOB_UNKNOWN"
        )

    async def open_blob(self, name: ImageName, digest: Digest, context: PullContext) -> BlobSource:
        told = await self._introduced(name, digest, context)
        size = told.size_bytes
        if size == 0 and digest_of(b"", digest_algorithm(digest)) == digest:
            return WholeBlob(digest, b"")

        def used(label: str, reason: str, nbytes: int) -> None:
            context.bytes_by_source[label] = context.bytes_by_source.get(label, 0) + nbytes
            self._node.fell_back(label, reason, nbytes)

        source = AsCaller(FirstSource(list(self._sources())), context.caller)
        pull = PrivatePull(name, digest, size, context)
        if (reader := self._private.open(pull, told.ticket, source)) is not None:
            return reader
        return PassingBlob(source, name, digest, size, used, reason=BY_CALLER)

    async def tags(self, name: ImageName, query: str, context: PullContext) -> TagPage:
        return await self._found(
            name,
            context,
            f"the tags of {name}",
            lambda client: client.tags(name, query, timeout_s=FORWARD_S),
            lambda upstream: upstream.tags(name, query),
            unknown="NAME_UNKNOWN",
        )

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, context: PullContext
    ) -> Manifest:
        return await self._found(
            name,
            context,
            f"the referrers of {digest}",
            lambda client: client.referrers(name, digest, artifact_type, timeout_s=FORWARD_S),
            None,
            unknown="NAME_UNKNOWN",
        )

    async def layer_index(self, name: ImageName, digest: Digest, context: PullContext) -> Digest:
        text = f"there are no indexes of layers of {name.upstream}, which decides by its callers"
        raise RegistryError(404, "BLOB_UNKNOWN", text, reason=ErrorReason.NO_SOURCE)

    # --- whom to ask ----------------------------------------------------------------------------

    def _by_health(self) -> list[ProxyClient]:
        return sorted(self._proxies, key=lambda c: self._answering.book.hung(c.base_url))

    def _sources(self) -> Iterator[OutsideSource]:
        direct = self._upstream is not None
        for client in self._by_health():
            yield ProxySource(client, self._answering, direct=direct)
        if self._upstream is not None:
            yield DirectSource(self._upstream)

    async def _found(
        self,
        name: ImageName,
        context: PullContext,
        what: str,
        of_proxy: Callable[[ProxyClient], Awaitable[T]],
        of_registry: Callable[[UpstreamClient], Awaitable[T]] | None,
        *,
        unknown: str = "MANIFEST_UNKNOWN",
    ) -> T:
        """Ask the proxies, then the registry, in the name of the caller. Raises RegistryError."""
        failures = Failures(name, what, unknown=unknown)

        async def asked(client: ProxyClient) -> T:
            with _heard(name, failures):
                return await of_proxy(client)

        upstream = self._upstream
        direct = upstream is not None and upstream.reads(name) and of_registry is not None
        with speaking_for(name.upstream, context.caller):
            found = await self._answering.first_of(self._by_health(), asked, direct=direct)
            if found is not None:
                return found
            if upstream is not None and of_registry is not None and direct:
                try:
                    return await of_registry(upstream)
                except UpstreamError as error:
                    await self._refused(name, upstream, error)
                    failures.told(error, getattr(error, "code", ""))
        raise failures.refusal()

    async def _refused(
        self, name: ImageName, upstream: UpstreamClient, error: UpstreamError
    ) -> None:
        """Raise CallerRefused where the registry itself says no."""
        if error.reason not in (ErrorReason.CREDENTIALS, ErrorReason.DENIED):
            return
        wanted: list[Challenge] = []
        if error.reason is ErrorReason.CREDENTIALS:
            wanted = await upstream.challenges(name)
        raise _caller_refused(name, error, wanted)


@contextmanager
def _heard(name: ImageName, failures: Failures) -> Iterator[None]:
    """Note what a proxy says; raise RegistryError for what no other one may overrule."""
    try:
        yield
    except UpstreamRefusal as error:
        if error.reason is ErrorReason.CALLER:
            raise _caller_refused(name, error, parse_challenges(error.challenges)) from None
        failures.told(error, error.code)
        raise
    except UpstreamError as error:
        failures.proxy_failed(error)
        raise
    except RegistryError:
        raise
    except P2pdistError as error:  # a tag that is not to be believed: another proxy may do better
        failures.proxy_failed(error)
        raise UpstreamError(str(error), reason=ErrorReason.PROXY_ERROR) from None


def _caller_refused(
    name: ImageName, error: UpstreamError, told: Sequence[Challenge]
) -> CallerRefused:
    text = refusals.sentence(ErrorReason.CALLER, name.upstream, str(error))
    wanted = challenges_for(name.repository, told)
    if error.status == 403:
        return CallerRefused(403, "DENIED", text)
    return CallerRefused(401, "UNAUTHORIZED", text, challenges=wanted)
