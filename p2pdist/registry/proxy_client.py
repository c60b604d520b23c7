"""Asks a p2pdist proxy over its `/v2/`: as a peer does, or a proxy of another datacenter."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import aiohttp
from aiohttp import hdrs
from yarl import URL

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.geometry import MANIFEST_SIZE_MAX_BYTES
from p2pdist.model.ids import (
    Digest,
    HostId,
    digest_algorithm,
    digest_of,
    parse_digest,
    parse_exchanged,
    parse_host_id,
)
from p2pdist.model.private_digests import is_private
from p2pdist.model.statements import KEY_ID_BYTES, RECORD_BYTES_MAX
from p2pdist.oci.errors import told_error
from p2pdist.oci.links import next_page
from p2pdist.oci.manifest import MANIFEST_ACCEPT, media_type_of
from p2pdist.oci.names import ImageName
from p2pdist.oci.paging import following_query
from p2pdist.oci.registry_list import LIST_BYTES_MAX, parse_by_caller, parse_registries
from p2pdist.oci.tag_list import parse_tag_list
from p2pdist.process.off_loop import parsed
from p2pdist.registry.ports import (
    TICKET_HEADER,
    USER_AGENT,
    Manifest,
    TagPage,
    client_accept,
    speaks_for,
)
from p2pdist.registry.reading.body import UpstreamBody, blob_span, content_length, read_bounded
from p2pdist.registry.reading.net import BadAnswer, exhausted
from p2pdist.registry.reading.net_errors import cause
from p2pdist.registry.reading.requests import UpstreamRefusal, error_body_of, error_code

STATEMENT: Final = "P2pdist-Statement"
EXCHANGE_PORT: Final = "P2pdist-Exchange-Port"
HOST_ID: Final = "P2pdist-Host-Id"
KEY_ID: Final = "P2pdist-Key-Id"
SPEAKS_TLS: Final = "P2pdist-Tls"
"""There where the proxy has a certificate: it is spoken to in TLS, at the same port."""
REASON: Final = "P2pdist-Reason"
_REASONS: Final = frozenset(ErrorReason)

# Within a datacenter, or to a parent that is probed all the time: shorter than for a registry.
HEADERS_S: Final = 10.0
IDLE_S: Final = 5.0
CONNECT_S: Final = 5.0
_PORT_MAX: Final = 65535
# Every wait has a deadline of ours; aiohttp's own would cut a body after 5 minutes.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
_KEY_ID: Final = re.compile(rf"[0-9a-f]{{{2 * KEY_ID_BYTES}}}")
_DIGITS: Final = re.compile(r"\d{1,5}")
_WARNING: Final = re.compile(r'299 \S{1,255} "([^"\\]{0,512})"')


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who a proxy is, and where its chunk exchange listens."""

    exchange_port: int
    host_id: HostId | None
    """None: an older version, which tells only over the exchange. A hint in any case: the exchange
    proves it."""
    key_id: bytes | None = None
    """Of the key that it signs with, so that a host that does not believe it can say so; None: it
    does not tell."""
    registries: frozenset[str] | None = None
    """Those that it serves; None: it does not tell."""
    by_caller: frozenset[str] = frozenset()
    """Those of them that decide by the credentials of each caller."""


@dataclass(frozen=True, slots=True)
class Introduced:
    """What a proxy says of a blob that it was told of."""

    size_bytes: int
    ticket: tuple[Digest, bytes] | None
    """The private digest, and the record of the ticket for it; None: it gives none."""


@dataclass(frozen=True, slots=True)
class ProxyTls:
    """How a host with a certificate speaks to proxies."""

    context: Callable[[], ssl.SSLContext | None]
    """Believes proxies only; None: this host's certificate is no good now."""
    required: bool
    """Nothing is said in clear."""


