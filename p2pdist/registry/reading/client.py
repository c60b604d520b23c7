"""Reads registries: manifests, blobs, tag lists and referrers of the configured upstreams.

Answers are checked as they come in: a manifest against its digest, a body against its length. All
failures are UpstreamError; its `status` is the upstream's, 0 where there was no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
import stamina
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.geometry import CHUNK_SIZE_MIN_BYTES, MANIFEST_SIZE_MAX_BYTES
from p2pdist.model.ids import Digest, digest_algorithm, digest_of, parse_digest
from p2pdist.oci.auth import Challenge
from p2pdist.oci.callers import Caller
from p2pdist.oci.content_coding import unpacked
from p2pdist.oci.links import next_page
from p2pdist.oci.manifest import MANIFEST_ACCEPT, media_type_of
from p2pdist.oci.names import ImageName
from p2pdist.oci.paging import following_query, goes_on, is_repeated
from p2pdist.oci.tag_list import parse_tag_list
from p2pdist.process.off_loop import parsed
from p2pdist.registry.ports import TagPage, client_accept
from p2pdist.registry.reading.body import (
    UpstreamBody,
    blob_span,
    content_length,
    range_total,
    read_bounded,
)
from p2pdist.registry.reading.net import (
    BadAnswer,
    UpstreamEntry,
    UpstreamNet,
    UpstreamTimeouts,
)
from p2pdist.registry.reading.requests import (
    StorageRefusal,
    UpstreamCounters,
    UpstreamRefusal,
    UpstreamRequests,
)

__all__ = [
    "BadAnswer",
    "ManifestHead",
    "UpstreamBody",
    "UpstreamClient",
    "UpstreamCounters",
    "UpstreamEntry",
    "UpstreamManifest",
    "UpstreamRefusal",
    "UpstreamTimeouts",
]

T = TypeVar("T")

CONTENT_DIGEST: Final = "Docker-Content-Digest"
# A tag list of 4 MiB has more than 100,000 tags.
TAG_LIST_BYTES_MAX: Final = 4 * 1024 * 1024
REFERRER_PAGES_MAX: Final = 16

# Three tries fit into the manifest deadline of 8 s with room for slow answers.
_TRIES_MAX: Final = 3
_RETRY_FIRST_S: Final = 0.2
_RETRY_MAX_S: Final = 1.0
_RETRYABLE: Final = frozenset({0, 500, 502, 503, 504})
# Answers to HEAD after which only GET can tell: not supported, refused to HEAD alone (ECR Public,
# storage behind presigned URLs), or without the body that names the reason.
_HEAD_INCONCLUSIVE: Final = frozenset({400, 401, 403, 404, 405, 501})
_HEAD_UNSUPPORTED: Final = frozenset({400, 405, 501})


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What a HEAD told; all None where the upstream answers GET only."""

    digest: Digest | None = None
    media_type: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class UpstreamManifest:
    """`digest` was computed from `body`."""

    digest: Digest
    media_type: str
    body: bytes


