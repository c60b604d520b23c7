"""A host's core that writes down what it hears and decides, in lines of `trace_lines`.

A core that is not traced pays nothing for this: what is traced are classes of their own, that do
what theirs do. Orders are written down when they are given, before anything can come between.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from p2pdist.errors import ErrorReason
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.ids import Digest, HostId, RequestId
from p2pdist.model.statements import HashBatch, MapHead, Seal
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.host import HostCore, SwarmFrame
from p2pdist.swarm.core.host_orders import Order
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.statements import Said
from p2pdist.swarm.core.trace_lines import (
    Line,
    began,
    fill_frame,
    fill_order,
    map_name,
    runs_of,
    short,
)
from p2pdist.swarm.core.wanting import Wanting

READER_LINES_MIN: Final = 256
READER_LINES_PER_CHUNK: Final = 8
"""Of all readers of a blob in one motion: three readers in order need four for each chunk."""

_encode: Final = msgspec.json.Encoder().encode


class Trace:
    """The lines of one host. `write` takes each as bytes, with its line break."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.now_s = 0.0
        """Of the event that is being dealt with."""
        self._write = write
        self._host = ""
        self._links: WeakKeyDictionary[LinkState, int] = WeakKeyDictionary()
        self._numbers = itertools.count(1)

    def begin(self, host: HostId, now_s: float, *, role: str, dc: str, unix_s: float = 0.0) -> None:
        """From here on it is the trace of `host`. `unix_s`: the wall clock, for who reads it."""
        self._host, self.now_s = host, now_s
        self.put(began(host, now_s, role=role, dc=dc, unix_s=unix_s))

    def line(self, what: str, **fields: Any) -> Line:
        """A line of now, not written yet."""
        return Line(self.now_s, self._host, what, **fields)

    def put(self, line: Line) -> None:
        self._write(_encode(line) + b"\n")

    def note(self, what: str, **fields: Any) -> None:
        self.put(self.line(what, **fields))

    def number(self, link: LinkState) -> int:
        number = self._links.get(link)
        if number is None:
            number = self._links[link] = next(self._numbers)
        return number

    def order(self, order: Order) -> None:
        line = self.line(type(order).__name__)
        if (link := getattr(order, "link", None)) is not None:
            line.link = self.number(link)
        if (links := getattr(order, "links", None)) is not None:
            line.links = [self.number(each) for each in links]
        fill_order(line, order)
        self.put(line)


