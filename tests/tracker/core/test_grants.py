from __future__ import annotations

import pytest

from p2pdist.model.control import Announce, LeaseAnswer, LeaseAsk, LeaseEnd, SwarmKey, origin_key
from p2pdist.model.ids import Digest
from p2pdist.model.members import Role
from p2pdist.model.rendezvous import ranked
from p2pdist.tracker.core.grants import Forward, ForwardEnd
from p2pdist.tracker.core.orders import Close, Send
from p2pdist.tracker.core.state import (
    HostDisconnected,
    RemoteAnswered,
    RemotesChanged,
    TrackerCore,
)
from tests.tracker.core.test_state import answer, connect, core, tell
from tests.tracker.hosts import host_id, key, member, seed

HERE, THERE = "dc1", "dc2"
FIRST, SECOND, ELSEWHERE = 1, 2, 9


def origin(of_dc: str) -> SwarmKey:
    """A key whose arbiter among HERE and THERE is `of_dc`."""
    keys = (origin_key(Digest(key(str(number)))) for number in range(100))
    return next(k for k in keys if ranked(k, {HERE, THERE})[0] == of_dc)


def two_proxies() -> TrackerCore:
    tracker = core()
    connect(tracker, FIRST, "dc1/r1", Role.PROXY)
    connect(tracker, SECOND, "dc1/r2", Role.PROXY)
    return tracker


def lease(tracker: TrackerCore, link: int, of: SwarmKey, now_s: float = 0.0) -> LeaseAnswer:
    return answer(tell(tracker, link, LeaseAsk(1, of), now_s), LeaseAnswer)


def test_the_second_proxy_is_told_whom_to_copy_from() -> None:
    tracker = two_proxies()

    assert lease(tracker, FIRST, key()).fence > 0
    refused = lease(tracker, SECOND, key())
    assert (refused.fence, refused.holder) == (0, member(FIRST, "dc1/r1", Role.PROXY))


def test_a_lease_whose_holder_lost_its_connection_is_taken_over_at_once() -> None:
    tracker = two_proxies()
    granted = lease(tracker, FIRST, key())

    tracker.handle(HostDisconnected(FIRST), 1.0)

    assert lease(tracker, SECOND, key(), 1.1).fence > granted.fence
    assert tracker.counters.leases_taken_over_total == 1


def test_a_grant_says_how_many_hosts_hold_some_of_it() -> None:
    tracker = two_proxies()
    connect(tracker, 3, "dc1/r1")
    connect(tracker, 4, "dc2/r1")
    for number in (3, 4, FIRST):
        tell(tracker, number, Announce([seed(key())]))

    assert lease(tracker, FIRST, key()).holders == 1


def test_a_lone_tracker_grants_the_registry_itself() -> None:
    tracker = two_proxies()

    assert lease(tracker, FIRST, origin(THERE)).fence > 0
    assert lease(tracker, SECOND, origin(THERE)).holder is not None


def test_who_read_the_registry_last_is_named_with_the_next_grant() -> None:
    tracker = two_proxies()
    granted = lease(tracker, FIRST, origin(HERE))
    tell(tracker, FIRST, LeaseEnd(origin(HERE), granted.fence))

    following = lease(tracker, SECOND, origin(HERE), 300.0)

    assert following.fence > granted.fence
    assert following.holder == member(FIRST, "dc1/r1", Role.PROXY)


def test_a_renewal_by_the_same_proxy_names_nobody() -> None:
    tracker = two_proxies()
    granted = lease(tracker, FIRST, origin(HERE))
    tell(tracker, FIRST, LeaseEnd(origin(HERE), granted.fence))

    assert lease(tracker, FIRST, origin(HERE), 1.0).holder is None


def test_the_registry_of_another_trackers_key_is_asked_of_that_tracker() -> None:
    tracker = two_proxies()
    tracker.handle(RemotesChanged(frozenset({THERE})), 0.0)

    (forward,) = tell(tracker, FIRST, LeaseAsk(7, origin(THERE)))
    assert isinstance(forward, Forward)
    assert (forward.dc, forward.member.host_id) == (THERE, host_id(FIRST))
    told = LeaseAnswer(3, origin(THERE), 12, 10.0)
    (sent,) = tracker.handle(RemoteAnswered(forward, told), 0.1)

    assert sent == Send(FIRST, LeaseAnswer(7, origin(THERE), 12, 10.0))


