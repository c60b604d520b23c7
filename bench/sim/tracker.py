"""The tracker of a simulated datacenter: the daemon's core, and encoded messages both ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final, assert_never

import msgspec

from bench.sim.clock import Clock, Timer
from bench.sim.lines import ENCODER, TrackerLine
from bench.sim.wire import Outage
from p2pdist.model.control import FromTracker, LeaseAnswer, SwarmKey, ToTracker
from p2pdist.model.ids import HostId
from p2pdist.model.members import Member, Place, Role
from p2pdist.model.statements import Keyring
from p2pdist.tracker.core.grants import Forward, ForwardEnd
from p2pdist.tracker.core.orders import Close, Send, SendAll, SendMany
from p2pdist.tracker.core.state import (
    Event,
    HostConnected,
    HostDisconnected,
    MessageReceived,
    Order,
    RemoteAnswered,
    RemotesChanged,
    TrackerCore,
)

TO_TRACKER = msgspec.msgpack.Decoder(ToTracker)
# As `tracker/federation.py` has it.
ANSWER_S: Final = 0.5
CHECKED_HOSTS: Final = 64


class SimTracker:
    """Answers over lines of a latency; dead after `stop`."""

    def __init__(self, clock: Clock, dc: str, number: int, *, rng: Random) -> None:
        """`number`: below 16, of one tracker only."""
        self.member = Member(HostId(f"{number:032x}"), Role.TRACKER, Place(dc))
        self.alive = True
        self.checks = False
        """Its core is held to what must hold after events: see `_validate`."""
        self._clock = clock
        self._rng = rng
        self.core = self._new_core("simulated")
        self._hear: dict[int, tuple[Callable[[bytes | None], None], float]] = {}
        """By link: whom to tell, and the latency; None: it ended."""
        self._remotes: dict[str, TrackerLine] = {}
        """Lines to the trackers of other datacenters."""
        self._others: list[tuple[SimTracker, float, tuple[Outage, ...]]] = []
        """Those trackers, and what lies between."""
        self._reached: set[str] = set()
        self._links = 0
        self._timer: Timer | None = None
        self._unchecked = 0
        """Events since it was held to that."""

    def _new_core(self, epoch: str) -> TrackerCore:
        return TrackerCore(
            epoch=epoch,
            dc=self.member.place.dc,
            epoch_s=0.0,
            epoch_unix_s=0.0,
            keyring=Keyring([]),
            rng=self._rng,
            token=lambda n: bytes(n),
        )

    def federate(
        self, other: SimTracker, latency_s: float, outages: tuple[Outage, ...] = ()
    ) -> None:
        """Ask the tracker of another datacenter for what it is to decide."""
        self._others.append((other, latency_s, outages))
        self._call(other, latency_s, outages)

    def _call(self, other: SimTracker, latency_s: float, outages: tuple[Outage, ...]) -> None:
        dc = other.member.place.dc
        line = TrackerLine(self._clock, self.member, self._rng, moved=partial(self._moved, dc))
        self._remotes[dc] = line
        line.start(other, latency_s, outages)

    def _moved(self, dc: str, up: bool) -> None:
        self._reached = self._reached | {dc} if up else self._reached - {dc}
        self._happened(RemotesChanged(frozenset(self._reached)))

    def connect(
        self, member: Member, hear: Callable[[bytes | None], None], latency_s: float
    ) -> int:
        """Return the number of a new link, over which `hear` is told things."""
        self._links += 1
        self._hear[self._links] = hear, latency_s
        self._happened(HostConnected(self._links, member))
        return self._links

    def send(self, link: int, data: bytes) -> None:
        """What a host says comes after the latency."""
        if link in self._hear:
            self._clock.after(self._hear[link][1], lambda: self._receive(link, data))

    def _receive(self, link: int, data: bytes) -> None:
        if link in self._hear:
            self._happened(MessageReceived(link, TO_TRACKER.decode(data)))

    def _happened(self, event: Event) -> None:
        if self.alive:
            self._carry_out(self.core.handle(event, self._clock.now_s))

    def disconnect(self, link: int, *, leaving: bool = False) -> None:
        """The host's end is gone."""
        if self._hear.pop(link, None) is not None:
            self._happened(HostDisconnected(link, leaving))

    def stop(self) -> None:
        """It is killed: all lines break."""
        self.alive = False
        for link in list(self._hear):
            self._hang_up(link)
        for line in self._remotes.values():
            line.stop(leaving=False)

    def start_again(self) -> None:
        """It is back, and knows nothing of before."""
        assert not self.alive
        self.alive = True
        self.core, self._timer = self._new_core("simulated again"), None
        self._reached, self._remotes = set(), {}
        for other in self._others:
            self._call(*other)

    def _hang_up(self, link: int) -> None:
        if (end := self._hear.pop(link, None)) is not None:
            hear, latency_s = end
            self._clock.after(latency_s, lambda: hear(None))

    def _carry_out(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Send(link, message):
                    self._tell([link], message)
                case SendMany(links, message):
                    self._tell(list(links), message)
                case SendAll(message):
                    self._tell(list(self._hear), message)
                case Close(link):
                    self._hang_up(link)
                case Forward(dc):
                    answered = partial(self._answered, order)
                    key = SwarmKey(order.ask.key)
                    self._remotes[dc].lease(key, ANSWER_S, answered, on_behalf=order.member)
                case ForwardEnd(dc, key, fence):
                    self._remotes[dc].end_lease(key, fence)
                case _:
                    assert_never(order)
        if self.checks:
            self._validate()
        self._set_timer()

    def _validate(self) -> None:
        """After every event where it costs little; it looks at all hosts, so that of many hosts
        each event pays for `CHECKED_HOSTS` of them."""
        self._unchecked += 1
        if self._unchecked * CHECKED_HOSTS >= len(self.core.hosts):
            self._unchecked = 0
            self.core.validate()
            for line in self._remotes.values():
                line.core.validate()

    def _answered(self, order: Forward, answer: LeaseAnswer | None) -> None:
        self._happened(RemoteAnswered(order, answer))

    def _tell(self, links: list[int], message: FromTracker) -> None:
        data = ENCODER.encode(message)
        for link in links:
            if (end := self._hear.get(link)) is not None:
                hear, latency_s = end
                self._clock.after(latency_s, lambda hear=hear: hear(data))  # type: ignore[misc]

    def _set_timer(self) -> None:
        due_s = self.core.next_deadline_s()
        if due_s is None or (
            self._timer is not None and self._timer.due_s <= due_s and self._timer.call
        ):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.at(due_s, self._on_deadline)

    def _on_deadline(self) -> None:
        if self.alive:
            self._carry_out(self.core.handle_deadline(self._clock.now_s))
