"""Sources outside of the swarm: a proxy's `/v2/` and the upstream itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.geometry import CHUNK_SIZE_MIN_BYTES
from p2pdist.model.ids import Digest, digest_algorithm, digest_of
from p2pdist.oci.callers import Caller
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import speaking_for
from p2pdist.registry.proxy_client import ProxyClient
from p2pdist.registry.reading.client import UpstreamClient
from p2pdist.registry.reading.net import BadAnswer
from p2pdist.swarm.answering import Answering
from p2pdist.swarm.counters import PROXY, UPSTREAM
from p2pdist.swarm.fallback import OutsideBody, OutsideSource

# What is larger has more than one chunk, and so a map: it is never read as a whole.
SMALL_BYTES_MAX: Final = CHUNK_SIZE_MIN_BYTES


class ProxySource:
    """A proxy's `/v2/`, for what the exchange cannot bring or the disk cannot keep.

    It is left as soon as it is known to hang, if there is another source.
    """

    label: Final = PROXY

    def __init__(self, client: ProxyClient, answering: Answering, *, direct: bool) -> None:
        """`direct`: there is a source beside the proxies."""
        self._client = client
        self._answering = answering
        self._direct = direct

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[OutsideBody]:
        async with AsyncExitStack() as stack:
            opening = self._client.open_blob(name, digest, start=start)
            async with self._answering.answer_of(self._client, direct=self._direct):
                body = await stack.enter_async_context(opening)
            yield _ProxyBody(body, self)

    async def pieces(self, body: OutsideBody) -> AsyncIterator[bytes]:
        chunks = body.chunks()
        while True:
            async with self._answering.listening(self._client, direct=self._direct):
                data = await anext(chunks, None)
            if data is None:
                return
            yield data


class _ProxyBody:
    """The body of a proxy that may begin to hang."""

    def __init__(self, body: OutsideBody, source: ProxySource) -> None:
        self._body = body
        self._source = source

    @property
    def size_bytes(self) -> int | None:
        return self._body.size_bytes

    def chunks(self) -> AsyncIterator[bytes]:
        return self._source.pieces(self._body)

    def limit_buffer(self, nbytes: int) -> None:
        self._body.limit_buffer(nbytes)

    @property
    def arrived_bytes(self) -> int:
        return self._body.arrived_bytes


class DirectSource:
    """The upstream itself: the worst case, never worse than a pull without p2pdist."""

    label: Final = UPSTREAM

    def __init__(self, upstream: UpstreamClient) -> None:
        self._upstream = upstream

    def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AbstractAsyncContextManager[OutsideBody]:
        return self._upstream.open_blob(name, digest, start=start)


class AsCaller:
    """A source that is asked with the credentials of a caller."""

    def __init__(self, source: OutsideSource, caller: Caller) -> None:
        self.label: Final = source.label
        self._source = source
        self._caller = caller

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[OutsideBody]:
        async with AsyncExitStack() as stack:
            with speaking_for(name.upstream, self._caller):
                opening = self._source.open_blob(name, digest, start=start)
                body = await stack.enter_async_context(opening)
            yield body


class FirstSource:
    """The first of several sources that opens a blob."""

    def __init__(self, sources: Sequence[OutsideSource]) -> None:
        """There is one at least."""
        self.label: Final = sources[0].label
        self._sources = sources

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[OutsideBody]:
        async with AsyncExitStack() as stack:
            yield await self._opened(stack, name, digest, start)

    async def _opened(
        self, stack: AsyncExitStack, name: ImageName, digest: Digest, start: int
    ) -> OutsideBody:
        *others, last = self._sources
        for source in others:
            try:
                return await stack.enter_async_context(source.open_blob(name, digest, start=start))
            except UpstreamError as error:
                if error.reason is ErrorReason.CALLER:
                    raise
        return await stack.enter_async_context(last.open_blob(name, digest, start=start))


class WatchedSource:
    """`missing` hears of what its registry answered not to have."""

    def __init__(self, source: OutsideSource, missing: Callable[[ImageName, Digest], None]) -> None:
        self.label: Final = source.label
        self._source = source
        self._missing = missing

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[OutsideBody]:
        async with AsyncExitStack() as stack:
            opening = self._source.open_blob(name, digest, start=start)
            try:
                body = await stack.enter_async_context(opening)
            except UpstreamError as error:
                if error.status == 404:
                    self._missing(name, digest)
                raise
            yield body


class NotSmall(UpstreamError):
    """The blob has more than one chunk; `size_bytes` is what its source says of it, if it does."""

    def __init__(self, digest: Digest, size_bytes: int | None) -> None:
        text = f"{digest} has more than {SMALL_BYTES_MAX} bytes"
        super().__init__(text, reason=ErrorReason.REGISTRY_ERROR)
        self.size_bytes = size_bytes


async def read_single(source: OutsideSource, name: ImageName, digest: Digest) -> bytes:
    """Read a whole blob of one chunk and check it.

    No more than one chunk is read, whatever anybody declared. Raises NotSmall for a larger one and
    UpstreamError when `source` does not have it right.
    """
    body = bytearray()
    async with source.open_blob(name, digest) as answer:
        if answer.size_bytes is not None and answer.size_bytes > SMALL_BYTES_MAX:
            raise NotSmall(digest, answer.size_bytes)
        async for data in answer.chunks():
            body += data
            if len(body) > SMALL_BYTES_MAX:
                raise NotSmall(digest, answer.size_bytes)
    if digest_of(body, digest_algorithm(digest)) != digest:
        raise BadAnswer(f"{digest}: the bytes from {source.label} do not have the digest")
    return bytes(body)