class UpstreamClient:
    """Reads the upstreams of `entries`; must be made inside of a running loop, and closed."""

    def __init__(
        self,
        entries: Iterable[UpstreamEntry],
        *,
        timeouts: UpstreamTimeouts | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`resolver` replaces DNS; the addresses that it gives are checked all the same."""
        self._entries = {entry.host: entry for entry in entries}
        self._timeouts = timeouts or UpstreamTimeouts()
        self._net = UpstreamNet(self._timeouts, resolver)
        self._requests = UpstreamRequests(self._net, self._entries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._requests.close()
        await self._net.close()

    @property
    def counters(self) -> UpstreamCounters:
        return self._requests.counters

    @property
    def kept_addresses_total(self) -> int:
        """Names that did not resolve, and were reached by their last good address."""
        return self._net.resolver.kept_answers_total

    @property
    def token_requests_total(self) -> int:
        return self._requests.auth.token_requests_total

    def entry(self, name: ImageName) -> UpstreamEntry:
        """Return what is configured for `name`; raise UpstreamError where nothing is."""
        entry = self._entries.get(name.upstream)
        if entry is None:
            raise UpstreamError(
                f"{name.upstream} is not a configured upstream",
                status=404,
                reason=ErrorReason.NOT_LISTED,
            )
        return entry

    def reads(self, name: ImageName) -> bool:
        return name.upstream in self._entries

    @property
    def servable_hosts(self) -> frozenset[str]:
        """The upstreams whose content may be given to others."""
        return frozenset(host for host, entry in self._entries.items() if entry.servable)

    @property
    def account_hosts(self) -> frozenset[str]:
        """The upstreams that are read with an account."""
        return frozenset(host for host, entry in self._entries.items() if entry.has_account)

    @property
    def concurrency(self) -> dict[str, int]:
        """How many layers to read at a time from those upstreams that have a limit."""
        entries = self._entries.items()
        return {host: entry.concurrency for host, entry in entries if entry.concurrency}

    async def ping(self, upstream: str) -> None:
        """Ask for `/v2/`, with the account where one is wanted; raise UpstreamError if refused."""
        entry = self._entries[upstream]
        url = f"{entry.url.rstrip('/')}/v2/"
        async with self._requests.open(
            entry, "GET", "manifests", url, scope="", headers={}, expect=(200,)
        ):
            pass

    # --- callers --------------------------------------------------------------------------------

    @property
    def caller_hosts(self) -> frozenset[str]:
        """The upstreams that are asked with the credentials of each caller."""
        return frozenset(host for host, entry in self._entries.items() if entry.by_caller)

    async def challenges(self, name: ImageName) -> list[Challenge]:
        """What the registry of `name` wants to see of who asks; raise UpstreamError."""
        return await self._requests.challenges(self.entry(name))

    def forget(self, upstream: str, caller: Caller) -> None:
        """Its account may be asked for anew: no token that was bought with it counts any more."""
        self._requests.forget(upstream, caller)

    async def check_read(self, name: ImageName, kind: str, reference: str) -> None:
        """Raise UpstreamError where the registry does not let whom we speak for read `reference`.

        `kind` is `manifests` or `blobs`. By a HEAD, which no registry counts as a pull; by the
        first byte of a blob where a HEAD is refused, as by storage behind presigned URLs.
        """
        await self._retried(lambda: self._check_read(name, kind, reference))

    async def _check_read(self, name: ImageName, kind: str, reference: str) -> None:
        try:
            async with self._request("HEAD", name, kind, reference):
                return
        except UpstreamError as error:
            refused = error.status in (401, 403) or isinstance(error, StorageRefusal)
            blob = kind == "blobs" and refused
            if not blob and error.status not in _HEAD_UNSUPPORTED:
                raise
        if kind == "blobs":
            async with self._range(name, parse_digest(reference), "0-0"):
                return
        async with self._request("GET", name, kind, reference):
            return

    # --- manifests ------------------------------------------------------------------------------

    async def head_manifest(self, name: ImageName, reference: str) -> ManifestHead:
        """Ask what `reference` stands for; Docker Hub does not count it, unlike a GET."""
        return await self._retried(lambda: self._head_manifest(name, reference))

    async def _head_manifest(self, name: ImageName, reference: str) -> ManifestHead:
        try:
            async with self._request("HEAD", name, "manifests", reference) as response:
                return ManifestHead(
                    digest=_told_digest(response),
                    media_type=_bare_type(response),
                    size_bytes=content_length(response),
                )
        except UpstreamError as error:
            if error.status in (*_HEAD_INCONCLUSIVE, 500) and not isinstance(error, BadAnswer):
                return ManifestHead()
            raise

    async def get_manifest(self, name: ImageName, reference: str) -> UpstreamManifest:
        """Return a manifest whose bytes match `reference`, the upstream's header and their type."""
        return await self._retried(lambda: self._get_manifest(name, reference))

    async def _get_manifest(self, name: ImageName, reference: str) -> UpstreamManifest:
        async with self._request("GET", name, "manifests", reference) as response:
            raw = await self._read(response, MANIFEST_SIZE_MAX_BYTES)
            claimed = _told_digest(response)
        self.counters.payload_bytes[name.upstream] += len(raw)
        wanted = parse_digest(reference) if ":" in reference else None
        body = await _unpacked(response, raw, wanted or claimed)
        digest = wanted if wanted is not None else await asyncio.to_thread(digest_of, body)
        for expected in (wanted, claimed):
            if expected is not None:
                await check_digest(body, expected, str(name))
        told = _bare_type(response)
        try:
            media_type = await parsed(lambda data: media_type_of(data, told), body)
        except ValueError as error:
            raise BadAnswer(f"{name}: {error}") from None
        return UpstreamManifest(digest, media_type, body)

    # --- blobs ----------------------------------------------------------------------------------

    async def blob_size(self, name: ImageName, digest: Digest) -> int:
        """Return a blob's size in bytes, by HEAD or by the first byte of a GET."""
        return await self._retried(lambda: self._blob_size(name, digest))

    async def _blob_size(self, name: ImageName, digest: Digest) -> int:
        """Of a HEAD no refusal counts, and no length of 0: what stands before a registry may
        answer it by itself."""
        try:
            async with self._request("HEAD", name, "blobs", digest) as response:
                size = content_length(response)
                if size or (size == 0 and digest == digest_of(b"", digest_algorithm(digest))):
                    return size
        except UpstreamError as error:
            inconclusive = error.status in _HEAD_INCONCLUSIVE or error.status >= 500
            if not inconclusive or isinstance(error, BadAnswer):
                raise
        async with self._range(name, digest, "0-0") as response:
            size = range_total(response)
            if size is None and response.status == 206:
                return await self._whole_size(name, digest)
            # Nobody says how long it is: a small one may be read to its end, if it has one.
            return len(await self._read_small(response)) if size is None else size

    async def _whole_size(self, name: ImageName, digest: Digest) -> int:
        """Of a blob whose ranges do not tell it: no byte of a long one is read."""
        async with self._request("GET", name, "blobs", digest) as response:
            size = content_length(response)
            return len(await self._read_small(response)) if size is None else size

    async def _read_small(self, response: aiohttp.ClientResponse) -> bytes:
        return await self._read(response, CHUNK_SIZE_MIN_BYTES)

    @asynccontextmanager
    async def _range(
        self, name: ImageName, digest: Digest, byte_range: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for a part of a blob, and for all of it where no part is given."""
        async with AsyncExitStack() as stack:
            try:
                part = self._request("GET", name, "blobs", digest, byte_range=byte_range)
                response = await stack.enter_async_context(part)
            except UpstreamError as error:
                if error.status != 416:
                    raise
                whole = self._request("GET", name, "blobs", digest)
                response = await stack.enter_async_context(whole)
            yield response

    def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AbstractAsyncContextManager[UpstreamBody]:
        """Open a blob at byte `start`; its bytes are the caller's to verify."""
        return self._open_blob(name, digest, start)

    async def blob_part(self, name: ImageName, digest: Digest, start: int, count: int) -> bytes:
        """Return `count` bytes (64 KiB or a few) of a blob; fewer where it ends before.

        Raises UpstreamError also for one that sends more than was asked for from its beginning:
        it would be read up to there.
        """
        byte_range = f"{start}-{start + count - 1}"
        async with self._request("GET", name, "blobs", digest, byte_range=byte_range) as response:
            if response.status == 200 and start:
                raise BadAnswer(f"{name}: {digest} is sent in whole only")
            return await self._read_some(response, count)

    async def _read_some(self, response: aiohttp.ClientResponse, count: int) -> bytes:
        part = bytearray()
        try:
            async with asyncio.timeout(self._timeouts.idle_s):
                while len(part) < count and (data := await response.content.read(count)):
                    part += data
        except TimeoutError:
            raise UpstreamError("a part of a blob did not come in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(f"the body broke off: {type(error).__name__}") from None
        return bytes(part[:count])

    @asynccontextmanager
    async def _open_blob(
        self, name: ImageName, digest: Digest, start: int
    ) -> AsyncIterator[UpstreamBody]:
        asked = (
            self._range(name, digest, f"{start}-")
            if start
            else self._request("GET", name, "blobs", digest)
        )
        async with asked as response:
            size, skip = blob_span(response, start)
            yield UpstreamBody(
                response,
                size_bytes=size,
                start=start,
                skip=skip,
                idle_s=self._timeouts.idle_s,
                count=lambda n: self.counters.payload_bytes.update({name.upstream: n}),
            )

    # --- lists ----------------------------------------------------------------------------------

    async def tags(self, name: ImageName, query: str) -> TagPage:
        """Return the page that `query` asks for; what is no tag is left out.

        A list that does not advance ends: some registries look neither at `n` nor at `last`.
        """
        tail = f"list?{query}" if query else "list"
        async with self._request("GET", name, "tags", tail) as response:
            body = await self._read(response, TAG_LIST_BYTES_MAX)
            following = _following(response, name, "tags/list", query)
        try:
            tags = await parsed(parse_tag_list, body)
        except ValueError as error:
            raise BadAnswer(f"{name}: {error}") from None
        if following is None and is_repeated(query, tags):
            return TagPage([])
        return TagPage(tags, following)

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None
    ) -> list[bytes]:
        """Return the pages of the list of what refers to `digest`: indexes, not checked any more.

        `artifact_type` is a wish; the upstream may have left it unfulfilled. UpstreamError 404
        means that the upstream does not know this request.
        """
        query = urlencode({"artifactType": artifact_type}) if artifact_type else ""
        pages: list[bytes] = []
        for _ in range(REFERRER_PAGES_MAX):
            tail = f"{digest}?{query}" if query else digest
            async with self._request("GET", name, "referrers", tail) as response:
                left = MANIFEST_SIZE_MAX_BYTES - sum(map(len, pages))
                raw = await self._read(response, left)
                pages.append(await _unpacked(response, raw, limit_bytes=left))
                following = _following(response, name, f"referrers/{digest}", query)
            if following is None:
                return pages
            query = following
        raise BadAnswer(f"{name}: more than {REFERRER_PAGES_MAX} pages of referrers")

    # --- requests -------------------------------------------------------------------------------

    def _url(self, name: ImageName, kind: str, tail: str) -> str:
        base = self.entry(name).url.rstrip("/")
        return f"{base}/v2/{name.repository}/{kind}/{tail}"

    def _request(
        self, method: str, name: ImageName, kind: str, tail: str, *, byte_range: str | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers: dict[str, str] = {}
        if kind == "manifests":
            headers["Accept"] = ", ".join((*MANIFEST_ACCEPT, *client_accept.get()))
        if byte_range is not None:
            headers["Range"] = f"bytes={byte_range}"
        return self._requests.open(
            self.entry(name),
            method,
            kind,
            self._url(name, kind, tail),
            scope=f"repository:{name.repository}:pull",
            headers=headers,
            expect=(200,) if byte_range is None else (200, 206),
        )

    async def _read(self, response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
        return await read_bounded(response, limit_bytes, idle_s=self._timeouts.idle_s)

    async def _retried(self, work: Callable[[], Awaitable[T]]) -> T:
        """Try again after an outage, within one deadline for all tries."""
        deadline_s = self._timeouts.question_s
        try:
            async with asyncio.timeout(deadline_s):
                async for attempt in stamina.retry_context(
                    on=_worth_another_try,
                    attempts=_TRIES_MAX,
                    timeout=None,
                    wait_initial=_RETRY_FIRST_S,
                    wait_max=_RETRY_MAX_S,
                    wait_jitter=_RETRY_FIRST_S,
                ):
                    with attempt:
                        return await work()
        except TimeoutError:
            raise UpstreamError(f"no answer within {deadline_s} s") from None
        raise AssertionError("the last try returns or raises")


async def check_digest(body: bytes, digest: Digest, whose: str) -> None:
    """Raise BadAnswer when `body` does not have `digest`."""
    actual = await asyncio.to_thread(digest_of, body, digest_algorithm(digest))
    if actual != digest:
        raise BadAnswer(f"{whose}: a manifest with the digest {actual} instead of {digest}")


def _worth_another_try(error: Exception) -> bool:
    return (
        isinstance(error, UpstreamError)
        and not isinstance(error, (BadAnswer, StorageRefusal))
        and error.status in _RETRYABLE
    )


def _told_digest(response: aiohttp.ClientResponse) -> Digest | None:
    text = response.headers.get(CONTENT_DIGEST, "").strip()
    if not text:
        return None
    try:
        return parse_digest(text)
    except ValueError:
        raise BadAnswer(f"{response.url.host}: {CONTENT_DIGEST} is no digest") from None


def _following(
    response: aiohttp.ClientResponse, name: ImageName, what: str, query: str
) -> str | None:
    """The query of the next page of the list that `query` asked for; None: there is none."""
    link = next_page(response.headers.getall(hdrs.LINK, ()))
    if link is None:
        return None
    try:
        following = following_query(link, f"/v2/{name.repository}/{what}")
    except ValueError as error:
        raise BadAnswer(f"{name}: {error}") from None
    return following if goes_on(query, following) else None


async def _unpacked(
    response: aiohttp.ClientResponse,
    raw: bytes,
    digest: Digest | None = None,
    *,
    limit_bytes: int = MANIFEST_SIZE_MAX_BYTES,
) -> bytes:
    """What was meant, where a registry packs although it was asked for `identity`."""
    coding = response.headers.get(hdrs.CONTENT_ENCODING, "")
    if not coding:
        return raw
    try:
        return await asyncio.to_thread(unpacked, raw, coding, limit_bytes, digest)
    except ValueError as error:
        raise BadAnswer(f"{response.url.host}: {error}") from None


def _bare_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
