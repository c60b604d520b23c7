"""Choice by rate: what happens to slow neighbours, and when a proxy is asked for more."""

from __future__ import annotations

from p2pdist.model.ids import HostId
from p2pdist.model.members import Distance
from p2pdist.swarm.core import fetch as core
from p2pdist.swarm.core.fetch import URGENT_BYTES
from p2pdist.swarm.core.flow import PROGRESS_BYTES, Flows
from p2pdist.swarm.core.picking import QUEUE_S
from p2pdist.swarm.core.rescue import HEDGE_S, HUNGRY_GAIN_S, HUNGRY_S, STARVE_S, UNOFFERED_S
from tests.swarm.core.test_fetch import (
    CHUNK,
    FAST,
    KNOWN_S,
    PROXY,
    A,
    B,
    asks,
    bits,
    fetch_of,
    known,
    meet,
)

SLOW = 250e3  # 2 Mbit/s: a chunk takes 1.05 s


def chunks_at(fetch_orders: list[core.Order], host: str) -> int:
    return sum(count for to, _, count in asks(fetch_orders) if to == host)


def test_a_neighbour_is_asked_for_what_it_brings_in_a_moment() -> None:
    fetch = fetch_of(64)
    meet(fetch, A, (1 << 64) - 1, rate=SLOW)
    meet(fetch, B, (1 << 64) - 1, rate=4 * CHUNK / QUEUE_S)

    orders = fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)

    assert chunks_at(orders, A) == 1
    assert 4 <= chunks_at(orders, B) <= 5


def test_a_neighbour_of_unknown_speed_is_asked_for_one_chunk() -> None:
    fetch = fetch_of(64)
    meet(fetch, A, (1 << 64) - 1, rate=None)

    assert asks(fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0))[0][2] == 1


def test_what_a_reader_waits_for_is_not_asked_of_a_laggard() -> None:
    fetch = fetch_of(256)
    meet(fetch, A, (1 << 256) - 1, rate=SLOW)
    meet(fetch, B, (1 << 256) - 1)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)

    orders = fetch.handle(core.HashesKnown((1 << 256) - 1), 0.0)

    urgent_chunks = URGENT_BYTES // CHUNK
    assert (B, 0, 4) in asks(orders)
    assert all(first >= urgent_chunks for host, first, _ in asks(orders) if host == A)


def test_the_next_chunk_of_a_reader_is_taken_to_who_brings_it_sooner() -> None:
    fetch = fetch_of(256)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, A, bits(0), rate=SLOW)
    (slow,) = fetch.handle(core.HashesKnown((1 << 256) - 1), 0.0)
    assert isinstance(slow, core.Ask)

    meet(fetch, B, (1 << 256) - 1)
    orders = fetch.handle_deadline(0.04)

    assert core.Withdraw(A, slow.request_id) in orders
    assert (B, 0, 1) in asks(orders)
    assert fetch.counters.steals == 1


def test_what_nobody_waits_for_stays_while_the_fast_one_has_other_things_to_bring() -> None:
    fetch = fetch_of(256)
    meet(fetch, A, bits(100), rate=SLOW)
    fetch.handle(core.HashesKnown((1 << 256) - 1), 0.0)

    meet(fetch, B, (1 << 256) - 1)

    assert not [o for o in fetch.handle_deadline(0.04) if isinstance(o, core.Withdraw)]


def test_at_the_end_the_idle_take_from_the_slow() -> None:
    fetch = fetch_of(2)
    meet(fetch, A, bits(1), rate=SLOW)
    fetch.handle(core.HashesKnown(bits(0, 1)), 0.0)
    (ask,) = meet(fetch, B, bits(0, 1))
    assert isinstance(ask, core.Ask)

    orders = fetch.handle(core.Arrived(B, ask.request_id, 0, good=True), 0.04)

    assert asks(orders) == [(B, 1, 1)]


def test_nothing_is_taken_from_one_that_is_as_fast() -> None:
    fetch = fetch_of(64)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, A, (1 << 64) - 1, rate=SLOW)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    meet(fetch, B, (1 << 64) - 1, rate=1.5 * SLOW)

    assert not [o for o in fetch.handle_deadline(0.04) if isinstance(o, core.Withdraw)]


