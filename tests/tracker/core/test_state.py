from __future__ import annotations

from random import Random
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.model import control
from p2pdist.model.control import Announce, Delta, Handout, Join, LeaseAnswer, LeaseAsk, Leave
from p2pdist.model.ids import Digest, MapId
from p2pdist.model.members import Member, Role
from p2pdist.model.statements import Keyring, Revocation, Signer
from p2pdist.tracker.core.orders import Close, Send, SendAll
from p2pdist.tracker.core.shares import KeyLimits
from p2pdist.tracker.core.state import (
    HostConnected,
    HostDisconnected,
    MessageReceived,
    Order,
    TrackerCore,
    TrackerLimits,
)
from p2pdist.tracker.core.swarms import Swarms, Tier
from tests.tracker.hosts import host_id, key, member, seed

SIGNER = Signer.generate()
M = TypeVar("M")


def core(*, hosts_max: int = 100, swarms: Swarms | None = None) -> TrackerCore:
    return TrackerCore(
        epoch="one",
        dc="dc1",
        epoch_s=0.0,
        epoch_unix_s=1_800_000_000.0,
        keyring=Keyring([SIGNER.public_key_bytes]),
        rng=Random(1),
        token=Random(1).randbytes,
        limits=TrackerLimits(heartbeat_s=10.0, grace_s=5.0, hosts_max=hosts_max),
        swarms=swarms,
    )


def connect(
    tracker: TrackerCore,
    number: int,
    place: str = "dc1/r1",
    role: Role = Role.PEER,
    now_s: float = 0,
) -> list[Order]:
    """The link has the number of the host."""
    return tracker.handle(HostConnected(number, member(number, place, role)), now_s)


def tell(
    tracker: TrackerCore, link: int, message: control.ToTracker, now_s: float = 0
) -> list[Order]:
    return tracker.handle(MessageReceived(link, message), now_s)


def answer(orders: list[Order], kind: type[M]) -> M:
    (order,) = orders
    assert isinstance(order, Send)
    assert isinstance(order.message, kind)
    return order.message


def named(tracker: TrackerCore, link: int, now_s: float = 0) -> list[Member]:
    """Whom the tracker names to the host behind `link`, which does not become a member."""
    return answer(tell(tracker, link, Join(7, key(), member=False), now_s), Handout).members


def test_a_host_is_welcomed_with_the_epoch() -> None:
    welcome = answer(connect(core(), 1), control.Welcome)

    assert (welcome.epoch, welcome.announce_interval_s, welcome.heartbeat_s) == ("one", 1.0, 10.0)


def test_a_join_is_answered_by_its_number_with_the_holders() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2)
    tell(tracker, 1, Announce([seed(key())]))

    handout = answer(tell(tracker, 2, Join(42, key())), Handout)

    assert (handout.seq, handout.key, handout.swarm_size) == (42, key(), 2)
    assert handout.members == [member(1)]


def test_a_reader_is_named_until_it_leaves() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2)
    tell(tracker, 1, Join(1, key()))
    assert named(tracker, 2) == [member(1)]

    tell(tracker, 1, Leave(key()))

    assert named(tracker, 2) == []


def test_a_query_without_membership_leaves_no_trace() -> None:
    tracker = core()
    connect(tracker, 1)

    named(tracker, 1)

    assert len(tracker.swarms) == 0


def test_offers_outlive_a_short_absence() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2)
    tell(tracker, 1, Announce([seed(key())]))

    tracker.handle(HostDisconnected(1), 1.0)
    tracker.handle_deadline(5.9)
    tracker.handle(HostConnected(3, member(1)), 5.9)
    tracker.handle_deadline(20.0)

    assert named(tracker, 2, 20.0) == [member(1)]


def test_offers_vanish_with_a_host_that_stays_away() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2)
    tell(tracker, 1, Announce([seed(key())]))
    tracker.handle(HostDisconnected(1), 1.0)
    assert tracker.next_deadline_s() == 6.0

    tracker.handle_deadline(6.0)

    assert named(tracker, 2, 6.0) == []
    assert tracker.counters.hosts_expired_total == 1


