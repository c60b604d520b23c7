"""A core driven by hand, which is looked over after every event."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from p2pdist.control.core import events, orders
from p2pdist.control.core.state import ControlCore
from p2pdist.model.control import FromTracker, ToTracker, Welcome
from p2pdist.model.members import Member, Place, Role
from tests.tracker.hosts import host_id, member

URL, OTHER = "tcp://one:1", "tcp://two:2"
ME = member(1)
TRACKER = Member(host_id(0xFFFF), Role.TRACKER, Place("dc1"))
WELCOME = Welcome("epoch", 1.0, 10.0)

OrderT = TypeVar("OrderT")


class Driven:
    """Time stands still unless a test moves it; `given` are the orders of the last event."""

    def __init__(
        self, urls: Sequence[str] = (URL,), *, describes: bool = False, seed: int = 1
    ) -> None:
        self.core = ControlCore(urls, rng=Random(seed), describes=describes)
        self.now_s = 100.0
        self.line = 0
        """The one that was dialled last."""
        self.given: list[orders.Order] = []
        self.history: list[orders.Order] = []

    def happens(self, event: events.Event) -> list[orders.Order]:
        return self._take(self.core.handle(event, self.now_s))

    def _take(self, given: list[orders.Order]) -> list[orders.Order]:
        self.core.validate()
        self.given = given
        self.history += given
        for order in given:
            if isinstance(order, orders.Dial):
                assert order.line > self.line
                self.line = order.line
        return given

    def wait(self, seconds: float, *, hears: bool = True) -> list[orders.Order]:
        """Let time pass, with a stop at every deadline; return the orders of all. `hears`: every
        ping is answered."""
        end_s, all_given = self.now_s + seconds, []
        while (next_s := self.core.next_deadline_s()) is not None and next_s <= end_s:
            self.now_s = max(self.now_s, next_s)
            all_given += self.deadline()
            if hears and self.of(orders.Ping):
                self.happens(events.Heard(self.line))
        self.now_s = end_s
        self.given = all_given
        return all_given

    def deadline(self) -> list[orders.Order]:
        given = self._take(self.core.handle_deadline(self.now_s))
        next_s = self.core.next_deadline_s()
        assert next_s is None or next_s > self.now_s, "what is due was done"
        return given

    def receives(self, message: FromTracker) -> list[orders.Order]:
        return self.happens(events.Received(self.line, message))

    def comes_up(self, welcome: Welcome = WELCOME) -> list[orders.Order]:
        """Dial, if need be, and be welcomed; return the orders of the welcome."""
        if not self.line:
            self.happens(events.Started())
        elif not self.dialling:
            self.dials()
        self.greeted()
        return self.receives(welcome)

    def dials(self) -> None:
        """Wait for the next dial, and no longer."""
        next_s = self.core.next_deadline_s()
        assert next_s is not None
        self.wait(next_s - self.now_s)
        assert self.dialling

    @property
    def dialling(self) -> bool:
        return self.core.phase.name == "DIALLING"

    def greeted(self, by: Member = TRACKER) -> list[orders.Order]:
        self.happens(events.Connected(self.line, ME))
        return self.happens(events.Greeted(self.line, by))

    def loses(self, retry_after_s: float | None = None) -> list[orders.Order]:
        return self.happens(events.LineLost(self.line, retry_after_s))

    def of(self, kind: type[OrderT]) -> list[OrderT]:
        """Those of the orders given last."""
        return [order for order in self.given if isinstance(order, kind)]

    def said(self) -> list[ToTracker]:
        """What was sent by the orders given last."""
        return [send.message for send in self.of(orders.Send)]
