"""Network cards, the links between datacenters, and what crosses a link between two hosts.

A chunk takes the sender's card, then perhaps a link between datacenters, then the receiver's card,
each at its rate and one after the other; the same bytes may be on all of them at once, but for the
latency. Links share a sender's card chunk by chunk in turn. What has been sent on a link and not
arrived is bounded, as a TCP window does: a busy receiver slows its senders down, and they serve
others meanwhile. Control frames take the card's time, and overtake chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bench.sim.clock import Clock

# What TCP lets be on its way to a receiver that is busy, at the latencies of a datacenter; over
# longer ways, what the sender's card brings in two round trips.
WINDOW_BYTES: Final = 1 << 20


class Lane:
    """Takes bytes at a rate, in the order in which they began to come."""

    __slots__ = ("bytes_per_s", "bytes_total", "free_s")

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.free_s = 0.0
        """When what it was given until now has gone through."""
        self.bytes_total = 0

    def take(self, nbytes: int, begin_s: float, come_s: float) -> float:
        """When bytes are through that begin to come at `begin_s` and have come at `come_s`."""
        self.bytes_total += nbytes
        self.free_s = max(come_s, max(begin_s, self.free_s) + nbytes / self.bytes_per_s)
        return self.free_s


@dataclass(eq=False, slots=True)
class Parcel:
    """One chunk on its way."""

    request_id: int
    chunk: int
    nbytes: int
    good: bool = True


@dataclass(eq=False, slots=True)
class Run:
    """What was asked for in one request, and has not left."""

    request_id: int
    parcels: deque[Parcel]
    done: Callable[[int], None]
    """Called once, with the bits of the chunks that left."""
    bulk: bool = False
    sent: int = 0
    """The bits of those that did."""


class Route(NamedTuple):
    """Between the cards of two hosts."""

    latency_s: float
    lanes: tuple[Lane, ...] = ()


class Card:
    """A host's network card: its receiving side, and its senders in turn."""

    def __init__(self, clock: Clock, up_bytes_per_s: float, down_bytes_per_s: float) -> None:
        self.up = Lane(up_bytes_per_s)
        self.down = Lane(down_bytes_per_s)
        self._clock = clock
        self._turns: deque[End] = deque()
        self._sending = False

    def serve(self, end: End) -> None:
        """`end` has something to send."""
        if not end.queued and end.ready:
            end.queued = True
            self._turns.append(end)
        if not self._sending:
            self._send()

    def _send(self) -> None:
        while self._turns and not self._sending:
            end = self._turns.popleft()
            end.queued = False
            if not end.ready:
                continue
            free_s = end.send_next(self._clock.now_s)
            self._sending = True
            self._clock.at(free_s, self._sent)
            if end.ready:
                end.queued = True
                self._turns.append(end)

    def _sent(self) -> None:
        self._sending = False
        self._send()

    def control(self, nbytes: int) -> None:
        """Bytes of a frame: they delay the chunks behind them."""
        self.up.bytes_total += nbytes
        now_s = self._clock.now_s
        self.up.free_s = max(self.up.free_s, now_s) + nbytes / self.up.bytes_per_s


@dataclass(eq=False)
class End:
    """One direction of a link between two hosts."""

    clock: Clock
    here: Card
    there: Card
    route: Route
    take_chunk: Callable[[Parcel], None]
    """What the other end does with a chunk."""
    take_frames: Callable[[bytes], None]
    closed: bool = False
    queued: bool = False
    received_bytes: int = 0
    """Of payload, by the other end."""
    _runs: deque[Run] = field(default_factory=deque)
    _bulk: deque[Run] = field(default_factory=deque)
    _in_window: int = 0
    _window: float = 0.0

    def __post_init__(self) -> None:
        self._window = max(WINDOW_BYTES, 4 * self.route.latency_s * self.here.up.bytes_per_s)

    @property
    def ready(self) -> bool:
        return not self.closed and self._in_window < self._window and bool(self._runs or self._bulk)

    def send_frames(self, data: bytes) -> None:
        """Say something to the other end."""
        self.here.control(len(data))
        self.there.down.bytes_total += len(data)
        self.clock.after(self.route.latency_s, lambda: self._frames_come(data))

    def _frames_come(self, data: bytes) -> None:
        if not self.closed:
            self.take_frames(data)

    def add(self, run: Run) -> None:
        """Send what was asked for."""
        (self._bulk if run.bulk else self._runs).append(run)
        self.here.serve(self)

    def cancel(self, request_id: int) -> None:
        """What has not left of a request need not go."""
        for runs in (self._runs, self._bulk):
            for run in runs:
                if run.request_id == request_id:
                    runs.remove(run)
                    run.done(run.sent)
                    return

    def send_next(self, now_s: float) -> float:
        """Send a chunk; return when the card is free for another one."""
        runs = self._runs or self._bulk
        run = runs[0]
        parcel = run.parcels.popleft()
        run.sent |= 1 << parcel.chunk
        begin_s = max(now_s, self.here.up.free_s)
        left_s = self.here.up.take(parcel.nbytes, begin_s, begin_s)
        begin_s, come_s = begin_s + self.route.latency_s, left_s + self.route.latency_s
        for lane in (*self.route.lanes, self.there.down):
            lane_free_s = lane.free_s
            come_s = lane.take(parcel.nbytes, begin_s, come_s)
            begin_s = max(begin_s, lane_free_s)
        self._in_window += parcel.nbytes
        self.clock.at(come_s, lambda: self._chunk_comes(parcel))
        if not run.parcels:
            runs.popleft()
            self.clock.at(left_s, lambda: run.done(run.sent))
        return left_s

    def _chunk_comes(self, parcel: Parcel) -> None:
        self._in_window -= parcel.nbytes
        if not self.closed:
            self.received_bytes += parcel.nbytes
            self.take_chunk(parcel)
        self.here.serve(self)

    def close(self) -> None:
        """Nothing more goes or comes."""
        self.closed = True
        for runs in (self._runs, self._bulk):
            while runs:
                run = runs.popleft()
                run.done(run.sent)
