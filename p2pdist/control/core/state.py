"""A host's side of the control connection: events in, orders out, one deadline.

| event | from phase | to phase | orders |
| --- | --- | --- | --- |
| Started | OFF | DIALLING | Dial |
| Greeted, by a tracker | DIALLING | GREETED | |
| its Welcome | GREETED | UP | Send and the like: all that the host is about; TrackerUp |
| an answer or a welcome that does not come in time | DIALLING, GREETED | ENDING | Abort |
| what makes no sense; silence; Broke | DIALLING, GREETED, UP | ENDING | Abort, AnswerLease None |
| WeAre somebody else | GREETED, UP | ENDING | HangUp, AnswerLease None |
| LineLost | any with a line | WAITING | AnswerLease None; TrackerDown, if it was up |
| time to dial again | WAITING | DIALLING | Dial |
| Closing | any | CLOSED | HangUp or Abort; AnswerLease None, TrackerDown |

What the host is about (its joins, what it holds of them, its leases, its revocations) is state
here and is said again on every new connection; so nothing is lost with a connection, and nothing
but the newest value is ever queued while there is none.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Final, assert_never

from p2pdist.control.core import events
from p2pdist.control.core.announcing import Announcing, announcements
from p2pdist.control.core.joins import Joins
from p2pdist.control.core.leases import HostLeases
from p2pdist.control.core.orders import (
    Abort,
    AnswerLease,
    AnswerRenewal,
    AnswerTrace,
    AskInventory,
    Dial,
    HangUp,
    Order,
    Ping,
    ReportDrained,
    Send,
    SendDescription,
    SendNumbers,
    TakeHandout,
    TakePrewarm,
    TakeRevoked,
    TakeRevokedHosts,
    TrackerDown,
    TrackerUp,
)
from p2pdist.control.core.questions import Questions
from p2pdist.control.core.redial import Redial
from p2pdist.model.control import (
    FromTracker,
    Handout,
    LeaseAnswer,
    Leave,
    Prewarm,
    PrewarmEnd,
    Prove,
    Renew,
    Renewed,
    Revoke,
    Revoked,
    RevokedHosts,
    ToTracker,
    TraceAnswer,
    TraceAsk,
    Welcome,
    digest_key,
)
from p2pdist.model.control_wire import CONNECT_S, HANDSHAKE_S, CloseCode
from p2pdist.model.ids import parse_host_id
from p2pdist.model.members import Member, Role

# A tracker that serves a storm answers late; one whose machine is gone is found by the kernel
# (`line.USER_TIMEOUT_MS`), and this is for one that hangs.
PING_S: Final = 10.0
SILENT_PINGS_MAX: Final = 3
# 64 signatures are about 8 ms of the tracker's event loop.
BATCH_REVOCATIONS: Final = 64
# Full: the oldest is forgotten; it is only missing after the next loss of the connection.
REVOCATIONS_KEPT_MAX: Final = 256
# What a tracker may ask for, whatever it says.
PACE_MIN_S: Final = 0.05
PACE_MAX_S: Final = 60.0


class Phase(enum.Enum):
    OFF = enum.auto()
    """Not started, or without any tracker."""
    WAITING = enum.auto()
    """There is no line; the next one is dialled at a known time."""
    DIALLING = enum.auto()
    """A line is asked for; no tracker has proven itself on it yet."""
    GREETED = enum.auto()
    """One has; its welcome is to come, and nothing is said before it."""
    UP = enum.auto()
    ENDING = enum.auto()
    """The line was hung up or aborted: nothing is said on it or taken from it any more, and the
    next one is dialled after its end."""
    CLOSED = enum.auto()


WITH_LINE: Final = frozenset({Phase.DIALLING, Phase.GREETED, Phase.UP, Phase.ENDING})


class ControlCore:
    """Keeps one connection to the first of `urls` that answers. Pure: time enters as monotonic
    `now_s`, and orders are to be carried out in the order in which they were given.

    `describes`: whether the host says what it is; without it, it takes no prewarm orders.
    """

    def __init__(self, urls: Sequence[str], *, rng: Random, describes: bool = False) -> None:
        self.phase = Phase.OFF
        self.tracker: Member | None = None
        """Who is at the other end; None before it has proven itself, and without a line."""
        self._rng = rng
        self._describes = describes
        self._redial = Redial(urls, rng) if urls else None
        self._numbers = 0
        self._lines = 0
        """How many were dialled; the last one's number."""
        self._told: Member | None = None
        """What the hello of this line says that we are; None before it is connected."""
        self._until_s: float | None = None
        """WAITING: when to dial. DIALLING, GREETED: how long to wait. Else None."""
        self._up_s: float | None = None
        """Since when the host has heard of no `TrackerDown`; None: of no `TrackerUp` since it."""
        self._returning = False
        """It was up before."""
        self._beat_at_s = self._ping_at_s = 0.0
        self._heartbeat_s = PACE_MAX_S
        self._silent_pings = 0
        """How many were sent since anything was heard; at most `SILENT_PINGS_MAX`."""
        self._joins = Joins()
        self._leases = HostLeases()
        self._announcing = Announcing(rng)
        self._traces: Questions[None] = Questions()
        self._renewals: Questions[None] = Questions()
        self._revocations: deque[bytes] = deque(maxlen=REVOCATIONS_KEPT_MAX)

    # --- what the shell reads -------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """A tracker is there, as far as the host was told."""
        return self._up_s is not None

    def number(self) -> int:
        """Return a number for the next question or join, never returned before; from 1 on."""
        self._numbers += 1
        return self._numbers

    def next_deadline_s(self) -> float | None:
        """When `handle_deadline` must run, if no event comes first."""
        questions = (self._leases, self._traces, self._renewals)
        ends = [self._until_s, *(each.next_deadline_s() for each in questions)]
        if self.phase is Phase.UP:
            ends += [self._announcing.next_deadline_s(), self._beat_at_s, self._ping_at_s]
        return min((end for end in ends if end is not None), default=None)

    # --- events ---------------------------------------------------------------------------------

    def handle(self, event: events.Event, now_s: float) -> list[Order]:
        """Apply one event; return the orders to carry out now, in order."""
        if isinstance(event, events.LineEvent):
            if event.line != self._lines or self.phase not in WITH_LINE:
                return []
            return list(self._handle_line(event, now_s))
        return list(self._handle_host(event, now_s))

    def handle_deadline(self, now_s: float) -> list[Order]:
        """Do what is due."""
        return list(self._due(now_s))

    def _handle_host(self, event: events.HostEvent, now_s: float) -> Iterator[Order]:
        match event:
            case events.Started():
                assert self.phase is Phase.OFF
                if self._redial is not None:
                    yield self._dial(self._redial, now_s)
            case events.Closing():
                yield from self._close()
            case events.JoinWanted(seq, key, member, exclude):
                yield from self._say(self._joins.join(seq, key, member=member, exclude=exclude))
            case events.LeaveWanted(key):
                if self._joins.leave(key):
                    yield from self._say(Leave(key))
            case events.Noted(delta):
                self._joins.note(delta)
                self._announcing.note(delta, now_s)
            case events.LeaseWanted():
                yield from self._want_lease(event)
            case events.LeaseEnded(key, fence):
                yield from self._say(self._leases.end(key, fence))
            case events.TraceWanted():
                yield from self._want_trace(event)
            case events.RenewalWanted():
                yield from self._want_renewal(event)
            case events.GaveUp(seq):
                self._leases.give_up(seq)
                self._traces.pop(seq)
                self._renewals.pop(seq)
            case events.RevocationsMade(records):
                self._revocations.extend(records)
                yield from self._say_all(_revokes(list(records)))
            case events.Told(message):
                yield from self._say(message)
            case events.WeAre(me):
                if self.phase in (Phase.GREETED, Phase.UP) and me != self._told:
                    yield from self._hang_up()
            case events.Showing():
                if self.phase is Phase.UP:
                    yield from self._hang_up()
            case events.Broke():
                if self.phase in WITH_LINE and self.phase is not Phase.ENDING:
                    yield from self._abort("the host could not go on")
            case _:
                assert_never(event)

    def _handle_line(self, event: events.LineEvent, now_s: float) -> Iterator[Order]:
        match event:
            case events.Connected(_, me):
                self._told = me
            case events.Greeted(_, tracker):
                if self.phase is Phase.DIALLING:
                    yield from self._greeted(tracker, now_s)
            case events.Received(_, message):
                yield from self._receive(message, now_s)
            case events.Heard():
                self._silent_pings = 0
            case events.InventoryTold(line, deltas):
                if self.phase is Phase.UP:
                    yield Send(line, self._announcing.inventory(deltas))
                    yield from self._await_drained()
            case events.Drained(line):
                if (batch := self._announcing.next_batch()) is not None:
                    yield Send(line, batch)
                    yield from self._await_drained()
            case events.LineLost(_, retry_after_s):
                yield from self._lost(retry_after_s, now_s)
            case _:
                assert_never(event)

    # --- the connection -------------------------------------------------------------------------

    def _dial(self, redial: Redial, now_s: float) -> Order:
        self.phase, self._until_s = Phase.DIALLING, now_s + CONNECT_S
        self._lines += 1
        return Dial(self._lines, redial.url)

    def _greeted(self, tracker: Member, now_s: float) -> Iterator[Order]:
        if tracker.role is not Role.TRACKER:
            yield from self._abort("not a tracker")
            return
        assert self._told is not None
        self.tracker = tracker
        self.phase, self._until_s = Phase.GREETED, now_s + HANDSHAKE_S

    def _up(self, welcome: Welcome, now_s: float) -> Iterator[Order]:
        """Say again what this host is about; active swarms go first."""
        self.phase, self._until_s, self._up_s = Phase.UP, None, now_s
        returning, self._returning = self._returning, True
        self._heartbeat_s = _pace_s(welcome.heartbeat_s)
        self._beat_at_s = self._ping_at_s = now_s
        self._silent_pings = 0
        if self._describes:
            yield SendDescription(self._lines)
        yield from self._say_all(self._joins.joins())
        yield from self._say_all(announcements(self._joins.held()))
        yield from self._say_all(self._leases.up(now_s))
        yield from self._say_all(_revokes(list(self._revocations)))
        yield TrackerUp(welcome.refused, welcome.unnamed)
        interval_s = _pace_s(welcome.announce_interval_s)
        self._announcing.up(interval_s, now_s, returning=returning)
        yield from self._due(now_s)

    def _lost(self, retry_after_s: float | None, now_s: float) -> Iterator[Order]:
        redial = self._redial
        assert redial is not None
        up_s = self._up_s
        yield from self._down()
        if retry_after_s is not None:
            redial.refused(retry_after_s, now_s)
        elif up_s is not None:
            redial.lost(now_s - up_s)
        else:
            redial.failed()
        self.phase, self._until_s = Phase.WAITING, now_s + redial.delay_s(now_s)

    def _close(self) -> Iterator[Order]:
        if self.phase in (Phase.GREETED, Phase.UP):
            yield HangUp(self._lines, CloseCode.GOODBYE)
        elif self.phase is Phase.DIALLING:
            yield Abort(self._lines, "this host is closing")
        yield from self._down()
        self.phase, self._until_s = Phase.CLOSED, None

    def _down(self) -> Iterator[Order]:
        """What there was of a connection is over."""
        self.tracker = self._told = None
        self._announcing.down()
        for seq in self._leases.down():
            yield AnswerLease(seq, None)
        if self._up_s is not None:
            self._up_s = None
            yield TrackerDown()

    def _hang_up(self) -> Iterator[Order]:
        yield HangUp(self._lines, CloseCode.GOING_AWAY)
        yield from self._end_talk()

    def _abort(self, why: str) -> Iterator[Order]:
        yield Abort(self._lines, why)
        yield from self._end_talk()

    def _end_talk(self) -> Iterator[Order]:
        self.phase, self._until_s = Phase.ENDING, None
        self._announcing.down()
        for seq in self._leases.down():
            yield AnswerLease(seq, None)

    # --- from the tracker -----------------------------------------------------------------------

    def _receive(self, message: FromTracker, now_s: float) -> Iterator[Order]:
        if self.phase is Phase.UP:
            yield from self._receive_one(message, now_s)
        elif self.phase is Phase.GREETED and isinstance(message, Welcome):
            yield from self._up(message, now_s)
        elif self.phase is not Phase.ENDING:
            yield from self._abort("a tracker that does not begin with a welcome")

    def _receive_one(self, message: FromTracker, now_s: float) -> Iterator[Order]:
        match message:
            case Handout():
                yield from self._take_handout(message)
            case LeaseAnswer():
                waited_for, back = self._leases.answered(message, now_s)
                if back is not None:
                    yield from self._say(back)
                if waited_for:
                    yield AnswerLease(message.seq, message)
            case Revoked(records):
                yield TakeRevoked(records)
            case RevokedHosts(records):
                yield TakeRevokedHosts(records)
            case Prewarm() | PrewarmEnd() | Prove():
                yield TakePrewarm(message)
            case TraceAnswer(seq, units):
                if self._traces.pop(seq) is not None:
                    yield AnswerTrace(seq, units)
            case Renewed(seq):
                if self._renewals.pop(seq) is not None:
                    yield AnswerRenewal(seq, message)
            case Welcome():
                yield from self._abort("a second welcome")
            case _:
                assert_never(message)

    def _take_handout(self, handout: Handout) -> Iterator[Order]:
        try:
            for member in handout.members:
                parse_host_id(member.host_id)
        except ValueError as error:
            yield from self._abort(f"malformed handout: {error}")
            return
        self._joins.answered(handout)
        yield TakeHandout(handout)

    # --- to the tracker -------------------------------------------------------------------------

    def _say(self, message: ToTracker) -> Iterator[Order]:
        """Without a connection there is nothing to do: `_up` says it all."""
        if self.phase is Phase.UP:
            yield Send(self._lines, message)

    def _say_all(self, messages: Iterable[ToTracker]) -> Iterator[Order]:
        for message in messages:
            yield from self._say(message)

    def _want_lease(self, event: events.LeaseWanted) -> Iterator[Order]:
        if self.phase is not Phase.UP:
            yield AnswerLease(event.seq, None)
            return
        yield from self._say(
            self._leases.want(event.seq, event.key, event.until_s, event.on_behalf)
        )

    def _want_trace(self, event: events.TraceWanted) -> Iterator[Order]:
        if self.phase is not Phase.UP:
            yield AnswerTrace(event.seq, [])
            return
        self._traces.ask(event.seq, None, event.until_s)
        yield from self._say(TraceAsk(event.seq, digest_key(event.layer)))

    def _want_renewal(self, event: events.RenewalWanted) -> Iterator[Order]:
        if self.phase is not Phase.UP:
            yield AnswerRenewal(event.seq, None)
            return
        self._renewals.ask(event.seq, None, event.until_s)
        yield from self._say(Renew(event.seq, event.request))

    def _await_drained(self) -> Iterator[Order]:
        if self._announcing.has_batch:
            yield ReportDrained(self._lines)

    # --- time -----------------------------------------------------------------------------------

    def _due(self, now_s: float) -> Iterator[Order]:
        for seq in self._leases.overdue(now_s):
            yield AnswerLease(seq, None)
        for seq in self._traces.pop_due(now_s):
            yield AnswerTrace(seq, [])
        for seq in self._renewals.pop_due(now_s):
            yield AnswerRenewal(seq, None)
        if self.phase is Phase.UP:
            yield from self._due_up(now_s)
        elif self._until_s is not None and self._until_s <= now_s:
            yield from self._waited(now_s)

    def _waited(self, now_s: float) -> Iterator[Order]:
        if self.phase is Phase.WAITING:
            assert self._redial is not None
            yield self._dial(self._redial, now_s)
        else:
            missing = "answer" if self.phase is Phase.DIALLING else "welcome"
            yield from self._abort(f"no {missing} in time")

    def _due_up(self, now_s: float) -> Iterator[Order]:
        yield from self._say_all(self._announcing.changes(now_s))
        if self._announcing.inventory_due(now_s):
            yield AskInventory(self._lines)
        if self._beat_at_s <= now_s:
            self._beat_at_s = now_s + self._heartbeat_s * (0.9 + 0.1 * self._rng.random())
            yield SendNumbers(self._lines)
        yield from self._say_all(self._leases.renewals(now_s))
        if self._ping_at_s <= now_s:
            yield from self._ping(now_s)

    def _ping(self, now_s: float) -> Iterator[Order]:
        if self._silent_pings == SILENT_PINGS_MAX:
            yield from self._abort("silent")
            return
        self._silent_pings += 1
        self._ping_at_s = now_s + PING_S
        yield Ping(self._lines)

    # --- for tests ------------------------------------------------------------------------------

    def validate(self) -> None:
        """Assert each invariant that the comments state; for tests, after every event."""
        phase = self.phase
        timed = phase in (Phase.WAITING, Phase.DIALLING, Phase.GREETED)
        assert (self._until_s is not None) == timed
        assert self._redial is not None or phase in (Phase.OFF, Phase.CLOSED)
        assert self.connected or phase is not Phase.UP
        assert not self.connected or phase in (Phase.UP, Phase.ENDING)
        assert self.tracker is not None or phase not in (Phase.GREETED, Phase.UP)
        assert self.tracker is None or phase in WITH_LINE
        assert self._told is None or phase in WITH_LINE
        assert not self.connected or self._returning
        assert 0 <= self._silent_pings <= SILENT_PINGS_MAX
        assert len(self._revocations) <= REVOCATIONS_KEPT_MAX
        assert (self._announcing.next_deadline_s() is not None) == (phase is Phase.UP)
        self._joins.validate()
        self._leases.validate(self._numbers, up=phase is Phase.UP)
        self._announcing.validate()
        for questions in (self._traces, self._renewals):
            questions.validate()
            assert all(0 < seq <= self._numbers for seq in questions)


def _pace_s(asked_s: float) -> float:
    """Return a pace within our bounds; one that is no number becomes the shortest."""
    return min(max(PACE_MIN_S, asked_s), PACE_MAX_S)


def _revokes(records: list[bytes]) -> Iterator[Revoke]:
    for start in range(0, len(records), BATCH_REVOCATIONS):
        yield Revoke(records[start : start + BATCH_REVOCATIONS])
