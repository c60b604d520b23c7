"""Spans of layers for threads that wait for them: each fetched and opened once, some kept."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from cachetools import LRUCache

from p2pdist.process import logs
from p2pdist.streaming.ahead import Ahead
from p2pdist.streaming.contents import WrongSpan, open_span
from p2pdist.streaming.core.index import LayerIndex
from p2pdist.streaming.core.policy import SpanKey, Why, expected_spans
from p2pdist.streaming.read_counts import Outcome, ReadCounts

log = logging.getLogger(__name__)

# Of a mount; what was read lies in the kernel's cache, so this is for what is read next to it.
KEPT_BYTES: Final = 64 << 20


class Ranges(Protocol):
    """Where bytes of one compressed blob come from. For any thread."""

    elsewhere: bool
    """They are fetched, and somebody waits for that."""

    def read_range(self, start: int, stop: int, *, again: bool = False) -> bytes:
        """Block until they are there; raise OSError when nobody brings them. `again`: those that
        came before were wrong."""
        ...


@dataclass(slots=True)
class _Coming:
    brought: Future[bytes] = field(default_factory=Future)
    asked_for: bool = False
    """Somebody waits for it."""


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
        self._kept: LRUCache[SpanKey, bytes] = LRUCache(kept_bytes, len)
        self._unread: dict[SpanKey, bytes] = {}
        """What nobody has asked for yet has a place of its own, which `ahead` bounds: a start that
        reads otherwise than others did loses nothing that it has read."""
        self._coming: dict[SpanKey, _Coming] = {}
        self.ahead = Ahead(clock, partial(_drop, self._lock, self._unread))

    def kept(self, key: SpanKey) -> bytes | None:
        with self._lock:
            return self._found(key)

    def get(self, key: SpanKey, bring: Callable[[], bytes]) -> bytes:
        """Return what is kept, what another thread is about to bring, or what `bring` returns;
        raise what that raises."""
        with self._lock:
            if (kept := self._found(key)) is not None:
                return kept
            coming = self._coming.get(key)
            mine = coming is None
            if coming is None:
                coming = self._coming[key] = _Coming()
            coming.asked_for = True
        try:
            return self._bring(key, coming, bring) if mine else coming.brought.result()
        finally:
            del coming  # it holds the error that holds this frame

    def open_unread(self, key: SpanKey, bring: Callable[[], bytes]) -> bool:
        """Have it here for whoever asks first; whether it is, and nobody has asked until now.
        Raises what `bring` raises."""
        with self._lock:
            if key in self._kept or key in self._coming or key in self._unread:
                return False
            coming = self._coming[key] = _Coming()
        try:
            self._bring(key, coming, bring)
            return not coming.asked_for
        finally:
            del coming  # it holds the error that holds this frame

    @property
    def unread_bytes(self) -> int:
        """Of what is open and nobody has asked for."""
        with self._lock:
            return sum(map(len, self._unread.values()))

    def _found(self, key: SpanKey) -> bytes | None:
        """While the lock is held."""
        kept: bytes | None = self._kept.get(key)
        if kept is None and (kept := self._unread.pop(key, None)) is not None:
            self._keep(key, kept)
        return kept

    def _bring(self, key: SpanKey, coming: _Coming, bring: Callable[[], bytes]) -> bytes:
        brought = coming.brought
        try:
            plain = bring()
        except BaseException as error:
            brought.set_exception(error)
            raise
        else:
            brought.set_result(plain)
            return plain
        finally:
            with self._lock:
                if brought.exception() is None:
                    if coming.asked_for:
                        self._keep(key, brought.result())
                    else:
                        self._unread[key] = brought.result()
                del self._coming[key]
            del coming, brought  # it holds the error that holds this frame

    def _keep(self, key: SpanKey, plain: bytes) -> None:
        """While the lock is held."""
        if len(plain) <= self._kept.maxsize:
            self._kept[key] = plain


def _drop(lock: threading.Lock, unread: dict[SpanKey, bytes], key: SpanKey) -> None:
    """Not a method: what has it done must not hold its store."""
    with lock:
        unread.pop(key, None)


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
        expected: Sequence[int] = (),
    ) -> None:
        """`number`: of the layer, among those that share `store`. `watch` is told of each read:
        start and stop in the archive. `expected`: what starts read of it, as traces say it."""
        self._watch = watch
        self.index = index
        self._number = number
        self._ranges = ranges
        self._store = store
        store.ahead.shown(number, self, expected_spans(index, expected))

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
        file_last = self.index.span_at(file_end - 1)
        while offset < stop:
            number = self.index.span_at(offset)
            begins, ends = self.index.spans[number].out_offset, self.index.span_end(number)
            self._store.ahead.read(self._number, number, file_last)
            plain, came = self._span(number)
            waited = waited or came
            parts.append(plain[offset - begins : min(stop, ends) - begins])
            offset = min(stop, ends)
        return (parts[0] if len(parts) == 1 else b"".join(parts)), waited

    def all(self) -> Iterator[bytes]:
        """All of the archive, a span at a time, none of it kept. Raises what `read` raises."""
        for number in range(len(self.index.spans)):
            yield self._bring(number, Why.DEMAND)

    # --- what `ahead` has done ------------------------------------------------------------------

    def open_ahead(self, span: int) -> None:
        """Have it here, kept as what was read is. Raises what `read` raises."""
        self._store.get((self._number, span), partial(self._bring, span, Why.AHEAD))

    def open_expected(self, span: int) -> bool:
        """Have it here; whether it is, and nobody has asked until now. Raises what `read`
        raises."""
        bring = partial(self._bring, span, Why.EXPECTED)
        return self._store.open_unread((self._number, span), bring)

    def have_brought(self, span: int) -> None:
        """Have it come to the mirror, and no further. Raises OSError."""
        data = self._ranges.read_range(*self.index.span_range(span))
        self._store.counts.fetched(Why.EXPECTED, len(data))

    # --- what is read ---------------------------------------------------------------------------

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
