"""What has to come over a link, by request: those chunks, in that order, and nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from p2pdist.errors import PeerFault
from p2pdist.exchange.buffers import BufferPool
from p2pdist.exchange.frames import Data, Small

FORGOTTEN_MAX: Final = 1024


class Whole(NamedTuple):
    """All of a chunk, or of a small blob, unverified."""

    request_id: int
    data: bytearray
    chunk: int = 0
    media_type: str | None = None
    """Of a small blob; None: it is a chunk."""


@dataclass(slots=True)
class _Expected:
    """What has to come for one request, in this order."""

    chunks: deque[tuple[int, int]]
    small: bool = False
    media_type: str = ""
    buffer: bytearray = field(default_factory=bytearray)
    """Of the first chunk, in its full length from its first byte on."""
    filled: int = 0


class Incoming:
    """The requests of one link; buffers of chunks are taken from `pool`."""

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._expected: dict[int, _Expected] = {}
        self._forgotten: dict[int, None] = {}

    def __bool__(self) -> bool:
        return bool(self._expected)

    def expect_chunks(self, request_id: int, chunks: Sequence[tuple[int, int]]) -> None:
        """Allow (index, length) chunks to come for `request_id`, in this order and no others."""
        self._expected[request_id] = _Expected(deque(chunks))

    def expect_small(self, request_id: int) -> None:
        """Allow one small body to come for `request_id`."""
        self._expected[request_id] = _Expected(deque(), small=True)

    def forget(self, request_id: int) -> None:
        """Drop what still comes for a request that was cancelled or refused."""
        if self._expected.pop(request_id, None) is not None:
            self._forgotten[request_id] = None
            if len(self._forgotten) > FORGOTTEN_MAX:
                del self._forgotten[next(iter(self._forgotten))]

    def clear(self) -> None:
        self._expected.clear()

    def take(self, data: Data) -> Whole | None:
        """Keep a slice; return what it completes. Raises PeerFault for what was not asked for."""
        request_id, chunk, offset, payload = data.request_id, data.chunk, data.offset, data.payload
        expected = self._of(request_id, "data that nobody asked for")
        if expected is None:
            return None
        if not expected.chunks or expected.chunks[0][0] != chunk:
            raise PeerFault("data of another chunk than the next one")
        length, stop = expected.chunks[0][1], offset + len(payload)
        if offset != expected.filled or stop > length:
            raise PeerFault("data at a wrong offset", reason="length")
        if not expected.buffer:
            expected.buffer = self._pool.take(length)
        expected.buffer[offset:stop] = payload
        expected.filled = stop
        if stop < length:
            return None
        whole, expected.buffer, expected.filled = expected.buffer, bytearray(), 0
        expected.chunks.popleft()
        if not expected.chunks:
            del self._expected[request_id]
        if expected.small:
            return Whole(request_id, whole, media_type=expected.media_type)
        return Whole(request_id, whole, chunk)

    def take_small(self, head: Small) -> Whole | None:
        """Hear of a small body, whose data comes next; return it where it is empty."""
        request_id = head.request_id
        expected = self._of(request_id, "a small blob that nobody asked for")
        if expected is None:
            return None
        if not expected.small or expected.chunks:
            raise PeerFault("a small blob in place of chunks")
        expected.media_type = head.media_type
        if head.size_bytes:
            expected.chunks.append((0, head.size_bytes))
            return None
        del self._expected[request_id]
        return Whole(request_id, bytearray(), media_type=head.media_type)

    def _of(self, request_id: int, fault: str) -> _Expected | None:
        """None: it was given up a moment ago."""
        expected = self._expected.get(request_id)
        if expected is None and request_id not in self._forgotten:
            raise PeerFault(fault)
        return expected
