"""Any order of what hosts, trackers and networks do: the core keeps its word to both sides.

A state machine of Hypothesis. Beside the core runs a tracker that believes all that it is told and
forgets all with its line, as one that restarts; it answers late, twice or not at all.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from p2pdist.control.core import events, orders
from p2pdist.control.core.announcing import INVENTORY_SPREAD_INTERVALS
from p2pdist.control.core.leases import RENEW_TICK_S
from p2pdist.control.core.state import PACE_MAX_S, PACE_MIN_S, ControlCore, Phase
from p2pdist.model.control import (
    Announce,
    Delta,
    Handout,
    Join,
    LeaseAnswer,
    LeaseAsk,
    LeaseEnd,
    Leave,
    Proof,
    Revoke,
    SwarmKey,
    ToTracker,
    TraceAnswer,
    TraceAsk,
    Welcome,
)
from p2pdist.model.control_wire import CONNECT_S
from p2pdist.model.ids import Digest
from p2pdist.model.members import Member, Role
from tests.control.core.driving import ME, OTHER, TRACKER, URL
from tests.tracker.hosts import key, member

# It takes 4 s; where it fails, Hypothesis looks up to 5 minutes for a shorter way to it.
pytestmark = pytest.mark.timeout(360)

KEYS: Final = [key(name) for name in "abc"]
WHICH: Final = st.sampled_from(KEYS)
TIMES: Final = st.sampled_from([0.0, 0.01, 0.3, 1.0, 4.0, 30.0])
PACES: Final = st.sampled_from([0.5, 1.0, 10.0, math.inf])
LEASE_S: Final = 9.0


class Tracker:
    """What the tracker of one line was told."""

    def __init__(self, pace_s: float, *, silent: bool) -> None:
        self.pace_s = pace_s if PACE_MIN_S <= pace_s <= PACE_MAX_S else PACE_MAX_S
        """No shorter than the core's."""
        self.silent = silent
        """It does not answer pings."""
        self.joins: dict[SwarmKey, Join] = {}
        self.held: dict[str, Delta] = {}
        self.whole = False
        """The inventory has come."""
        self.records: list[bytes] = []
        self.lease_asks: list[LeaseAsk] = []
        """Also those that are answered: to answer once more."""
        self.trace_asks: list[TraceAsk] = []

    def take(self, message: ToTracker) -> None:
        match message:
            case Join(_, name):
                self.joins[SwarmKey(name)] = message
            case Leave(name):
                del self.joins[SwarmKey(name)]
            case Announce(deltas, full):
                if full:
                    assert not self.whole, "everything is announced once in a connection"
                    self.whole = True
                    self.held.clear()
                self.held |= {delta.key: delta for delta in deltas}
            case Revoke(records):
                self.records += records
            case LeaseAsk():
                self.lease_asks.append(message)
            case TraceAsk():
                self.trace_asks.append(message)
            case _:
                assert isinstance(message, LeaseEnd | Proof)


class ControlMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.core = ControlCore([URL, OTHER], rng=Random(1), describes=True)
        self.lines = 0
        self.alive = False
        """The end of the newest line is still to come."""
        self.greeted = self.told_to_end = False
        self.tracker: Tracker | None = None
        """At the other end, since its welcome."""
        self.up = False
        """What the host was told."""
        self.asked: dict[int, float] = {}
        """Questions that wait for their one answer, and how long."""
        self.leases: dict[SwarmKey, int] = {}
        """The fences that the host holds."""
        self.asked_of: dict[int, SwarmKey] = {}
        self.members: dict[SwarmKey, int] = {}
        """What the host is in: the number of the newest join."""
        self.holds: dict[SwarmKey, Delta] = {}
        self.records: list[bytes] = []
        self.fence = 0
        self.closed = False
        self.happens(events.Started())

    # --- the shell ------------------------------------------------------------------------------

    def happens(self, event: events.Event) -> None:
        self.carry_out(self.core.handle(event, self.now_s))

    def carry_out(self, given: list[orders.Order]) -> None:
        self.core.validate()
        for order in given:
            if isinstance(order, orders.HostOrder):
                self.tell_host(order)
            elif isinstance(order, orders.Dial):
                assert not self.alive, "one line at a time"
                assert not self.closed
                assert order.line == self.lines + 1
                self.lines, self.alive = order.line, True
                self.greeted = self.told_to_end = False
                self.tracker = None
            else:
                assert order.line == self.lines
                assert not self.told_to_end, "nothing is said behind a goodbye"
                self.use(order)

    def use(self, order: orders.OrderOfLine) -> None:
        if isinstance(order, orders.HangUp | orders.Abort):
            assert self.alive
            self.told_to_end, self.tracker = True, None
            return
        assert self.tracker is not None, "nothing is said before the welcome"
        match order:
            case orders.Send(_, message):
                self.tracker.take(message)
            case orders.AskInventory(line):
                self.happens(events.InventoryTold(line, list(self.holds.values())))
            case orders.ReportDrained(line):
                self.happens(events.Drained(line))
            case orders.Ping(line) if not self.tracker.silent:
                self.happens(events.Heard(line))

    def tell_host(self, order: orders.HostOrder) -> None:
        match order:
            case orders.TrackerUp():
                assert not self.up
                self.up = True
            case orders.TrackerDown():
                assert self.up
                self.up = False
            case orders.AnswerLease(seq, answer):
                over = self.asked.pop(seq) <= self.now_s
                no_line = not self.alive or self.told_to_end or self.closed or not self.up
                assert answer is not None or over or no_line
                if answer is not None and answer.fence:
                    self.leases[self.asked_of[seq]] = answer.fence
            case orders.AnswerTrace(seq):
                del self.asked[seq]

    # --- the host -------------------------------------------------------------------------------

    @rule(which=WHICH)
    def joins(self, which: SwarmKey) -> None:
        seq = self.core.number()
        self.members[which] = seq
        self.happens(events.JoinWanted(seq, which, True, []))

    @rule(which=WHICH)
    def leaves(self, which: SwarmKey) -> None:
        self.members.pop(which, None)
        self.happens(events.LeaveWanted(which))

    @rule(which=WHICH, held_chunks=st.integers(0, 8))
    def notes(self, which: SwarmKey, held_chunks: int) -> None:
        self.holds[which] = delta = Delta(which, held_chunks, held_chunks == 8)
        self.happens(events.Noted(delta))

    @rule(which=WHICH, wait_s=TIMES)
    def wants_a_lease(self, which: SwarmKey, wait_s: float) -> None:
        seq = self.core.number()
        self.asked[seq], self.asked_of[seq] = self.now_s + wait_s, which
        self.happens(events.LeaseWanted(seq, which, self.now_s + wait_s, None))

    @rule(wait_s=TIMES)
    def wants_a_trace(self, wait_s: float) -> None:
        seq = self.core.number()
        self.asked[seq] = self.now_s + wait_s
        self.happens(events.TraceWanted(seq, Digest(KEYS[0]), self.now_s + wait_s))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.asked)))
        del self.asked[seq]
        self.happens(events.GaveUp(seq))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def ends_a_lease(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(sorted(self.leases)))
        self.happens(events.LeaseEnded(which, self.leases.pop(which)))

    @rule()
    def revokes(self) -> None:
        record = b"%d" % len(self.records)
        self.records.append(record)
        self.happens(events.RevocationsMade([record]))

    @precondition(lambda self: not self.closed and self.lines > 2)
    @rule(really=st.integers(0, 9))
    def closes(self, really: int) -> None:
        if really == 0:
            self.closed = True
            self.happens(events.Closing())
            assert not self.up

    # --- the network ----------------------------------------------------------------------------

    @precondition(lambda self: self.alive and not self.greeted)
    @rule(by=st.sampled_from([TRACKER, TRACKER, TRACKER, member(9, role=Role.PROXY)]))
    def is_greeted(self, by: Member) -> None:
        self.greeted = True
        self.happens(events.Connected(self.lines, ME))
        self.happens(events.Greeted(self.lines, by))

    @precondition(lambda self: self.alive and self.greeted and self.tracker is None)
    @rule(pace_s=PACES, silent=st.booleans())
    def is_welcomed(self, pace_s: float, silent: bool) -> None:
        """Also behind the end of the line."""
        if not self.told_to_end and not self.closed:
            self.tracker = Tracker(pace_s, silent=silent)
        self.happens(events.Received(self.lines, Welcome("epoch", pace_s, pace_s)))
        assert self.told_to_end or self.closed or self.up

    @precondition(lambda self: self.alive and self.lines)
    @rule(how=st.sampled_from(["broke", "another", "welcome", "handout", "lost", "told", "late"]))
    def is_disturbed(self, how: str) -> None:
        """In one rule, so that there is time for the others."""
        match how:
            case "broke":
                self.happens(events.Broke())
            case "another":
                self.happens(events.WeAre(member(2)))
            case "welcome" if self.greeted and self.tracker is not None:
                self.happens(events.Received(self.lines, Welcome("epoch", 1.0, 1.0)))
            case "handout" if self.greeted:
                stranger = replace(member(5), host_id="../..")
                self.happens(events.Received(self.lines, Handout(1, KEYS[0], [stranger])))
            case "lost":
                self.loses_its_line(None)
            case "told":
                self.loses_its_line(3.0)
            case "late":
                self.loses_its_line(1e9)
            case _:
                return
        assert self.told_to_end or self.closed or not self.up

    def loses_its_line(self, retry_after_s: float | None) -> None:
        self.alive = False
        self.tracker = None
        self.happens(events.LineLost(self.lines, retry_after_s))
        assert not self.up
        assert self.closed or self.core.next_deadline_s() is not None, "it dials again"

    @rule()
    def is_who_it_was(self) -> None:
        phase = self.core.phase
        self.happens(events.WeAre(ME))
        assert self.core.phase is phase

    @rule(behind=st.integers(1, 3), data=st.data())
    def hears_of_an_older_line(self, behind: int, data: st.DataObject) -> None:
        line, phase = self.lines - behind, self.core.phase
        late: list[events.LineEvent] = [
            events.LineLost(line),
            events.Greeted(line, TRACKER),
            events.Received(line, Welcome("epoch", 1.0, 1.0)),
            events.Received(line, Handout(1, KEYS[0], [])),
            events.Heard(line),
            events.InventoryTold(line, []),
            events.Drained(line),
        ]
        assert self.core.handle(data.draw(st.sampled_from(late)), self.now_s) == []
        assert self.core.phase is phase

    # --- the tracker ----------------------------------------------------------------------------

    @precondition(lambda self: self.tracker is not None and self.tracker.joins)
    @rule(data=st.data())
    def names_neighbours(self, data: st.DataObject) -> None:
        assert self.tracker is not None
        join = data.draw(st.sampled_from(sorted(self.tracker.joins.values(), key=lambda j: j.seq)))
        self.happens(events.Received(self.lines, Handout(join.seq, join.key, [member(5)])))

    @precondition(lambda self: self.tracker is not None and self.tracker.lease_asks)
    @rule(data=st.data(), grants=st.booleans())
    def answers_a_lease(self, data: st.DataObject, grants: bool) -> None:
        """Any that was ever asked on this line: late, twice, another answer than before."""
        assert self.tracker is not None
        ask = data.draw(st.sampled_from(self.tracker.lease_asks))
        self.fence += 1
        fence = self.fence if grants else 0
        if not grants:
            self.leases.pop(SwarmKey(ask.key), None)
        elif ask.key in self.leases:
            self.leases[SwarmKey(ask.key)] = fence
        self.happens(events.Received(self.lines, LeaseAnswer(ask.seq, ask.key, fence, LEASE_S)))

    @precondition(lambda self: self.tracker is not None and self.tracker.trace_asks)
    @rule(data=st.data())
    def answers_a_trace(self, data: st.DataObject) -> None:
        assert self.tracker is not None
        ask = data.draw(st.sampled_from(self.tracker.trace_asks))
        self.happens(events.Received(self.lines, TraceAnswer(ask.seq, [1])))

    # --- time -----------------------------------------------------------------------------------

    @rule(seconds=TIMES, late_s=st.sampled_from([0.0, 0.0, 0.2, 20.0]))
    def time_passes(self, seconds: float, late_s: float) -> None:
        """A busy process looks at its deadlines late."""
        end_s = self.now_s + seconds
        while (next_s := self.core.next_deadline_s()) is not None and next_s <= end_s:
            self.now_s = max(self.now_s, next_s) + late_s
            self.carry_out(self.core.handle_deadline(self.now_s))
            next_s = self.core.next_deadline_s()
            assert next_s is None or next_s > self.now_s, "what is due was done"
        self.now_s = max(self.now_s, end_s)

    @rule()
    def wakes_too_early(self) -> None:
        next_s = self.core.next_deadline_s()
        if next_s is None or next_s > self.now_s:
            assert self.core.handle_deadline(self.now_s) == []

    # --- what holds at any time -----------------------------------------------------------------

    @invariant()
    def both_sides_agree(self) -> None:
        assert self.core.connected == self.up
        if self.tracker is not None:
            assert {name: join.seq for name, join in self.tracker.joins.items()} == self.members
            assert self.tracker.records == self.records

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        next_s = self.core.next_deadline_s()
        for until_s in self.asked.values():
            assert next_s is not None
            assert next_s <= until_s
        if not self.alive and not self.closed:
            assert next_s is not None, "there is always a next dial"
        if self.alive and self.tracker is None and not self.told_to_end and not self.closed:
            assert next_s is not None
            assert next_s <= self.now_s + CONNECT_S

    @invariant()
    def what_is_held_is_renewed(self) -> None:
        held = self.core._leases.held
        assert {name: lease.fence for name, lease in held.items()} == self.leases
        if self.leases and self.core.phase is Phase.UP:
            next_s = self.core.next_deadline_s()
            assert next_s is not None
            assert next_s <= self.now_s + RENEW_TICK_S

    @precondition(lambda self: self.tracker is not None)
    @rule()
    def is_left_in_peace(self) -> None:
        """Until the turn of the inventory must have come, and that of what was noted last."""
        tracker = self.tracker
        assert tracker is not None
        self.time_passes((INVENTORY_SPREAD_INTERVALS + 1.2) * tracker.pace_s, 0.0)
        if self.tracker is tracker:
            assert tracker.whole
            assert tracker.held == self.holds

    @rule()
    def meets_a_tracker_that_works(self) -> None:
        """Whatever has happened: all that the host holds is known to it after the time that is
        promised, and every lease was asked for anew."""
        if self.closed:
            assert self.core.next_deadline_s() is None or self.asked
            return
        if self.alive:
            self.loses_its_line(None)
        while not self.alive:
            next_s = self.core.next_deadline_s()
            assert next_s is not None
            self.time_passes(max(next_s - self.now_s, 0.0), 0.0)
        if not self.greeted:
            self.is_greeted(TRACKER)
        self.is_welcomed(1.0, False)
        assert self.tracker is not None
        assert {ask.key for ask in self.tracker.lease_asks} == set(self.leases)
        self.time_passes(INVENTORY_SPREAD_INTERVALS, 0.0)
        self.time_passes(1.2, 0.0)
        assert self.tracker.whole
        assert self.tracker.held == self.holds


TestControlMachine = ControlMachine.TestCase
TestControlMachine.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