class TracedOrders(deque[Order]):
    """A host's orders, each written down as it is given."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def append(self, order: Order, /) -> None:
        self._trace.order(order)
        super().append(order)

    def extend(self, orders: Iterable[Order], /) -> None:
        for order in orders:
            self.append(order)


class TracedHost(HostCore):
    """A `HostCore` with a trace."""

    def __init__(self, *args: Any, trace: Trace, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trace = trace
        self.orders = TracedOrders(trace)

    def _new_blob(self, digest: Digest, size_bytes: int, now_s: float) -> BlobCore:
        self.trace.now_s = now_s
        self.trace.note("take_up", blob=short(digest), size_bytes=size_bytes)
        return TracedBlob(self, self.trace, digest, size_bytes, now_s)

    def let_go(self, blob: BlobCore, now_s: float) -> None:
        self.trace.now_s = now_s
        super().let_go(blob, now_s)
        self.trace.note("let_go", blob=short(blob.digest))

    def link_up(self, link: LinkState) -> None:
        member = link.member
        self.trace.note(
            "link_up",
            link=self.trace.number(link),
            peer=member.host_id,
            role=member.role.value,
            dc=member.place.dc,
        )
        super().link_up(link)

    def link_down(self, link: LinkState, now_s: float, *, gone: bool, why: str = "") -> None:
        self.trace.now_s = now_s
        self.trace.note("link_down", link=self.trace.number(link), gone=gone, why=why)
        super().link_down(link, now_s, gone=gone, why=why)

    def hear(self, link: LinkState, frame: SwarmFrame, now_s: float) -> None:
        self.trace.now_s = now_s
        line = self.trace.line("hear", link=self.trace.number(link))
        fill_frame(line, frame)
        self.trace.put(line)
        super().hear(link, frame, now_s)

    def hear_statement(
        self, link: LinkState, statement: MapHead | HashBatch | Seal, record: bytes, now_s: float
    ) -> None:
        self.trace.now_s = now_s
        line = self.trace.line("hear", link=self.trace.number(link))
        line.frame, line.map = type(statement).__name__, map_name(statement.map_id)
        if isinstance(statement, HashBatch):
            line.first, line.count = statement.first, statement.count
        self.trace.put(line)
        super().hear_statement(link, statement, record, now_s)

    def tracker_moved(self, now_s: float, *, up: bool) -> None:
        self.trace.now_s = now_s
        self.trace.note("tracker_moved", good=up)
        super().tracker_moved(now_s, up=up)

    def act(self, now_s: float) -> None:
        self.trace.now_s = now_s
        super().act(now_s)

    def handle_deadline(self, now_s: float) -> None:
        self.trace.now_s = now_s
        super().handle_deadline(now_s)


class TracedWanting(Wanting):
    """What of a blob is wanted, with what its readers do."""

    def trace_to(self, write_down: Callable[..., None], lines: Callable[[], int]) -> None:
        """`lines`: how many there may be in this motion."""
        self._write_down = write_down
        self._lines_max = lines
        self._lines = 0
        self._next: dict[int, int] = {}
        """By reader: where it is once it has got what went out to it."""

    def reader_at(
        self, reader: int, offset: int, now_s: float, *, until: int | None = None
    ) -> None:
        if self._next.get(reader) != offset:
            self._say("reader_at", now_s, reader=reader, start=offset, stop=until or 0)
        self._next[reader] = offset
        super().reader_at(reader, offset, now_s, until=until)

    def goes_out(self, reader: int, start: int, stop: int, now_s: float) -> None:
        self._next[reader] = stop
        self._say("goes_out", now_s, reader=reader, start=start, stop=stop)
        super().goes_out(reader, start, stop, now_s)

    def close_reader(self, reader: int, now_s: float) -> bool:
        if self._next.pop(reader, None) is not None:
            self._say("reader_left", now_s, reader=reader)
        return super().close_reader(reader, now_s)

    def _say(self, what: str, now_s: float, **fields: int) -> None:
        """A mount may read what is here as often as it likes: that is not to fill the trace."""
        self._lines += 1
        if self._lines < self._lines_max():
            self._write_down(what, now_s, **fields)
        elif self._lines == self._lines_max():
            self._write_down("readers_unsaid", now_s)


class TracedBlob(BlobCore):
    """A `BlobCore` with the trace of its host."""

    _wanting_type = TracedWanting

    def __init__(
        self, host: HostCore, trace: Trace, digest: Digest, size_bytes: int, now_s: float
    ) -> None:
        self._trace = trace
        super().__init__(host, digest, size_bytes, now_s)
        assert isinstance(self.wanting, TracedWanting)
        self.wanting.trace_to(self._write_down, self._reader_lines_max)

    def _reader_lines_max(self) -> int:
        return READER_LINES_MIN + READER_LINES_PER_CHUNK * self.geometry.chunk_count

    def _write_down(self, what: str, now_s: float, **fields: Any) -> None:
        self._trace.now_s = now_s
        self._trace.note(what, blob=short(self.digest), **fields)

    def hear(self, link: LinkState | None, said: Said, now_s: float, record: bytes = b"") -> None:
        if link is None and isinstance(said, MapHead | HashBatch | Seal):  # our own ingest
            self._write_down("hear", now_s, frame=type(said).__name__, map=map_name(said.map_id))
        super().hear(link, said, now_s, record)

    def map_followed(self, chunk_map: ChunkMap, held: int, now_s: float) -> None:
        self._write_down(
            "map_followed",
            now_s,
            map=map_name(chunk_map.map_id),
            count=chunk_map.geometry.chunk_count,
            runs=runs_of(chunk_map.known.bits),
            sealed=chunk_map.sealed,
            size_bytes=chunk_map.geometry.size_bytes,
            chunk_size_bytes=chunk_map.geometry.chunk_size_bytes,
        )
        super().map_followed(chunk_map, held, now_s)

    def map_grew(self, record: bytes, bits: int, held: int, now_s: float) -> None:
        self._write_down("map_grew", now_s, runs=runs_of(bits))
        super().map_grew(record, bits, held, now_s)

    def map_sealed(self, record: bytes, now_s: float) -> None:
        self._write_down("map_sealed", now_s)
        super().map_sealed(record, now_s)

    def landed(self, bits: int, now_s: float) -> None:
        self._write_down("landed", now_s, runs=runs_of(bits))
        super().landed(bits, now_s)

    def lost(self, bits: int, now_s: float) -> None:
        self._write_down("lost", now_s, runs=runs_of(bits))
        super().lost(bits, now_s)

    def arrived(
        self, link: LinkState, request_id: RequestId, chunk: int, now_s: float, *, good: bool
    ) -> None:
        number = self._trace.number(link)
        self._write_down("arrived", now_s, link=number, request=request_id, chunk=chunk, good=good)
        if good:
            self._write_down("landed", now_s, runs=[(chunk, 1)])
        super().arrived(link, request_id, chunk, now_s, good=good)

    def fail(self, why: str, now_s: float, refusal: ErrorReason | None = None) -> None:
        self._write_down("fail", now_s, why=why)
        super().fail(why, now_s, refusal)
