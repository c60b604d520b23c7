from __future__ import annotations

import math

from p2pdist.control.core.leases import LEASE_KEPT_S, NO_SEQ, RENEW_TICK_S, HostLeases
from p2pdist.model.control import LeaseAnswer, LeaseAsk, LeaseEnd
from p2pdist.model.members import Role
from tests.tracker.hosts import key, member

PROXY = member(7, role=Role.PROXY)
KEY = key()


def granted(seq: int, fence: int = 5, expires_in_s: float = 9.0) -> LeaseAnswer:
    return LeaseAnswer(seq, KEY, fence, expires_in_s)


def holding() -> HostLeases:
    """Asked for and granted at 0 s."""
    leases = HostLeases()
    list(leases.up(0.0))
    leases.want(1, KEY, 1.0, PROXY)
    assert leases.answered(granted(1), 0.0) == (True, None)
    leases.validate(1, up=True)
    return leases


def test_a_held_lease_is_asked_for_again_after_a_third_of_its_time_until_it_is_answered() -> None:
    leases, asks = holding(), dict[float, list[LeaseAsk]]()
    for tenth in range(52):
        now_s = tenth / 10
        if asked := list(leases.renewals(now_s)):
            asks[now_s] = asked
            if now_s == 4.0:
                assert leases.answered(granted(NO_SEQ), now_s) == (False, None)
        leases.validate(1, up=True)

    assert asks == {3.0: [LeaseAsk(NO_SEQ, KEY, PROXY)], 4.0: [LeaseAsk(NO_SEQ, KEY, PROXY)]}


def test_a_lease_that_nobody_ends_is_forgotten_however_often_it_was_renewed() -> None:
    leases, now_s = holding(), 0.0
    while leases.held and now_s < 2 * LEASE_KEPT_S:
        now_s += RENEW_TICK_S
        for _ in leases.renewals(now_s):
            leases.answered(granted(NO_SEQ), now_s)

    assert now_s == LEASE_KEPT_S
    assert leases.next_deadline_s() is None


def test_a_refused_renewal_ends_it() -> None:
    leases = holding()

    assert leases.answered(LeaseAnswer(NO_SEQ, KEY, 0, 0.0, PROXY), 3.0) == (False, None)

    assert not leases.held


def test_what_is_granted_when_nobody_waits_any_more_is_given_back() -> None:
    leases = HostLeases()
    list(leases.up(0.0))
    leases.want(1, KEY, 1.0, None)
    leases.want(2, KEY, 1.0, None)
    leases.give_up(2)
    assert leases.overdue(1.0) == [1]

    for seq in (1, 2):
        assert leases.answered(granted(seq), 1.1) == (False, LeaseEnd(KEY, 5))
    assert not leases.held
    leases.validate(2, up=True)


def test_an_answer_that_comes_twice_is_given_once() -> None:
    leases = holding()

    assert leases.answered(granted(1), 0.1) == (False, None)
    assert leases.held[KEY].on_behalf == PROXY
    assert leases.held[KEY].keep_until_s == LEASE_KEPT_S


def test_a_held_lease_outlives_the_connection_and_questions_end_with_it() -> None:
    leases = holding()
    leases.want(2, KEY, 9.0, None)

    assert leases.down() == [2]
    leases.validate(2, up=False)
    assert leases.next_deadline_s() is None
    assert list(leases.renewals(5.0)) == []
    assert list(leases.up(6.0)) == [LeaseAsk(NO_SEQ, KEY, PROXY)]


def test_an_end_names_the_fence_that_the_tracker_knows_last() -> None:
    leases = holding()
    leases.answered(granted(NO_SEQ, fence=6), 3.0)

    assert leases.end(KEY, 5) == LeaseEnd(KEY, 6)
    assert leases.end(KEY, 5) == LeaseEnd(KEY, 5)


def test_a_time_that_is_no_number_wakes_nobody_in_a_loop() -> None:
    leases = HostLeases()
    list(leases.up(0.0))
    leases.want(1, KEY, 1.0, None)
    leases.answered(granted(1, expires_in_s=math.nan), 0.0)

    assert leases.next_deadline_s() == RENEW_TICK_S
    assert list(leases.renewals(RENEW_TICK_S)) == []
    assert leases.next_deadline_s() == 2 * RENEW_TICK_S
