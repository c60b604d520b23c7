"""Spans of layers for threads that wait for them: each fetched and opened once, some kept."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, Protocol

from cachetools import Cache, LRUCache, TTLCache

from p2pdist.process import logs
from p2pdist.streaming.contents import WrongSpan, open_span
from p2pdist.streaming.core.index import LayerIndex
from p2pdist.streaming.read_counts import Outcome, ReadCounts, Why

log = logging.getLogger(__name__)

# Of a mount; what was read lies in the kernel's cache, so this is for what is read next to it.
KEPT_BYTES: Final = 64 << 20
EXPECTED_BYTES: Final = 64 << 20
"""Of spans that are open before anybody asks: a start that reads 160 MiB is followed closely."""
EXPECTED_S: Final = 60.0
"""How long they wait for their reader: an image may be pulled and never run."""
AHEAD_SPANS: Final = 3
AHEAD_THREADS: Final = 4


class Ranges(Protocol):
    """Where bytes of one compressed blob come from. For any thread."""

    elsewhere: bool
    """They are fetched, and somebody waits for that."""

    def read_range(self, start: int, stop: int, *, again: bool = False) -> bytes:
        """Block until they are there; raise OSError when nobody brings them. `again`: those that
        came before were wrong."""
        ...


class SpanStore:
    """What all layers of a mount share. For any thread."""

    def __init__(
        self,
        kept_bytes: int = KEPT_BYTES,
        *,
        counts: ReadCounts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: in seconds."""
        self.counts = counts or ReadCounts()
        self._lock = threading.Lock()
        self._kept: LRUCache[tuple[int, int], bytes] = LRUCache(kept_bytes, len)
        self._expected: TTLCache[tuple[int, int], bytes] = TTLCache(
            EXPECTED_BYTES, EXPECTED_S, clock, len
        )
        self._coming: dict[tuple[int, int], Future[bytes]] = {}
        self._ahead = ThreadPoolExecutor(AHEAD_THREADS, thread_name_prefix="ahead")

    def kept(self, key: tuple[int, int]) -> bytes | None:
        with self._lock:
            return self._found(key)

    def get(self, key: tuple[int, int], bring: Callable[[], bytes]) -> bytes:
        """Return what is kept, what another thread is about to bring, or what `bring` returns;
        raise what that raises."""
        with self._lock:
            if (kept := self._found(key)) is not None:
                return kept
            coming = self._coming.get(key)
            mine = coming is None
            if coming is None:
                coming = self._coming[key] = Future()
        return self._brought(key, coming, bring, self._kept) if mine else coming.result()

    def expect(self, key: tuple[int, int], nbytes: int, bring: Callable[[], bytes]) -> bool:
        """Have it here for whoever asks first, and return then; False where there is no room for
        its `nbytes`. Raises what `bring` raises.

        What nobody has asked for yet has a place of its own: a start that reads otherwise than
        others did loses nothing that it has read."""
        with self._lock:
            if key in self._kept or key in self._coming or key in self._expected:
                return True
            if self._expected.currsize + nbytes > self._expected.maxsize:
                return False
            coming = self._coming[key] = Future()
        try:
            self._brought(key, coming, bring, self._expected)
        finally:
            del coming  # it holds the error that holds this frame
        return True

    @property
    def unread_bytes(self) -> int:
        """Of what is open and nobody has asked for."""
        with self._lock:
            return int(self._expected.currsize)

    def forget_unread(self) -> None:
        """Give up what was expected and nobody asked for; called now and then."""
        with self._lock:
            self._expected.expire()

    def _found(self, key: tuple[int, int]) -> bytes | None:
        """While the lock is held."""
        kept: bytes | None = self._kept.get(key)
        if kept is None and (kept := self._expected.pop(key, None)) is not None:
            _keep(self._kept, key, kept)
        return kept

    def _brought(
        self,
        key: tuple[int, int],
        coming: Future[bytes],
        bring: Callable[[], bytes],
        place: Cache[tuple[int, int], bytes],
    ) -> bytes:
        try:
            plain = bring()
        except BaseException as error:
            coming.set_exception(error)
            raise
        else:
            coming.set_result(plain)
            return plain
        finally:
            with self._lock:
                if coming.exception() is None:
                    _keep(place, key, coming.result())
                del self._coming[key]
            del coming  # it holds the error that holds this frame

    def bring_ahead(self, key: tuple[int, int], bring: Callable[[], bytes]) -> None:
        """Without waiting; nobody hears of a failure, and who reads it asks anew."""
        with self._lock:
            known = key in self._kept or key in self._coming or key in self._expected
        if not known:
            self._ahead.submit(self.get, key, bring)