def test_our_own_key_is_granted_here() -> None:
    tracker = two_proxies()
    tracker.handle(RemotesChanged(frozenset({THERE})), 0.0)

    assert lease(tracker, FIRST, origin(HERE)).fence > 0


def test_a_silent_tracker_is_done_without() -> None:
    tracker = two_proxies()
    tracker.handle(RemotesChanged(frozenset({THERE})), 0.0)
    (forward,) = tell(tracker, FIRST, LeaseAsk(7, origin(THERE)))
    assert isinstance(forward, Forward)

    granted = answer(tracker.handle(RemoteAnswered(forward, None), 0.5), LeaseAnswer)

    assert granted.fence > 0


def held_elsewhere() -> TrackerCore:
    tracker = two_proxies()
    tracker.handle(RemotesChanged(frozenset({THERE})), 0.0)
    (forward,) = tell(tracker, FIRST, LeaseAsk(7, origin(THERE)))
    assert isinstance(forward, Forward)
    told = LeaseAnswer(3, origin(THERE), 12, 10.0)
    tracker.handle(RemoteAnswered(forward, told), 0.1)
    return tracker


def test_renewals_and_rivals_of_a_lease_from_elsewhere_are_answered_here() -> None:
    tracker = held_elsewhere()

    assert lease(tracker, FIRST, origin(THERE), 3.0).fence == 12
    rival = lease(tracker, SECOND, origin(THERE), 3.0)
    assert (rival.fence, rival.holder) == (0, member(FIRST, "dc1/r1", Role.PROXY))


def test_a_lease_from_elsewhere_is_given_back_there() -> None:
    tracker = held_elsewhere()

    ended = tell(tracker, FIRST, LeaseEnd(origin(THERE), 12), 4.0)

    assert ended == [ForwardEnd(THERE, origin(THERE), 12)]
    assert lease(tracker, SECOND, origin(HERE)).fence > 0


def test_the_leases_of_a_lost_proxy_are_given_back_elsewhere() -> None:
    tracker = held_elsewhere()

    lost = tracker.handle(HostDisconnected(FIRST), 4.0)

    assert lost == [ForwardEnd(THERE, origin(THERE), 12)]


def test_what_was_granted_to_a_proxy_that_left_meanwhile_is_given_back() -> None:
    tracker = two_proxies()
    tracker.handle(RemotesChanged(frozenset({THERE})), 0.0)
    (forward,) = tell(tracker, FIRST, LeaseAsk(7, origin(THERE)))
    assert isinstance(forward, Forward)
    tracker.handle(HostDisconnected(FIRST), 0.05)

    told = LeaseAnswer(3, origin(THERE), 12, 10.0)

    assert tracker.handle(RemoteAnswered(forward, told), 0.1) == [
        ForwardEnd(THERE, origin(THERE), 12)
    ]


def test_another_tracker_asks_on_behalf_of_its_proxy() -> None:
    tracker = two_proxies()
    connect(tracker, ELSEWHERE, "dc2", Role.TRACKER)
    proxy = member(20, "dc2/r1", Role.PROXY)

    granted = answer(tell(tracker, ELSEWHERE, LeaseAsk(1, origin(HERE), proxy)), LeaseAnswer)
    refused = lease(tracker, FIRST, origin(HERE))

    assert granted.fence > 0
    assert refused.holder == proxy


@pytest.mark.parametrize("ask", [LeaseAsk(1, origin(HERE)), LeaseAsk(1, SwarmKey("origin:x"))])
def test_an_ask_of_a_tracker_that_makes_no_sense_ends_its_connection(ask: LeaseAsk) -> None:
    tracker = core()
    connect(tracker, ELSEWHERE, "dc2", Role.TRACKER)

    assert isinstance(tell(tracker, ELSEWHERE, ask)[-1], Close)


def test_peers_do_not_read_registries_for_others() -> None:
    tracker = core()
    connect(tracker, 3, "dc1/r1")

    assert isinstance(tell(tracker, 3, LeaseAsk(1, origin(HERE)))[-1], Close)