def test_offers_vanish_at_once_with_a_host_that_says_goodbye() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2)
    tell(tracker, 1, Announce([seed(key())]))

    tracker.handle(HostDisconnected(1, leaving=True), 1.0)

    assert named(tracker, 2, 1.0) == []


def test_a_silent_host_is_disconnected_after_three_heartbeats() -> None:
    tracker = core()
    connect(tracker, 1)
    tell(tracker, 1, control.Status({}), 5.0)

    assert tracker.handle_deadline(34.9) == []
    assert tracker.handle_deadline(35.0) == [Close(1, "no heartbeat")]


def test_interest_does_not_outlive_a_reconnection() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2)
    tell(tracker, 1, Join(1, key()))
    tracker.handle(HostDisconnected(1), 1.0)

    tracker.handle(HostConnected(3, member(1)), 2.0)

    assert named(tracker, 2, 2.0) == []


def test_a_newer_connection_replaces_the_older_one() -> None:
    tracker = core()
    connect(tracker, 1)

    orders = tracker.handle(HostConnected(2, member(1)), 1.0)

    assert isinstance(orders[0], Close)
    assert orders[0].link == 1
    assert tell(tracker, 1, Join(1, key()), 1.0) == []
    tracker.handle(HostDisconnected(1), 1.5)
    tracker.handle_deadline(20.0)
    assert tell(tracker, 2, Join(1, key()), 20.0)


def test_the_second_of_two_hosts_with_one_id_is_told_where_the_first_is() -> None:
    tracker = core()
    tracker.handle(HostConnected(1, member(1), "10.0.0.1", b"one"), 0.0)
    replaced = tracker.handle(HostConnected(2, member(1), "10.0.0.2", b"two"), 1.0)
    assert replaced[0] == Close(1, "replaced by a newer connection of this host, from 10.0.0.2")
    tell(tracker, 2, Announce([seed(key())]), 1.0)

    orders = tracker.handle(HostConnected(3, member(1), "10.0.0.1", b"one"), 2.0)
    tracker.handle(HostDisconnected(3), 2.0)

    assert orders == [Close(3, "this host id is in use at 10.0.0.2", in_use=True)]
    assert tracker.counters.host_ids_in_use_total == 1
    connect(tracker, 4)
    assert named(tracker, 4, 2.0) == [member(1)], "the one that is connected stays what it was"


def test_a_host_that_reconnects_again_and_again_is_no_clone() -> None:
    tracker = core()
    instances = [b"one", b"one", b"two", b"two", b"three", b"three"]  # restarts among them
    for link, instance in enumerate(instances, 1):
        orders = tracker.handle(HostConnected(link, member(1), f"10.0.0.{link}", instance), 0.0)
        assert not any(isinstance(order, Close) and order.in_use for order in orders)
    assert tracker.counters.host_ids_in_use_total == 0


def test_a_host_that_moved_is_found_at_its_new_place() -> None:
    tracker = core()
    connect(tracker, 1, "dc1/r1")
    connect(tracker, 2, "dc2/r1")
    tell(tracker, 1, Announce([seed(key())]))
    tracker.handle(HostDisconnected(1), 1.0)

    connect(tracker, 1, "dc2/r1", now_s=2.0)
    tell(tracker, 1, Announce([seed(key())]), 2.0)

    assert named(tracker, 2, 2.0) == [member(1, "dc2/r1")]


def test_a_full_announce_replaces_what_was_said_before() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2)
    tell(tracker, 1, Announce([seed(key())]))

    tell(tracker, 1, Announce([seed(key("other"))], full=True))

    assert named(tracker, 2) == []
    assert tracker.swarms.get(key("other"))


