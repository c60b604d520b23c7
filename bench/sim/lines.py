"""Lines to trackers: the core of a daemon's control connection, and encoded messages both ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Protocol

import msgspec

from bench.sim.clock import Clock, Timer
from bench.sim.wire import Outage, Route
from p2pdist.control.core import events, orders
from p2pdist.control.core.state import ControlCore
from p2pdist.model.control import Delta, FromTracker, Handout, LeaseAnswer, SwarmKey
from p2pdist.model.members import Member

FROM_TRACKER = msgspec.msgpack.Decoder(FromTracker)
ENCODER = msgspec.msgpack.Encoder()
DIAL_S = 0.001
# Whoever hears nothing gives a dial up.
CONNECT_S = 1.5


class TrackerEnd(Protocol):
    """The other end of a line."""

    member: Member
    alive: bool

    def connect(
        self, member: Member, hear: Callable[[bytes | None], None], latency_s: float
    ) -> int: ...

    def send(self, link: int, data: bytes) -> None: ...

    def disconnect(self, link: int, *, leaving: bool = False) -> None: ...


class TrackerLine:
    """One host's, or that of the tracker of another datacenter."""

    def __init__(
        self,
        clock: Clock,
        member: Member,
        rng: Random,
        *,
        inventory: Callable[[], list[Delta]] = list,
        take_handout: Callable[[Handout], None] = lambda _: None,
        moved: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`inventory`: all that the host holds. `moved` is told that the tracker can be asked, or
        cannot any more."""
        self.core = ControlCore(["simulated"], rng=rng)
        self._clock = clock
        self._member = member
        self._inventory = inventory
        self._take_handout = take_handout
        self._moved = moved
        self._tracker: TrackerEnd | None = None
        self._route = Route(0.0)
        self._line = 0
        self._link: int | None = None
        self._timer: Timer | None = None
        self._ended = False
        self._leases: dict[int, Callable[[LeaseAnswer | None], None]] = {}

    # --- what is done with it -------------------------------------------------------------------

    def start(
        self, tracker: TrackerEnd, latency_s: float, outages: tuple[Outage, ...] = ()
    ) -> None:
        self._tracker = tracker
        self._route = Route(latency_s, outages=outages)
        self.happened(events.Started())

    def stop(self, *, leaving: bool) -> None:
        """Its host is killed, or leaves with a word to the tracker."""
        self._ended = True
        if self._tracker is not None and self._link is not None:
            self._tracker.disconnect(self._link, leaving=leaving)

    def lease(
        self,
        key: SwarmKey,
        timeout_s: float,
        then: Callable[[LeaseAnswer | None], None],
        on_behalf: Member | None = None,
    ) -> None:
        """Ask for a lease; `then` hears the answer, None if there is none in time."""
        seq = self.core.number()
        self._leases[seq] = then
        until_s = self._clock.now_s + timeout_s
        self.happened(events.LeaseWanted(seq, key, until_s, on_behalf))

    def end_lease(self, key: SwarmKey, fence: int) -> None:
        self.happened(events.LeaseEnded(key, fence))

    def happened(self, event: events.Event) -> None:
        """Tell the core, and do what it orders."""
        if not self._ended:
            self._carry_out(self.core.handle(event, self._clock.now_s))

    # --- orders ---------------------------------------------------------------------------------

    def _carry_out(self, given: list[orders.Order]) -> None:
        for order in given:
            self._do(order)
        due_s, timer = self.core.next_deadline_s(), self._timer
        if due_s is None or (timer is not None and timer.call and timer.due_s <= due_s):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._clock.at(due_s, self._on_deadline)

    def _on_deadline(self) -> None:
        if not self._ended:
            self._carry_out(self.core.handle_deadline(self._clock.now_s))

    def _do(self, order: orders.Order) -> None:
        match order:
            case orders.Dial(line):
                self._line = line
                self._clock.after(DIAL_S, partial(self._dialled, line))
            case orders.Send(line, message):
                if line == self._line and self._tracker is not None and self._link:
                    self._when_open(
                        partial(self._tracker.send, self._link, ENCODER.encode(message))
                    )
            case orders.AskInventory(line):
                self.happened(events.InventoryTold(line, self._inventory()))
            case orders.ReportDrained(line):
                self.happened(events.Drained(line))
            case orders.TakeHandout(handout):
                self._take_handout(handout)
            case orders.AnswerLease(seq, answer):
                self._leases.pop(seq)(answer)
            case orders.TrackerUp() | orders.TrackerDown():
                self._moved(isinstance(order, orders.TrackerUp))
            case orders.HangUp(line) | orders.Abort(line):
                self._clock.at(self._clock.now_s, partial(self.happened, events.LineLost(line)))
            case orders.Ping(line):
                if self._tracker is not None and self._tracker.alive and self._open:
                    self._clock.after(DIAL_S, partial(self.happened, events.Heard(line)))
            case _:
                pass

    def _dialled(self, line: int) -> None:
        tracker = self._tracker
        if self._ended or tracker is None:
            return
        if not self._open:
            self._clock.after(CONNECT_S, partial(self.happened, events.LineLost(line)))
            return
        if not tracker.alive:
            self.happened(events.LineLost(line))
            return
        self.happened(events.Connected(line, self._member))
        self.happened(events.Greeted(line, tracker.member))
        self._link = tracker.connect(self._member, partial(self._hear, line), self._route.latency_s)

    @property
    def _open(self) -> bool:
        """Something passes."""
        return self._route.arrives_s(self._clock.now_s) <= self._clock.now_s

    def _when_open(self, do: Callable[[], None]) -> None:
        if self._open:
            do()
        else:
            self._clock.at(self._route.arrives_s(self._clock.now_s), do)

    def _hear(self, line: int, data: bytes | None) -> None:
        self._when_open(partial(self._told, line, data))

    def _told(self, line: int, data: bytes | None) -> None:
        if data is None:
            self.happened(events.LineLost(line))
        else:
            self.happened(events.Received(line, FROM_TRACKER.decode(data)))