def test_what_nobody_offered_is_taken_from_the_busy_proxy_once_somebody_does() -> None:
    fetch, flows = fetch_of(64), known(1e6)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    fetch.handle(core.NeighbourUp(PROXY, Distance.DC, True, flows), 0.0)
    fetch.handle(core.NeighbourUp(A, Distance.DC, False, known(FAST)), 0.0)
    flows.urgent.asked(2_000_000, 0.9)  # for other blobs
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    hedge = fetch.handle_deadline(UNOFFERED_S + 0.1)
    assert (PROXY, 0, 1) in asks(hedge)
    flows.heard(int(KNOWN_S * 1e6) + 100_000, 1.0)

    fetch.handle(core.Offered(A, 1), UNOFFERED_S + 0.15)
    orders = fetch.handle_deadline(UNOFFERED_S + 0.2)

    assert (A, 0, 1) in asks(orders)


# --- hunger -------------------------------------------------------------------------------------


def hunger(orders: list[core.Order]) -> list[bool]:
    return [order.hungry for order in orders if isinstance(order, core.SayHungry)]


def test_a_proxy_that_would_bring_far_more_than_the_peers_is_told() -> None:
    fetch = fetch_of(64)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, PROXY, 0, proxy=True, rate=100e6)
    meet(fetch, A, (1 << 64) - 1, rate=SLOW)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)

    assert hunger(fetch.handle_deadline(0.1)) == [True]
    assert hunger(fetch.handle_deadline(0.2)) == [], "once is enough"


def test_a_proxy_is_left_alone_while_peers_together_bring_half_of_what_it_would() -> None:
    fetch = fetch_of(64)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, PROXY, 0, proxy=True, rate=10e6)
    meet(fetch, A, (1 << 64) - 1, rate=3e6)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    meet(fetch, B, 1, rate=3e6)  # A was asked for that

    assert hunger(fetch.handle_deadline(0.1)) == []


def test_a_proxy_is_left_alone_where_peers_are_far_slower_but_soon_ready() -> None:
    rate = 4 * CHUNK / (0.8 * HUNGRY_GAIN_S)
    fetch, flows = fetch_of(4), known(rate)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, PROXY, 0, proxy=True, rate=1e9)
    fetch.handle(core.NeighbourUp(A, Distance.DC, False, flows), 0.0)
    fetch.handle(core.Offered(A, 0b1111), 0.0)
    fetch.handle(core.HashesKnown(0b1111), 0.0)
    flows.heard(int(KNOWN_S * rate) + CHUNK - 1, 0.09)

    assert hunger(fetch.handle_deadline(0.1)) == []


def test_a_proxy_is_left_alone_until_the_peers_have_shown_what_they_can() -> None:
    """They bring nothing while nothing is asked of them, and nothing would be, of hungry hosts."""
    fetch, flows = fetch_of(64), Flows()
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, PROXY, 0, proxy=True, rate=100e6)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    assert hunger(fetch.handle_deadline(0.1)) == [], "nobody offers anything yet"

    fetch.handle(core.NeighbourUp(A, Distance.RACK, False, flows), 0.15)
    fetch.handle(core.Offered(A, (1 << 64) - 1), 0.15)
    assert hunger(fetch.handle_deadline(0.2)) == []

    assert hunger(fetch.handle_deadline(0.3)) == [True], "it sent nothing"


def test_a_host_that_nobody_offers_anything_is_hungry_until_somebody_does() -> None:
    """Such as one that cannot reach the hosts that the proxy counts on."""
    fetch = fetch_of(64)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, PROXY, 0, proxy=True, rate=100e6)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    assert hunger(fetch.handle_deadline(STARVE_S)) == [True]
    fetch.handle(core.Offered(PROXY, 1), STARVE_S)
    assert hunger(fetch.handle_deadline(STARVE_S + 0.1)) == []

    fetch.handle(core.NeighbourUp(A, Distance.DC, False, known(100e6)), STARVE_S + 0.15)
    fetch.handle(core.Offered(A, (1 << 64) - 1), STARVE_S + 0.15)

    assert hunger(fetch.handle_deadline(STARVE_S + 0.2)) == [False]


def test_a_proxy_of_unknown_speed_is_told_once_a_reader_waited_for_a_moment() -> None:
    fetch = fetch_of(64)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    fetch.handle(core.NeighbourUp(PROXY, Distance.DC, True), 0.0)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)

    assert hunger(fetch.handle_deadline(HUNGRY_S)) == []
    assert hunger(fetch.handle_deadline(2 * HUNGRY_S)) == [True]


def test_hunger_ends_with_the_reader() -> None:
    fetch = fetch_of(64)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, PROXY, 0, proxy=True, rate=100e6)
    meet(fetch, A, (1 << 64) - 1, rate=SLOW)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    assert hunger(fetch.handle_deadline(0.1)) == [True]

    fetch.handle(core.ReaderLeft(1), 0.2)

    assert hunger(fetch.handle_deadline(0.4)) == [False]