def test_a_malformed_key_closes_that_connection_only() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2)

    orders = tell(tracker, 1, Announce([Delta("no key", 1, True)]))

    assert isinstance(orders[0], Close)
    assert tracker.hosts_connected == 1
    assert tracker.counters.protocol_faults_total == 1


def test_what_exceeds_the_limits_is_counted() -> None:
    tracker = core(swarms=Swarms(KeyLimits(keys_per_host_max=1)))
    connect(tracker, 1)

    tell(tracker, 1, Announce([seed(key("a")), seed(key("b"))]))

    assert tracker.swarms.entry_count == 1
    assert tracker.counters.keys_refused_total == 1


def test_a_full_tracker_refuses_a_new_host() -> None:
    tracker = core(hosts_max=1)
    connect(tracker, 1)

    (order,) = connect(tracker, 2)

    assert isinstance(order, Close)
    assert tracker.counters.hosts_refused_total == 1


def test_a_host_that_is_away_makes_room_for_a_new_one() -> None:
    tracker = core(hosts_max=1)
    connect(tracker, 1)
    tracker.handle(HostDisconnected(1), 1.0)

    answer(connect(tracker, 2, now_s=1.0), control.Welcome)

    assert tracker.host_ids() == [host_id(2)]


def test_many_hosts_are_asked_to_announce_less_often() -> None:
    tracker = core(hosts_max=20_000)
    for i in range(11_999):
        connect(tracker, i)

    welcome = answer(connect(tracker, 11_999), control.Welcome)

    assert welcome.announce_interval_s == 2.0


def test_a_peer_gets_no_lease_while_a_proxy_of_its_datacenter_is_connected() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2, "dc1", Role.PROXY)
    connect(tracker, 3, "dc2", Role.PEER)

    refused = answer(tell(tracker, 1, LeaseAsk(5, key())), LeaseAnswer)
    granted = answer(tell(tracker, 3, LeaseAsk(6, key())), LeaseAnswer)

    assert (refused.seq, refused.fence, refused.holder) == (5, 0, member(2, "dc1", Role.PROXY))
    assert (granted.seq, granted.holder) == (6, None)
    assert granted.fence > 0


def test_the_second_proxy_is_told_who_holds_the_lease() -> None:
    tracker = core()
    for number in (1, 2):
        connect(tracker, number, "dc1", Role.PROXY)
    first = answer(tell(tracker, 1, LeaseAsk(1, key())), LeaseAnswer)

    second = answer(tell(tracker, 2, LeaseAsk(1, key()), 4.0), LeaseAnswer)

    assert first.expires_in_s == 10.0
    assert second.fence == 0
    assert second.expires_in_s == 6.0
    assert second.holder == member(1, "dc1", Role.PROXY)


def test_the_lease_of_a_lost_host_goes_to_the_next() -> None:
    tracker = core()
    for number in (1, 2):
        connect(tracker, number, "dc1", Role.PROXY)
    first = answer(tell(tracker, 1, LeaseAsk(1, key())), LeaseAnswer)
    tracker.handle(HostDisconnected(1), 0.0)
    tracker.handle_deadline(5.0)

    second = answer(tell(tracker, 2, LeaseAsk(1, key()), 5.0), LeaseAnswer)

    assert second.fence > first.fence
    assert tracker.counters.leases_taken_over_total == 1


def test_a_revocation_goes_to_all_and_to_those_who_come_later() -> None:
    tracker = core()
    connect(tracker, 1)
    record = SIGNER.sign(Revocation(Digest(key()), MapId(bytes(16)), 0))

    assert tell(tracker, 1, control.Revoke([record])) == [SendAll(control.Revoked([record]))]
    assert tell(tracker, 1, control.Revoke([record])) == []
    assert connect(tracker, 2)[1:] == [Send(2, control.Revoked([record]))]


