"""Network cards, the links between datacenters, and what crosses a link between two hosts.

A chunk takes the sender's card, then perhaps a link between datacenters, then the receiver's card,
each at its rate and one after the other; the same bytes may be on all of them at once, but for the
latency. Links share a sender's card in turn: chunk by chunk, or slice by slice where a chunk takes
long, so that whoever waits for one sees it come. What has been sent on a link and not arrived is
bounded, as a TCP window does: a busy receiver slows its senders down, and they serve others
meanwhile. Control frames take the card's time, and overtake chunks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bench.sim.clock import Clock
from p2pdist.exchange.frames import SLICE_BYTES_MAX

# What the kernel takes of a sender beyond what is on its way (`TCP_NOTSENT_LOWAT`): no cancel
# overtakes it.
UNSENT_BYTES: Final = 128 << 10
# A chunk that takes longer than this goes in slices: for a reader half a second without 32 KiB is
# silence, and several senders share its card.
WHOLE_S: Final = 0.005


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
    sent_bytes: int = 0
    """How much of it has left."""


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


class Outage:
    """While nothing passes. What was on its way comes afterwards, as TCP sends it again."""

    __slots__ = ("from_s", "until_s")

    def __init__(self, from_s: float = math.inf, until_s: float = math.inf) -> None:
        self.from_s = from_s
        self.until_s = until_s

    def arrives_s(self, at_s: float) -> float:
        """When it comes that would have come at `at_s`."""
        return self.until_s if self.from_s <= at_s < self.until_s else at_s


class Route(NamedTuple):
    """Between the cards of two hosts."""

    latency_s: float
    lanes: tuple[Lane, ...] = ()
    outages: tuple[Outage, ...] = ()
    unsent_bytes: float = UNSENT_BYTES
    """See there; less where bytes stand for more."""

    def arrives_s(self, at_s: float) -> float:
        """See `Outage`."""
        for outage in self.outages:
            at_s = outage.arrives_s(at_s)
        return at_s


class Card:
    """A host's network card: its receiving side, and its senders in turn."""

    def __init__(self, clock: Clock, up_bytes_per_s: float, down_bytes_per_s: float) -> None:
        self.up = Lane(up_bytes_per_s)
        self.down = Lane(down_bytes_per_s)
        self.cut_bytes = 0
        """What comes of chunks that were taken back half sent."""
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
    _slice: float = 0.0

    def __post_init__(self) -> None:
        """Two round trips of what the slower card takes are on their way where nothing is lost."""
        bytes_per_s = min(self.here.up.bytes_per_s, self.there.down.bytes_per_s)
        self._window = self.route.unsent_bytes + 4 * self.route.latency_s * bytes_per_s
        self._slice = max(SLICE_BYTES_MAX, WHOLE_S * bytes_per_s)

    @property
    def ready(self) -> bool:
        return not self.closed and self._in_window < self._window and bool(self._runs or self._bulk)

    def send_frames(self, data: bytes) -> None:
        """Say something to the other end."""
        self.here.control(len(data))
        for lane in (*self.route.lanes, self.there.down):
            lane.bytes_total += len(data)
        come_s = self.route.arrives_s(self.clock.now_s + self.route.latency_s)
        self.clock.at(come_s, lambda: self._frames_come(data))

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
                    self.there.cut_bytes += run.parcels[0].sent_bytes
                    run.done(run.sent)
                    return

    def send_next(self, now_s: float) -> float:
        """Send a chunk, or a slice of it; return when the card is free for another one."""
        runs = self._runs or self._bulk
        run = runs[0]
        parcel = run.parcels[0]
        left = parcel.nbytes - parcel.sent_bytes
        nbytes = left if parcel.nbytes <= self._slice else min(left, SLICE_BYTES_MAX)
        left_s = self._take_lanes(parcel, nbytes, max(now_s, self.here.up.free_s))
        if nbytes == left:
            run.sent |= 1 << parcel.chunk
            run.parcels.popleft()
        if not run.parcels:
            runs.popleft()
            self.clock.at(left_s, lambda: run.done(run.sent))
        return left_s

    def _take_lanes(self, parcel: Parcel, nbytes: int, begin_s: float) -> float:
        """Send bytes of a chunk; return when they have left the card."""
        left_s = self.here.up.take(nbytes, begin_s, begin_s)
        begin_s, come_s = begin_s + self.route.latency_s, left_s + self.route.latency_s
        for lane in (*self.route.lanes, self.there.down):
            lane_free_s = lane.free_s
            come_s = lane.take(nbytes, begin_s, come_s)
            begin_s = max(begin_s, lane_free_s)
        parcel.sent_bytes += nbytes
        self._in_window += nbytes
        whole = parcel.sent_bytes == parcel.nbytes
        come_s = self.route.arrives_s(come_s)
        self.clock.at(come_s, lambda: self._comes(parcel if whole else None, nbytes))
        return left_s

    def _comes(self, whole: Parcel | None, nbytes: int) -> None:
        self._in_window -= nbytes
        if not self.closed:
            self.received_bytes += nbytes
            if whole is not None:
                self.take_chunk(whole)
        self.here.serve(self)

    def close(self) -> None:
        """Nothing more goes or comes."""
        self.closed = True
        for runs in (self._runs, self._bulk):
            while runs:
                run = runs.popleft()
                run.done(run.sent)
