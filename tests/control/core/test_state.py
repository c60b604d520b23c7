from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from p2pdist.control.core import events, orders
from p2pdist.control.core.orders import (
    Abort,
    AnswerLease,
    AnswerRenewal,
    AnswerTrace,
    AskInventory,
    Dial,
    HangUp,
    Ping,
    ReportDrained,
    Send,
    SendDescription,
    SendNumbers,
    TakeHandout,
    TakePrewarm,
    TakeRevoked,
    TrackerDown,
    TrackerUp,
)
from p2pdist.control.core.redial import RETRY_MAX_S
from p2pdist.control.core.state import (
    BATCH_REVOCATIONS,
    PACE_MIN_S,
    PING_S,
    REVOCATIONS_KEPT_MAX,
    SILENT_PINGS_MAX,
    Phase,
)
from p2pdist.model.control import (
    DELTAS_MAX,
    Announce,
    Delta,
    FromTracker,
    Handout,
    Join,
    LeaseAnswer,
    LeaseAsk,
    LeaseEnd,
    Leave,
    PrewarmEnd,
    Proof,
    Renew,
    Renewed,
    Revoke,
    Revoked,
    TraceAnswer,
    TraceAsk,
    Welcome,
)
from p2pdist.model.control_wire import CONNECT_S, HANDSHAKE_S, CloseCode
from p2pdist.model.ids import Digest
from p2pdist.model.members import Address, Role
from tests.control.core.driving import ME, OTHER, TRACKER, URL, WELCOME, Driven
from tests.tracker.hosts import key, member

LAYER = Digest(key("layer"))


def online(*, describes: bool = False) -> Driven:
    driven = Driven(describes=describes)
    driven.comes_up()
    return driven


def lease_wanted(driven: Driven, wait_s: float = 1.0) -> int:
    seq = driven.core.number()
    driven.happens(events.LeaseWanted(seq, key(), driven.now_s + wait_s, None))
    return seq


def joins(driven: Driven, name: str = "blob", *, is_member: bool = True) -> int:
    seq = driven.core.number()
    driven.happens(events.JoinWanted(seq, key(name), is_member, []))
    return seq


def revoked(driven: Driven) -> list[list[bytes]]:
    return [message.records for message in driven.said() if isinstance(message, Revoke)]


# --- dialling -------------------------------------------------------------------------------------


def test_a_host_without_a_tracker_does_nothing_and_answers_at_once() -> None:
    driven = Driven([])

    assert driven.happens(events.Started()) == []
    assert lease_wanted(driven) == driven.of(AnswerLease)[0].seq
    joins(driven)
    driven.happens(events.LeaseEnded(key(), 1))
    assert driven.core.next_deadline_s() is None
    assert driven.happens(events.Closing()) == []


def test_a_host_dials_at_once_and_says_nothing_before_the_welcome() -> None:
    driven = Driven()
    joins(driven)
    assert driven.happens(events.Started()) == [Dial(1, URL)]

    assert driven.greeted() == []
    before = driven.core.connected
    assert not before
    assert driven.core.tracker == TRACKER
    joins(driven)
    assert driven.given == []

    driven.receives(WELCOME)
    assert driven.core.connected
    assert [message.seq for message in driven.said() if isinstance(message, Join)] == [2]


def test_who_does_not_answer_is_left_and_the_next_one_is_tried() -> None:
    driven = Driven([URL, OTHER])
    driven.happens(events.Started())

    assert driven.wait(CONNECT_S - 0.01) == []
    assert driven.wait(0.01) == [Abort(1, "no answer in time")]
    assert driven.wait(60.0) == [], "the next dial waits for the end of this one"
    driven.loses()
    assert driven.wait(1.0)[0] == Dial(2, OTHER)


def test_who_proves_itself_and_gives_no_welcome_is_left() -> None:
    driven = Driven()
    driven.happens(events.Started())
    driven.wait(CONNECT_S - 0.01)
    driven.greeted()

    assert driven.wait(HANDSHAKE_S - 0.01) == []
    assert driven.wait(0.01) == [Abort(1, "no welcome in time")]