def test_nobody_is_hungry_without_a_reader_or_for_a_proxy_elsewhere() -> None:
    fetch = fetch_of(64)
    meet(fetch, PROXY, 0, proxy=True, rate=100e6)
    meet(fetch, A, (1 << 64) - 1, rate=SLOW)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    assert hunger(fetch.handle_deadline(0.3)) == []

    far = fetch_of(64)
    far.handle(core.ReaderMoved(1, 0), 0.0)
    far.handle(core.NeighbourUp(PROXY, Distance.ELSEWHERE, True, known(100e6)), 0.0)
    meet(far, A, (1 << 64) - 1, rate=SLOW)
    far.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    assert hunger(far.handle_deadline(0.3)) == []


def test_a_run_that_its_neighbour_leaves_out_is_given_up() -> None:
    """It goes on sending others, so the link shows progress."""
    fetch, flows = fetch_of(64), Flows()
    fetch.handle(core.NeighbourUp(A, Distance.DC, False, flows), 0.0)
    fetch.handle(core.Offered(A, bits(0)), 0.0)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)

    orders: list[core.Order] = []
    for n in range(1, 300):
        flows.heard(n * 64 * 1024, n / 10)
        orders += fetch.handle_deadline(n / 10)

    assert fetch.counters.stalls >= 1


def test_a_chunk_that_a_second_source_was_asked_for_is_not_asked_of_a_third() -> None:
    fetch, flows = fetch_of(1), known(SLOW)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    fetch.handle(core.NeighbourUp(A, Distance.DC, False, flows), 0.0)
    fetch.handle(core.Offered(A, 1), 0.0)
    fetch.handle(core.HashesKnown(1), 0.0)
    meet(fetch, B, 1, rate=SLOW)
    hedged_s = HEDGE_S + 0.1
    assert asks(fetch.handle_deadline(hedged_s)) == [(B, 0, 1)]

    flows.heard(int(KNOWN_S * SLOW) + PROGRESS_BYTES, hedged_s)  # A goes on after all
    fetch.handle(core.NeighbourUp(HostId("c" * 32), Distance.DC, False, known(FAST)), hedged_s)
    fetch.handle(core.Offered(HostId("c" * 32), 1), hedged_s)

    assert fetch.handle_deadline(hedged_s + 0.1) == []


def test_a_chunk_that_comes_after_all_from_whom_it_was_taken_is_taken_back_from_the_other() -> None:
    """It was asked for until it came a second time, and moved on to others meanwhile."""
    fetch = fetch_of(256)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, A, bits(0), rate=SLOW)
    (slow,) = fetch.handle(core.HashesKnown((1 << 256) - 1), 0.0)
    assert isinstance(slow, core.Ask)
    meet(fetch, B, (1 << 256) - 1)
    moved = [order for order in fetch.handle_deadline(0.04) if isinstance(order, core.Ask)]
    (taken,) = [order for order in moved if order.first == 0]

    orders = fetch.handle(core.Arrived(A, slow.request_id, 0, good=True), 0.05)

    assert core.Withdraw(B, taken.request_id) in orders
    fetch.validate()


def test_a_run_of_which_all_came_from_elsewhere_is_moved_nowhere() -> None:
    fetch = fetch_of(256)
    meet(fetch, A, bits(0, 1), rate=SLOW)
    fetch.handle(core.HashesKnown(0b11), 0.0)
    fetch.handle(core.Landed(0b11), 0.1)
    assert fetch.in_flight
    meet(fetch, B, 0b11)
    fetch.handle(core.ReaderMoved(1, 0), 0.1)

    assert asks(fetch.handle_deadline(0.2)) == []


def test_a_hedged_chunk_whose_sources_both_go_may_be_hedged_again() -> None:
    fetch = fetch_of(1)
    c, d = HostId("c" * 32), HostId("d" * 32)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    fetch.handle(core.HashesKnown(1), 0.0)
    for host in (A, B):
        meet(fetch, host, 1)
    first = asks(fetch.plan(0.0))
    hedged_s = HEDGE_S + 0.1
    fetch.handle_deadline(hedged_s)
    assert fetch.counters.hedges == 1
    for host in (A, B):
        fetch.handle(core.NeighbourDown(host), hedged_s)
    for host in (c, d):
        fetch.handle(core.NeighbourUp(host, Distance.DC, False, known(FAST)), hedged_s)
        fetch.handle(core.Offered(host, 1), hedged_s)
    fetch.handle_deadline(hedged_s + 0.1)
    assert fetch.in_flight

    fetch.handle_deadline(hedged_s + 0.2 + HEDGE_S)

    assert fetch.counters.hedges == 2, first
    fetch.validate()