def test_reported_numbers_are_summed_over_connected_hosts() -> None:
    tracker = core()
    connect(tracker, 1)
    connect(tracker, 2)
    tell(tracker, 1, control.Status({"bytes": 3.0}))
    tell(tracker, 2, control.Status({"bytes": 4.0}))
    tell(tracker, 2, control.Status({"bytes": 5.0}))
    assert tracker.sums.totals == {"bytes": 8.0}

    tracker.handle(HostDisconnected(1), 0.0)

    assert tracker.sums.totals == {"bytes": 5.0}


def test_a_restored_host_is_named_and_expires_unless_it_comes_back() -> None:
    before, after = core(), core()
    connect(before, 1)
    tell(before, 1, Announce([seed(key())]))
    record = before.export(host_id(1))
    assert record is not None

    after.restore(record, 0.0)
    connect(after, 2)

    assert named(after, 2) == [member(1)]
    after.handle_deadline(5.0)
    assert named(after, 2) == []


_keys = st.sampled_from([key("a"), key("b"), key("c")])
_links = st.integers(0, 5)
_steps = st.one_of(
    st.builds(HostDisconnected, _links, st.booleans()),
    st.tuples(
        _links, st.sampled_from(["dc1/r1", "dc1", "dc2/r1"]), st.sampled_from(list(Role)[:2])
    ),
    st.builds(
        MessageReceived,
        _links,
        st.one_of(
            st.builds(
                Announce,
                st.lists(st.builds(Delta, _keys, st.integers(0, 9), st.booleans()), max_size=4),
                st.booleans(),
            ),
            st.builds(Join, st.integers(0, 9), _keys, st.booleans()),
            st.builds(Leave, _keys),
            st.builds(LeaseAsk, st.integers(0, 9), _keys),
            st.builds(control.LeaseEnd, _keys, st.integers(0, 9)),
            st.builds(Leave, st.text(max_size=5)),
        ),
    ),
)


LIMITS = KeyLimits(units_max=17, keys_per_host_max=2, keys_sure=1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_steps, st.floats(0, 4)), max_size=40))
def test_any_sequence_of_events_keeps_the_indexes_true(
    steps: list[tuple[HostDisconnected | MessageReceived | tuple[int, str, Role], float]],
) -> None:
    tracker = core(hosts_max=4, swarms=Swarms(LIMITS))
    links: dict[int, int] = {}
    now_s, fresh_link = 0.0, 0
    for step, wait_s in steps:
        now_s += wait_s
        tracker.handle_deadline(now_s)
        if isinstance(step, tuple):
            number, place, role = step
            fresh_link += 1
            links[number] = fresh_link
            tracker.handle(HostConnected(fresh_link, member(number, place, role)), now_s)
        else:
            step.link = links.get(step.link, 0)
            for order in tracker.handle(step, now_s):
                check_order(order)
        check_indexes(tracker)


def check_order(order: Order) -> None:
    """Nobody is named twice in one handout."""
    if isinstance(order, Send) and isinstance(order.message, Handout):
        ids = [m.host_id for m in order.message.members]
        assert len(ids) == len(set(ids))


def check_indexes(tracker: TrackerCore) -> None:
    """Pools, entries and counts tell the same story, within the limits."""
    hosts = [tracker._hosts[host] for host in tracker.host_ids()]
    entries = [entry for host in hosts for entry in host.entries.values()]
    assert len(hosts) <= 4
    assert tracker.swarms.entry_count == len(entries)
    assert tracker.swarms.units <= LIMITS.units_max
    assert tracker.swarms._holders == sum(bool(host.entries) for host in hosts)
    linked = [host for host in hosts if host.link is not None]
    assert tracker.hosts_connected == sum(h.member.role is not Role.TRACKER for h in linked)
    for entry in entries:
        assert entry.interested or entry.tier is not Tier.EMPTY
        for slot, place in entry.host.places:
            pool = entry.swarm.pool(place)
            assert pool is not None
            assert pool.tiers[entry.tier][entry.positions[slot]] is entry
    assert sum(entry.swarm.size == 0 for entry in entries) == 0
    assert {entry.swarm.key for entry in entries} == set(tracker.swarms._swarms)