def test_dials_that_fail_grow_rare_and_one_that_named_a_delay_is_left_alone_for_it() -> None:
    driven = Driven()
    driven.happens(events.Started())
    began_s = driven.now_s
    while driven.now_s < began_s + 100.0:
        driven.loses()
        driven.dials()

    assert 100.0 / RETRY_MAX_S <= driven.line <= 3 * 100.0 / RETRY_MAX_S
    driven.loses(retry_after_s=30.0)
    assert driven.wait(29.9) == []


@pytest.mark.parametrize("role", [Role.PEER, Role.PROXY])
def test_who_is_no_tracker_is_left(role: Role) -> None:
    driven = Driven()
    driven.happens(events.Started())

    assert driven.greeted(member(3, role=role)) == [Abort(1, "not a tracker")]
    assert driven.receives(WELCOME) == []
    assert driven.core.tracker is None


@pytest.mark.parametrize(
    "first", [Handout(1, key(), []), Revoked([]), LeaseAnswer(1, key(), 1, 1.0)]
)
def test_a_tracker_begins_with_a_welcome(first: FromTracker) -> None:
    driven = Driven()
    driven.happens(events.Started())
    driven.greeted()

    assert driven.receives(first) == [Abort(1, "a tracker that does not begin with a welcome")]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (WELCOME, "a second welcome"),
        (Handout(1, key(), [replace(member(1), host_id="../..")]), "malformed handout"),
    ],
)
def test_what_makes_no_sense_ends_the_line_and_nothing_more_is_taken_from_it(
    message: FromTracker, why: str
) -> None:
    driven = online()

    driven.receives(message)

    assert driven.of(Abort)[0].why.startswith(why)
    assert driven.receives(Revoked([b"a record"])) == []
    assert TrackerDown() in driven.loses()


def test_what_a_line_tells_behind_its_end_changes_nothing() -> None:
    driven = online()
    driven.loses()
    driven.dials()
    phase = driven.core.phase

    for event in (
        events.LineLost(1),
        events.Greeted(1, TRACKER),
        events.Received(1, WELCOME),
        events.InventoryTold(1, []),
        events.Drained(1),
        events.Heard(1),
    ):
        assert driven.happens(event) == []
    assert driven.core.phase is phase


def test_an_order_that_the_host_could_not_carry_out_ends_the_line() -> None:
    driven = online()

    assert driven.happens(events.Broke()) == [Abort(1, "the host could not go on")]
    assert driven.happens(events.Broke()) == []
    driven.loses()
    assert driven.happens(events.Broke()) == []
    driven.dials()


# --- a connection ---------------------------------------------------------------------------------


def test_a_welcome_lets_the_host_say_what_it_is_about_and_then_work() -> None:
    driven = online(describes=True)

    kinds = [type(order) for order in driven.given]
    assert kinds == [SendDescription, TrackerUp, AskInventory, SendNumbers, Ping]


def test_a_restarted_tracker_hears_all_that_the_host_is_about() -> None:
    driven = online()
    joins(driven)
    driven.happens(events.Noted(Delta(key(), 3, False)))
    seq = lease_wanted(driven)
    driven.receives(LeaseAnswer(seq, key(), 7, 9.0))
    driven.happens(events.RevocationsMade([b"a record"]))
    driven.loses()

    driven.comes_up()

    assert driven.said() == [
        Join(1, key()),
        Announce([Delta(key(), 3, False)]),
        LeaseAsk(0, key()),
        Revoke([b"a record"]),
    ]
    assert driven.of(AskInventory) == [], "it waits for its turn"
    assert [type(order) for order in driven.given][-3:] == [TrackerUp, SendNumbers, Ping]
    asked = [order for order in driven.wait(5.0) if isinstance(order, AskInventory)]
    assert asked == [AskInventory(2)]


def test_a_large_inventory_goes_on_when_the_tracker_has_taken_most_of_it() -> None:
    driven = online()
    held = [Delta(key(str(number)), 1, True) for number in range(DELTAS_MAX + 2)]

    first = driven.happens(events.InventoryTold(1, held))
    second = driven.happens(events.Drained(1))

    assert first == [Send(1, Announce(held[:DELTAS_MAX], full=True)), ReportDrained(1)]
    assert second == [Send(1, Announce(held[DELTAS_MAX:]))]
    assert driven.happens(events.Drained(1)) == []


def test_the_heartbeat_keeps_to_the_trackers_pace() -> None:
    driven = online()

    beats = sum(isinstance(order, SendNumbers) for order in driven.wait(100.0))

    assert 10 <= beats <= 12


