"""Writes one blob body into one HTTP response: files by `sendfile`, the rest by `write`."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from p2pdist.errors import BlobFailed
from p2pdist.exchange.upload import Upload
from p2pdist.registry.ports import FileSpan

# Between slices the loop runs other work and the stall clock starts again.
SLICE_BYTES: Final = 1 << 20

# dockerd, containerd and containers/image never give up on a body themselves, and a container
# host under load may not read for minutes; a client that takes no MiB in ten minutes is dead.
CLIENT_STALL_S: Final = 600.0


class ClientStalled(Exception):
    """The client took nothing for `CLIENT_STALL_S`."""


class BodyWriter:
    """Sends exactly `length` bytes after the headers of `response`.

    Methods raise ConnectionError when the client is gone, ClientStalled when it does not read and
    BlobFailed when the items do not add up to `length`.
    """

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        length: int,
        upload: Upload | None = None,
    ) -> None:
        """`upload`: the budget that the body is taken from."""
        self.sent_bytes = 0
        self._upload = upload
        self._request = request
        self._response = response
        self._left_bytes = length
        self._writing_since_s: float | None = None
        self._sendfile = _has_sendfile(request)

    def stalled_s(self) -> float:
        """For how long the client has taken nothing of what we try to send; 0 while it is us who
        have nothing for it."""
        if self._writing_since_s is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._writing_since_s

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """Raises ClientStalled."""
        self._writing_since_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(CLIENT_STALL_S):
                yield
        except TimeoutError:
            raise ClientStalled from None
        finally:
            self._writing_since_s = None

    async def begin(self) -> None:
        """Send the status line and the headers."""
        await self._response.prepare(self._request)

    async def send(self, item: FileSpan | bytes) -> None:
        size = item.length if isinstance(item, FileSpan) else len(item)
        if size > self._left_bytes:
            raise BlobFailed("source gave more than it was asked for")
        if isinstance(item, FileSpan):
            await self._send_span(item)
        else:
            view = memoryview(item)
            while view:
                count = await self._allowed(len(view))
                await self._write(view[:count])
                view = view[count:]

    def end(self) -> None:
        """Raise BlobFailed when bytes are missing."""
        if self._left_bytes:
            raise BlobFailed(f"source ended {self._left_bytes} bytes too early")

    def abort(self) -> None:
        """Drop the connection at once: a client that does not read would hold its buffer."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _send_span(self, span: FileSpan) -> None:
        offset, stop = span.offset, span.offset + span.length
        while offset < stop:
            count = await self._allowed(stop - offset)
            if self._sendfile:
                await self._send_slice(span.fileno, offset, count)
            else:
                await self._copy_slice(span.fileno, offset, count)
            offset += count

    async def _allowed(self, count: int) -> int:
        """How much goes next; to wait for that is no stall of the client's."""
        count = min(count, SLICE_BYTES)
        return count if self._upload is None else await self._upload.some_of(count)

    async def _send_slice(self, fileno: int, offset: int, count: int) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("client disconnected")
        file = io.FileIO(fileno, "rb", closefd=False)
        loop = asyncio.get_running_loop()
        try:
            async with self._writing():
                sent = await loop.sendfile(transport, file, offset, count, fallback=False)
        except asyncio.SendfileNotAvailableError:
            # The file system cannot: nothing was sent yet.
            self._sendfile = False
            await self._copy_slice(fileno, offset, count)
            return
        self._account(sent)
        if sent < count:
            raise BlobFailed("file shorter than its blob")

    async def _copy_slice(self, fileno: int, offset: int, count: int) -> None:
        data = await asyncio.to_thread(os.pread, fileno, count, offset)
        await self._write(data)
        if len(data) < count:
            raise BlobFailed("file shorter than its blob")

    async def _write(self, data: bytes | memoryview) -> None:
        async with self._writing():
            await self._response.write(data)
        self._account(len(data))

    def _account(self, sent_bytes: int) -> None:
        self.sent_bytes += sent_bytes
        self._left_bytes -= sent_bytes


def _has_sendfile(request: web.Request) -> bool:
    """Only asyncio's own loops have it (uvloop does not), and not through TLS."""
    transport = request.transport
    return (
        isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
        and transport is not None
        and transport.get_extra_info("sslcontext") is None
    )