class ProxyClient:
    """One proxy by its base URL; `session` is the caller's to close.

    With `tls` a proxy at an http:// address that has a certificate, too, is spoken to in TLS.

    All failures are UpstreamError with the proxy's status, 0 where there was no answer; their
    `reason` is the one that the proxy names, NO_PROXY where there was no answer.
    """

    def __init__(
        self, base_url: str, session: aiohttp.ClientSession, tls: ProxyTls | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._session = session
        self._tls = tls if self.base_url.startswith("http://") else None
        self._in_tls = self._tls is not None and self._tls.required

    async def manifest(self, name: ImageName, reference: str, *, timeout_s: float) -> Manifest:
        """Return a manifest that matches `reference` and the proxy's header.

        The statement that comes with a tag is the caller's to check.
        """
        accept = {"Accept": ", ".join((*MANIFEST_ACCEPT, *client_accept.get()))}
        asking = self._ask("GET", name, "manifests", reference, headers=accept)
        async with self._deadline(timeout_s), asking as got:
            body = await read_bounded(got, MANIFEST_SIZE_MAX_BYTES, idle_s=timeout_s)
            return await _read_manifest(got, body, reference)

    async def introduce(self, name: ImageName, digest: Digest, *, timeout_s: float) -> int:
        """Tell the proxy in which repository a blob lies; return the blob's size in bytes."""
        size, _ = await self._head(name, digest, {}, timeout_s)
        return size

    async def ask_ticket(self, name: ImageName, digest: Digest, *, timeout_s: float) -> Introduced:
        """The same, and ask how other hosts may be asked for it; in TLS only."""
        size, got = await self._head(name, digest, {TICKET_HEADER: "1"}, timeout_s)
        told = got.headers.get(TICKET_HEADER)
        if told is None or got.url.scheme != "https":
            return Introduced(size, None)
        try:
            return Introduced(size, _ticket(told))
        except ValueError as error:
            raise BadAnswer(f"{self.base_url}: {error}") from None

    async def _head(
        self, name: ImageName, digest: Digest, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, aiohttp.ClientResponse]:
        """The size of a blob, and the head of the answer that told it."""
        asking = self._ask("HEAD", name, "blobs", digest, headers=headers)
        async with self._deadline(timeout_s), asking as got:
            size = content_length(got)
        if size is None:
            raise BadAnswer(f"{self.base_url} does not tell the size of {digest}")
        return size, got

    async def greet(self, *, timeout_s: float) -> Greeting:
        """Ask the proxy who it is."""
        async with self._deadline(timeout_s), self._open("GET", "", {}) as got:
            self._hears_of_tls(told=SPEAKS_TLS in got.headers)
            body = await read_bounded(got, LIST_BYTES_MAX, idle_s=timeout_s)
            text = got.headers.get(EXCHANGE_PORT, "")
            told, key = got.headers.get(HOST_ID), got.headers.get(KEY_ID, "")
        if _DIGITS.fullmatch(text) is None or not 1 <= int(text) <= _PORT_MAX:
            raise BadAnswer(f"{self.base_url} is no p2pdist proxy: it names no exchange port")
        try:
            host = None if told is None else parse_host_id(told)
            registries = await parsed(parse_registries, body)
            by_caller = await parsed(parse_by_caller, body)
            return Greeting(int(text), host, read_key_id(key), registries, by_caller)
        except ValueError as error:
            raise BadAnswer(f"{self.base_url}: {error}") from None

    def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AbstractAsyncContextManager[UpstreamBody]:
        """Open a blob at byte `start`; its bytes are the caller's to verify."""
        return self._open_blob(name, digest, start)

    @asynccontextmanager
    async def _open_blob(
        self, name: ImageName, digest: Digest, start: int
    ) -> AsyncIterator[UpstreamBody]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        # `ns` beside the path: who asks has other sources, and wants a 404 early (`resolve_name`).
        tail = f"{digest}?{urlencode({'ns': name.upstream})}"
        async with self._ask("GET", name, "blobs", tail, headers=headers) as response:
            size, skip = blob_span(response, start)
            if size is None:
                raise BadAnswer(f"{self.base_url} does not tell the size of {digest}")
            yield UpstreamBody(
                response,
                size_bytes=size,
                start=start,
                skip=skip,
                idle_s=IDLE_S,
                count=lambda _: None,
            )

    async def tags(self, name: ImageName, query: str, *, timeout_s: float) -> TagPage:
        """The query of the next page is the registry's own, passed on by the proxy."""
        tail = f"list?{query}" if query else "list"
        async with self._deadline(timeout_s), self._ask("GET", name, "tags", tail) as response:
            body = await read_bounded(response, MANIFEST_SIZE_MAX_BYTES, idle_s=timeout_s)
            link = next_page(response.headers.getall(hdrs.LINK, ()))
        try:
            list_path = f"/v2/{name.upstream}/{name.repository}/tags/list"
            following = None if link is None else following_query(link, list_path)
            return TagPage(await parsed(parse_tag_list, body), following)
        except ValueError as error:
            raise BadAnswer(f"{self.base_url}: {error}") from None

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, *, timeout_s: float
    ) -> Manifest:
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        tail = f"{digest}{query}"
        async with self._deadline(timeout_s), self._ask("GET", name, "referrers", tail) as response:
            body = await read_bounded(response, MANIFEST_SIZE_MAX_BYTES, idle_s=timeout_s)
        media_type = await _media_type(response, body)
        return Manifest(await asyncio.to_thread(digest_of, body), media_type, body)

    def _hears_of_tls(self, *, told: bool) -> None:
        """A proxy may have got its certificate, or have none any more."""
        self._in_tls = self._tls is not None and (self._tls.required or told)

    # --- requests -------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        name: ImageName,
        kind: str,
        tail: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The path names the upstream: its port and dots survive every client and server."""
        path = f"{name.upstream}/{name.repository}/{kind}/{tail}"
        return self._open(method, path, headers or {})

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"{self.base_url}/v2/{path}"
        context = self._tls.context() if self._tls is not None and self._in_tls else None
        if context is not None:
            url = url.replace("http://", "https://", 1)
        sent = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **headers}
        if (spoken := speaks_for.get()) is not None and spoken[1].authorization:
            sent[hdrs.AUTHORIZATION] = spoken[1].authorization
        try:
            async with asyncio.timeout(HEADERS_S):
                response = await self._session.request(
                    method,
                    URL(url, encoded=True),
                    headers=sent,
                    allow_redirects=False,
                    timeout=_TIMEOUT,
                    ssl=context or True,
                )
        except TimeoutError:
            raise self._silent(f"did not answer within {HEADERS_S} s") from None
        except (aiohttp.ClientError, OSError) as error:
            self._hears_of_tls(told=False)
            reason = ErrorReason.EXHAUSTED if exhausted(error) else ErrorReason.NO_PROXY
            raise self._silent(f"cannot be reached: {cause(error)}", reason) from None
        try:
            if response.status not in ((200, 206) if "Range" in headers else (200,)):
                raise await self._refusal(response)
            yield response
        finally:
            response.close()

    @asynccontextmanager
    async def _deadline(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            raise self._silent(f"did not answer within {timeout_s} s") from None

    def _silent(self, what: str, reason: ErrorReason = ErrorReason.NO_PROXY) -> UpstreamError:
        return UpstreamError(f"{self.base_url} {what}", reason=reason)

    async def _refusal(self, response: aiohttp.ClientResponse) -> UpstreamRefusal:
        """What the proxy said of its registry; an older one has a status only."""
        body = b"" if response.method == hdrs.METH_HEAD else await error_body_of(response)
        challenges = response.headers.getall(hdrs.WWW_AUTHENTICATE, ())
        if (told := told_error(body)) is not None:
            text, code, reason = told.message, told.code, told.reason
        else:
            text, code, reason = (
                f"{self.base_url} answered {response.status}",
                error_code(body),
                None,
            )
            if (named := response.headers.get(REASON)) in _REASONS:
                text, reason = f"{self.base_url} says {named}", ErrorReason(named)
        return UpstreamRefusal(
            text, status=response.status, code=code, reason=reason, challenges=challenges
        )


def read_key_id(text: str) -> bytes | None:
    """Return the id of a key from its header; None for anything else, as it is only a hint."""
    return bytes.fromhex(text) if _KEY_ID.fullmatch(text) else None


async def _read_manifest(response: aiohttp.ClientResponse, body: bytes, reference: str) -> Manifest:
    claimed = response.headers.get("Docker-Content-Digest", "")
    try:
        digest = parse_digest(reference if ":" in reference else claimed)
    except ValueError as error:
        raise BadAnswer(f"a proxy's manifest: {error}") from None
    actual = await asyncio.to_thread(digest_of, body, digest_algorithm(digest))
    if actual != digest:
        raise BadAnswer(f"a proxy's manifest with the digest {actual} instead of {digest}")
    warning = _WARNING.search(response.headers.get(hdrs.WARNING, ""))
    return Manifest(
        digest,
        await _media_type(response, body),
        body,
        statement=_statement(response.headers.get(STATEMENT)),
        stale=warning[1] if warning else None,
    )


async def _media_type(response: aiohttp.ClientResponse, body: bytes) -> str:
    """The body's own type, else the one that the proxy heard from the registry."""
    told = response.headers.get(hdrs.CONTENT_TYPE, "")
    try:
        return await parsed(lambda data: media_type_of(data, told), body)
    except ValueError as error:
        raise BadAnswer(f"a proxy's answer: {error}") from None


def _statement(text: str | None) -> bytes | None:
    try:
        return None if text is None else _record(text)
    except ValueError:
        raise BadAnswer("a proxy's statement that is none") from None


def _ticket(text: str) -> tuple[Digest, bytes]:
    name, _, record = text.partition(" ")
    private = parse_exchanged(name)
    if not is_private(private):
        raise ValueError("a ticket for what needs none")
    return private, _record(record)


def _record(text: str) -> bytes:
    """Raise ValueError for what is none."""
    record = base64.b64decode(text, validate=True)
    if not 0 < len(record) <= RECORD_BYTES_MAX:
        raise ValueError("a record of no length that records have")
    return record