def _keep(place: Cache[tuple[int, int], bytes], key: tuple[int, int], plain: bytes) -> None:
    if len(plain) <= place.maxsize:
        place[key] = plain


class LayerSpans:
    """The archive of one layer, read from any place."""

    def __init__(
        self,
        number: int,
        index: LayerIndex,
        ranges: Ranges,
        store: SpanStore,
        *,
        watch: Callable[[int, int], None] | None = None,
    ) -> None:
        """`number`: of the layer, among those that share `store`. `watch` is told of each read:
        start and stop in the archive."""
        self._watch = watch
        self.index = index
        self._number = number
        self._ranges = ranges
        self._store = store
        self._last = -1
        """The span that was read last: who reads on gets the next ones ahead of asking."""

    def read(self, offset: int, size: int, *, file_end: int) -> bytes:
        """Return these bytes of the archive; `file_end`: where the file ends that they are of.
        Raises OSError: EIO for what is not what its proxy signed."""
        if self._watch is not None:
            self._watch(offset, offset + size)
        counts = self._store.counts
        try:
            data, waited = self._assembled(offset, offset + size, file_end)
        except BaseException:
            counts.read(0, Outcome.FAILED)
            raise
        counts.read(len(data), Outcome.WAITED if waited else Outcome.KEPT)
        return data

    def _assembled(self, offset: int, stop: int, file_end: int) -> tuple[bytes, bool]:
        """The bytes, and whether any of them had to come from elsewhere."""
        parts, waited = [], False
        while offset < stop:
            number = self.index.span_at(offset)
            begins, ends = self.index.spans[number].out_offset, self.index.span_end(number)
            if number == self._last + 1:
                self._look_ahead(number, file_end)
            plain, came = self._span(number)
            waited = waited or came
            self._last = number
            parts.append(plain[offset - begins : min(stop, ends) - begins])
            offset = min(stop, ends)
        return (parts[0] if len(parts) == 1 else b"".join(parts)), waited

    def all(self) -> Iterator[bytes]:
        """All of the archive, a span at a time, none of it kept. Raises what `read` raises."""
        for number in range(len(self.index.spans)):
            yield self._bring(number, Why.DEMAND)

    def expect(self, number: int) -> None:
        """Open a span that is likely to be read, or have the mirror bring it where too many are
        open; return then. Raises what `read` raises."""
        begins, ends = self.index.spans[number].out_offset, self.index.span_end(number)
        bring = partial(self._bring, number, Why.EXPECTED)
        if not self._store.expect((self._number, number), ends - begins, bring):
            data = self._ranges.read_range(*self.index.span_range(number))
            self._store.counts.fetched(Why.EXPECTED, len(data))

    def _look_ahead(self, number: int, file_end: int) -> None:
        last = min(number + AHEAD_SPANS, self.index.span_at(file_end - 1))
        for ahead in range(number + 1, last + 1):
            self._store.bring_ahead((self._number, ahead), partial(self._bring, ahead, Why.AHEAD))

    def _span(self, number: int) -> tuple[bytes, bool]:
        """A span, and whether it was waited for."""
        key, bring = (self._number, number), partial(self._bring, number, Why.DEMAND)
        if (kept := self._store.kept(key)) is not None:
            return kept, False
        if not self._ranges.elsewhere:
            return self._store.get(key, bring), False
        with self._store.counts.waiting():
            return self._store.get(key, bring), True

    def _bring(self, number: int, why: Why) -> bytes:
        start, stop = self.index.span_range(number)
        for attempt in range(2):
            data = self._ranges.read_range(start, stop, again=attempt > 0)
            if self._ranges.elsewhere:
                self._store.counts.fetched(why, len(data))
            try:
                return open_span(self.index, number, data)
            except WrongSpan as error:
                logs.event(
                    log, logging.ERROR, "span.wrong",
                    digest=self.index.blob, attempt=attempt + 1, error=str(error),
                )  # fmt: skip
        raise OSError(errno.EIO, "not the bytes that the proxy signed")
