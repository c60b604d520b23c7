"""Reads files of one layer through its index, a span at a time, each fetched and opened once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from cachetools import LRUCache

from p2pdist.streaming.contents import WrongSpan, open_span
from p2pdist.streaming.core.index import LayerIndex

# A file may end in one span and the next one begin there; 8 MiB at most, mostly.
KEPT_SPANS: Final = 8
AHEAD_SPANS: Final = 4
"""Fetched beside the one that is read: of 0.35 MB each, enough to hide a round trip at 1 Gbit/s."""


class RangeSource(Protocol):
    """Where bytes of the compressed blob come from."""

    fetched_bytes: int
    """What came from elsewhere until now."""
    file: Path | None
    """All of the blob, or of its archive, where it lies here."""

    async def read_range(self, start: int, stop: int, *, again: bool = False) -> bytes:
        """Raise what its user understands; all of the range comes, or nothing. `again`: what came
        before was wrong."""
        ...


class LayerReader:
    """Not for several loops. Raises what its source raises, and WrongSpan."""

    def __init__(self, index: LayerIndex, source: RangeSource) -> None:
        self.index = index
        self.source = source
        self._kept: LRUCache[int, bytes] = LRUCache(KEPT_SPANS)
        self._coming: dict[int, asyncio.Task[bytes]] = {}
        self._expected: deque[int] = deque()

    def expect(self, files: Iterable[tuple[int, int]]) -> None:
        """These ranges of the archive, offset and size, will be read, in this order."""
        for offset, size in files:
            if size:
                first, last = self.index.span_at(offset), self.index.span_at(offset + size - 1)
                if self._expected and self._expected[-1] == first:
                    first += 1
                self._expected.extend(range(first, last + 1))

    async def pieces(self, offset: int, size: int) -> AsyncIterator[memoryview]:
        """The bytes of the archive from `offset` on, a span or less at a time."""
        stop = offset + size
        while offset < stop:
            number = self.index.span_at(offset)
            begins, ends = self.index.spans[number].out_offset, self.index.span_end(number)
            plain = memoryview(await self._span(number))
            end = min(stop, ends)
            yield plain[offset - begins : end - begins]
            offset = end

    async def close(self) -> None:
        """Give up what is on its way."""
        tasks = list(self._coming.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _span(self, number: int) -> bytes:
        while self._expected and self._expected[0] <= number:
            self._expected.popleft()
        self._begin(number)
        for ahead in islice(self._expected, AHEAD_SPANS):
            self._begin(ahead)
        plain = self._kept.get(number)
        return plain if plain is not None else await self._coming[number]

    def _begin(self, number: int) -> None:
        if number not in self._kept and number not in self._coming:
            task = asyncio.create_task(self._open(number))  # noqa: TID251  # ended by `close`
            self._coming[number] = task
            task.add_done_callback(lambda task: self._ended(number, task))

    def _ended(self, number: int, task: asyncio.Task[bytes]) -> None:
        """A span that nobody waits for may fail: whoever reads it asks for it anew."""
        del self._coming[number]
        if not task.cancelled():
            task.exception()

    async def _open(self, number: int) -> bytes:
        start, stop = self.index.span_range(number)
        data = await self.source.read_range(start, stop)
        try:
            plain = await asyncio.to_thread(open_span, self.index, number, data)
        except WrongSpan:  # what lies here may have rotted
            data = await self.source.read_range(start, stop, again=True)
            plain = await asyncio.to_thread(open_span, self.index, number, data)
        self._kept[number] = plain
        return plain