@pytest.mark.parametrize("pace_s", [0.0, -1.0, math.nan, 1e-9])
def test_no_tracker_makes_a_host_say_more_than_it_wants_to(pace_s: float) -> None:
    driven = Driven()
    driven.comes_up(Welcome("epoch", pace_s, pace_s))

    beats = sum(isinstance(order, SendNumbers) for order in driven.wait(1.0))

    assert 10 <= beats <= 1 / (0.9 * PACE_MIN_S) + 1


@pytest.mark.parametrize("pace_s", [1e9, math.inf])
def test_no_tracker_makes_a_host_say_less_than_it_has_to(pace_s: float) -> None:
    driven = Driven()
    driven.comes_up(Welcome("epoch", pace_s, pace_s))

    assert any(isinstance(order, SendNumbers) for order in driven.wait(61.0))


def test_a_tracker_that_hangs_is_left_after_a_few_pings_and_one_that_speaks_is_not() -> None:
    driven = online()
    assert sum(order == Ping(1) for order in driven.wait(10 * PING_S)) == 10

    assert driven.wait((SILENT_PINGS_MAX + 1) * PING_S - 0.1, hears=False)
    assert driven.core.phase is Phase.UP
    assert driven.wait(0.2, hears=False)[-1] == Abort(1, "silent")


def test_a_host_that_became_another_hangs_up_and_one_that_did_not_stays() -> None:
    driven = online()
    other = replace(ME, addresses=(Address("127.0.0.9", 1001),))

    assert driven.happens(events.WeAre(ME)) == []
    assert driven.happens(events.WeAre(other)) == [HangUp(1, CloseCode.GOING_AWAY)]
    assert driven.happens(events.WeAre(other)) == []
    assert driven.core.connected, "until the line has ended"
    assert driven.loses() == [TrackerDown()]
    assert not driven.core.connected


def test_a_host_that_closes_says_goodbye_and_dials_no_more() -> None:
    driven = online()
    seq = lease_wanted(driven)

    assert driven.happens(events.Closing()) == [
        HangUp(1, CloseCode.GOODBYE),
        AnswerLease(seq, None),
        TrackerDown(),
    ]
    assert driven.loses() == []
    assert driven.core.next_deadline_s() is None
    lease_wanted(driven)
    assert len(driven.of(AnswerLease)) == 1


def test_a_host_that_closes_while_it_dials_gives_the_dial_up() -> None:
    driven = Driven()
    driven.happens(events.Started())

    assert driven.happens(events.Closing()) == [Abort(1, "this host is closing")]
    assert driven.happens(events.Greeted(1, TRACKER)) == []


# --- joins and announcements ----------------------------------------------------------------------


def test_a_handout_goes_to_the_host_and_ends_the_join_of_who_only_asked() -> None:
    driven = online()
    seq = joins(driven, is_member=False)
    handout = Handout(seq, key(), [member(4)])

    assert driven.receives(handout) == [TakeHandout(handout)]
    driven.loses()
    driven.comes_up()
    assert driven.said() == []


def test_only_a_swarm_that_the_host_is_in_is_left() -> None:
    driven = online()
    joins(driven)

    driven.happens(events.LeaveWanted(key()))
    assert driven.said() == [Leave(key())]
    assert driven.happens(events.LeaveWanted(key())) == []


def test_what_is_noted_goes_out_at_the_trackers_pace() -> None:
    driven = online()
    driven.happens(events.Noted(Delta(key(), 3, False)))

    assert driven.wait(0.8) == []
    assert Send(1, Announce([Delta(key(), 3, False)])) in driven.wait(0.3)


# --- leases, traces, revocations, orders ----------------------------------------------------------


def test_a_lease_is_answered_by_the_tracker_or_by_time_and_never_twice() -> None:
    driven = online()
    one, two = lease_wanted(driven), lease_wanted(driven, 2.0)
    refused = LeaseAnswer(one, key(), 0, 0.0, member(3))

    assert driven.receives(refused) == [AnswerLease(one, refused)]
    assert driven.receives(refused) == []
    assert AnswerLease(two, None) in driven.wait(2.0)
    granted = LeaseAnswer(two, key(), 9, 9.0)
    driven.receives(granted)
    assert driven.said() == [LeaseEnd(key(), 9)], "nobody knows that it is held"


