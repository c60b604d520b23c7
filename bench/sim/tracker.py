"""The tracker of a simulated datacenter: the daemon's core, and encoded messages both ways."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from bench.sim.clock import Clock, Timer
from p2pdist.model.control import FromTracker, ToTracker
from p2pdist.model.ids import HostId
from p2pdist.model.members import Member, Place, Role
from p2pdist.model.statements import Keyring
from p2pdist.tracker.core.orders import Close, Send, SendAll, SendMany
from p2pdist.tracker.core.state import (
    HostConnected,
    HostDisconnected,
    MessageReceived,
    Order,
    TrackerCore,
)

TO_TRACKER = msgspec.msgpack.Decoder(ToTracker)
FROM_TRACKER = msgspec.msgpack.Decoder(FromTracker)
ENCODER = msgspec.msgpack.Encoder()


class SimTracker:
    """Answers over lines of a latency; dead after `stop`."""

    def __init__(self, clock: Clock, dc: str, *, rng: Random, latency_s: float) -> None:
        self.member = Member(HostId("0" * 31 + "1"), Role.TRACKER, Place(dc))
        self.alive = True
        self._clock = clock
        self._latency_s = latency_s
        self.core = TrackerCore(
            epoch="simulated",
            dc=dc,
            epoch_s=0.0,
            epoch_unix_s=0.0,
            keyring=Keyring([]),
            rng=rng,
            token=lambda n: bytes(n),
        )
        self._hear: dict[int, Callable[[bytes | None], None]] = {}
        """By link; None: it ended."""
        self._links = 0
        self._timer: Timer | None = None

    def connect(self, member: Member, hear: Callable[[bytes | None], None]) -> int:
        """Return the number of a new link, over which `hear` is told things."""
        self._links += 1
        self._hear[self._links] = hear
        self._carry_out(self.core.handle(HostConnected(self._links, member), self._clock.now_s))
        return self._links

    def send(self, link: int, data: bytes) -> None:
        """What a host says comes after the latency."""
        self._clock.after(self._latency_s, lambda: self._receive(link, data))

    def _receive(self, link: int, data: bytes) -> None:
        if self.alive and link in self._hear:
            event = MessageReceived(link, TO_TRACKER.decode(data))
            self._carry_out(self.core.handle(event, self._clock.now_s))

    def disconnect(self, link: int, *, leaving: bool = False) -> None:
        """The host's end is gone."""
        if self._hear.pop(link, None) is not None and self.alive:
            event = HostDisconnected(link, leaving)
            self._carry_out(self.core.handle(event, self._clock.now_s))

    def stop(self) -> None:
        """It is killed: all lines break."""
        self.alive = False
        hear, self._hear = self._hear, {}
        for each in hear.values():
            self._clock.after(self._latency_s, lambda each=each: each(None))  # type: ignore[misc]

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
                    if (hear := self._hear.pop(link, None)) is not None:
                        self._clock.after(self._latency_s, lambda hear=hear: hear(None))  # type: ignore[misc]
                case _:
                    raise AssertionError(f"a lone tracker forwards nothing: {order}")
        self._set_timer()

    def _tell(self, links: list[int], message: FromTracker) -> None:
        data = ENCODER.encode(message)
        for link in links:
            if (hear := self._hear.get(link)) is not None:
                self._clock.after(self._latency_s, lambda hear=hear: hear(data))  # type: ignore[misc]

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
