"""Bodies that upstreams and proxies send: bounded reads, and blobs that must keep moving."""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import termios
from array import array
from collections.abc import AsyncIterator, Callable
from typing import Final

import aiohttp
from aiohttp import hdrs

from p2pdist.errors import UpstreamError
from p2pdist.model.geometry import BLOB_SIZE_MAX_BYTES
from p2pdist.registry.reading.net import BadAnswer

# The floor under a source's rate: less than this within the idle time counts as a stall.
PROGRESS_BYTES: Final = 16 * 1024
READ_IDLE_S: Final = 10.0

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_LENGTH: Final = re.compile(r"\d{1,18}")


class UpstreamBody:
    """A blob from byte `start` on; `count` hears of every payload byte that arrives."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        size_bytes: int | None,
        start: int,
        skip: int,
        idle_s: float,
        count: Callable[[int], None],
    ) -> None:
        self.size_bytes = size_bytes
        """Of the whole blob; None: the source did not say."""
        self.start = start
        self._response = response
        self._skip = skip
        self._idle_s = idle_s
        self._count = count

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes `start` to the end, all of them or UpstreamError.

        Where the source did not say how long the blob is, the end is the caller's to know. Only
        the wait for the source is timed; the reader may take as long as it likes.
        """
        at, skip = self.start - self._skip, self._skip
        stop = BLOB_SIZE_MAX_BYTES if self.size_bytes is None else self.size_bytes
        while data := await self._more():
            at += len(data)
            if at > stop:
                raise BadAnswer(f"more than {stop} bytes")
            if skip >= len(data):
                skip -= len(data)
                continue
            yield data[skip:] if skip else data
            skip = 0
        if self.size_bytes is not None and at != self.size_bytes:
            raise UpstreamError(f"the body ended at byte {at} of {self.size_bytes}")

    def limit_buffer(self, nbytes: int) -> None:
        """Let the source send at most about `nbytes` ahead of what was read; not to be undone."""
        if (sock := self._socket()) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, nbytes)

    @property
    def arrived_bytes(self) -> int:
        """What has come to this host, whether it was read or lies in the kernel's buffer."""
        waiting = array("i", [0])
        if (sock := self._socket()) is not None:
            fcntl.ioctl(sock.fileno(), termios.FIONREAD, waiting)
        return self._response.content.total_bytes + waiting[0]

    def _socket(self) -> socket.socket | None:
        connection = self._response.connection
        transport = connection.transport if connection is not None else None
        return transport.get_extra_info("socket") if transport is not None else None

    async def _more(self) -> bytes:
        """Return what arrived: `PROGRESS_BYTES` at least, or the end of the body."""
        parts: list[bytes] = []
        got = 0
        try:
            async with asyncio.timeout(self._idle_s):
                while got < PROGRESS_BYTES and (data := await self._response.content.readany()):
                    self._count(len(data))
                    parts.append(data)
                    got += len(data)
        except TimeoutError:
            raise UpstreamError(f"the body stood still for {self._idle_s} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(f"the body broke off: {type(error).__name__}") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)


def blob_span(response: aiohttp.ClientResponse, start: int) -> tuple[int | None, int]:
    """Return the blob's size, if told, and how many leading bytes have to be skipped.

    Raises BadAnswer for a 206 that is not what was asked for.
    """
    if response.status == 200:
        size = content_length(response)
        if size is not None and size < start:
            raise BadAnswer(f"a blob of {size} bytes, asked for from byte {start} on")
        return size, start
    match = _CONTENT_RANGE.fullmatch(response.headers.get(hdrs.CONTENT_RANGE, ""))
    if response.status != 206 or match is None:
        raise BadAnswer(f"status {response.status} without a Content-Range")
    first, stop = int(match[1]), int(match[2]) + 1
    size = None if match[3] == "*" else int(match[3])
    right = first == start and size in (None, stop)
    right = right and content_length(response) in (None, stop - start)
    if not right or stop > BLOB_SIZE_MAX_BYTES:
        raise BadAnswer(f"Content-Range {match[0]} for a request from byte {start} on")
    return size, 0


def range_total(response: aiohttp.ClientResponse) -> int | None:
    """The size of the whole, as the answer to any Range tells it."""
    if response.status == 200:
        return content_length(response)
    match = _CONTENT_RANGE.fullmatch(response.headers.get(hdrs.CONTENT_RANGE, ""))
    return int(match[3]) if match is not None and match[3] != "*" else None


def content_length(response: aiohttp.ClientResponse) -> int | None:
    """Return Content-Length; raise BadAnswer for one beyond any blob."""
    text = response.headers.get(hdrs.CONTENT_LENGTH, "")
    if _LENGTH.fullmatch(text) is None:
        return None
    if int(text) > BLOB_SIZE_MAX_BYTES:
        raise BadAnswer(f"a body of {text} bytes")
    return int(text)


async def read_bounded(
    response: aiohttp.ClientResponse, limit_bytes: int, *, idle_s: float = READ_IDLE_S
) -> bytes:
    """Read a whole body of at most `limit_bytes`; raise UpstreamError for more, or for a stall."""
    length = content_length(response)
    if length is not None and length > limit_bytes:
        raise BadAnswer(f"an answer of {length} bytes; at most {limit_bytes} are read")
    body = bytearray()
    try:
        async with asyncio.timeout(idle_s):
            async for data in response.content.iter_any():
                body += data
                if len(body) > limit_bytes:
                    raise BadAnswer(f"an answer of more than {limit_bytes} bytes")
    except TimeoutError:
        raise UpstreamError(f"the answer did not end within {idle_s} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamError(f"the answer broke off: {type(error).__name__}") from None
    return bytes(body)