def test_who_gave_up_is_not_answered_and_holds_nothing() -> None:
    driven = online()
    seq = lease_wanted(driven)
    driven.happens(events.GaveUp(seq))

    driven.receives(LeaseAnswer(seq, key(), 9, 9.0))
    assert driven.given == [Send(1, LeaseEnd(key(), 9))]
    assert not any(isinstance(order, AnswerLease) for order in driven.wait(5.0))


def test_a_held_lease_is_renewed_and_given_back() -> None:
    driven = online()
    driven.receives(LeaseAnswer(lease_wanted(driven), key(), 9, 9.0))

    assert Send(1, LeaseAsk(0, key())) in driven.wait(4.0)
    driven.happens(events.LeaseEnded(key(), 9))
    assert driven.said() == [LeaseEnd(key(), 9)]
    assert Send(1, LeaseAsk(0, key())) not in driven.wait(9.0)


def test_a_lost_connection_answers_who_waits_for_a_lease() -> None:
    driven = online()
    seq = lease_wanted(driven)

    assert driven.loses() == [AnswerLease(seq, None), TrackerDown()]


def test_a_trace_is_answered_by_the_tracker_or_by_time() -> None:
    driven = online()
    one, two = driven.core.number(), driven.core.number()
    for seq in (one, two):
        driven.happens(events.TraceWanted(seq, LAYER, driven.now_s + 1.0))
        assert driven.said() == [TraceAsk(seq, key("layer"))]

    assert driven.receives(TraceAnswer(one, [3, 4])) == [AnswerTrace(one, [3, 4])]
    assert driven.receives(TraceAnswer(one, [3, 4])) == []
    assert AnswerTrace(two, []) in driven.wait(1.0)
    driven.loses()
    seq = driven.core.number()
    driven.happens(events.TraceWanted(seq, LAYER, driven.now_s + 1.0))
    assert driven.given == [AnswerTrace(seq, [])]


def test_a_request_for_a_certificate_is_answered_by_the_tracker_or_by_time() -> None:
    driven = online()
    one, two = driven.core.number(), driven.core.number()
    for seq in (one, two):
        driven.happens(events.RenewalWanted(seq, b"request", driven.now_s + 1.0))
        assert driven.said() == [Renew(seq, b"request")]

    assert driven.receives(Renewed(one, b"it")) == [AnswerRenewal(one, Renewed(one, b"it"))]
    assert driven.receives(Renewed(one, b"it")) == []
    assert AnswerRenewal(two, None) in driven.wait(1.0)
    driven.loses()
    seq = driven.core.number()
    driven.happens(events.RenewalWanted(seq, b"request", driven.now_s + 1.0))
    assert driven.given == [AnswerRenewal(seq, None)]


def test_a_host_with_another_certificate_comes_back_with_it() -> None:
    driven = online()
    assert driven.happens(events.Showing()) == [HangUp(1, CloseCode.GOING_AWAY)]
    assert driven.happens(events.Showing()) == []
    assert driven.loses() == [TrackerDown()]


def test_revocations_go_out_in_batches_and_the_newest_are_said_again() -> None:
    driven = online()
    records = [b"%d" % number for number in range(REVOCATIONS_KEPT_MAX + 10)]

    driven.happens(events.RevocationsMade(records))
    assert [record for batch in revoked(driven) for record in batch] == records
    driven.loses()
    driven.comes_up()

    assert [record for batch in revoked(driven) for record in batch] == records[10:]
    assert max(map(len, revoked(driven))) == BATCH_REVOCATIONS


def test_what_the_tracker_says_to_the_host_is_passed_on() -> None:
    driven = online()

    assert driven.receives(Revoked([b"r"])) == [TakeRevoked([b"r"])]
    end = PrewarmEnd("a" * 16)
    assert driven.receives(end) == [TakePrewarm(end)]


def test_an_answer_to_an_order_is_dropped_where_there_is_nobody_to_hear_it() -> None:
    driven = online()
    told = events.Told(Proof(1, b"hash"))

    assert driven.happens(told) == [Send(1, Proof(1, b"hash"))]
    driven.loses()
    assert driven.happens(told) == []
    driven.comes_up()
    assert not [order for order in driven.given if isinstance(order, orders.Send)]
