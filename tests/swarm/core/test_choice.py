"""Which neighbour is asked for what, and what bounds it: one rule of the picker at a time."""

from __future__ import annotations

import pytest

from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Distance
from p2pdist.swarm.core import fetch as core
from p2pdist.swarm.core.fetch import IN_FLIGHT_BYTES_MAX, TICK_S, URGENT_BYTES
from p2pdist.swarm.core.picking import FAR_QUEUE_S, OUTSTANDING_BYTES_MAX, RUN_BYTES
from p2pdist.swarm.core.rescue import HEDGE_S, HEDGES_MIN, SLOW_PENALTY_S, STALL_S
from tests.swarm.core.test_fetch import (
    CHUNK,
    FAST,
    PROXY,
    A,
    B,
    asks,
    bits,
    fetch_of,
    known,
    meet,
)

C = HostId("c" * 32)
URGENT_CHUNKS = URGENT_BYTES // CHUNK


def asked_of(orders: list[core.Order], host: HostId) -> int:
    """The chunks that `host` is asked for."""
    return sum(((1 << count) - 1) << first for to, first, count in asks(orders) if to == host)


# --- what -----------------------------------------------------------------------------------------


def test_what_the_fewest_peers_offer_comes_first_whatever_the_chance() -> None:
    for seed in range(20):
        fetch = fetch_of(64, seed)
        meet(fetch, B, ((1 << 64) - 1) & ~bits(37))
        meet(fetch, A, (1 << 64) - 1, rate=None)  # of unknown speed: asked for one chunk

        orders = fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)

        assert asked_of(orders, A) == bits(37)


def test_what_peers_offer_is_not_asked_of_the_proxy_that_brings_other_things() -> None:
    fetch = fetch_of(4)
    meet(fetch, PROXY, bits(0, 1, 2, 3), proxy=True)
    meet(fetch, A, bits(0, 1), rate=None)

    orders = fetch.handle(core.HashesKnown(bits(0, 1, 2, 3)), 0.0)

    assert asked_of(orders, PROXY) == bits(2, 3)


def test_what_a_reader_lacks_first_is_urgent_however_much_of_what_is_ahead_is_there() -> None:
    for seed in range(20):
        fetch = fetch_of(8 * URGENT_CHUNKS, seed, verified=(1 << URGENT_CHUNKS) - 1)
        fetch.handle(core.ReaderMoved(1, 0), 0.0)
        meet(fetch, A, (1 << 8 * URGENT_CHUNKS) - 1, rate=None)

        orders = fetch.handle(core.HashesKnown((1 << 8 * URGENT_CHUNKS) - 1), 0.0)

        assert asks(orders) == [(A, URGENT_CHUNKS, 1)]


# --- of whom --------------------------------------------------------------------------------------


def test_one_that_gave_nothing_for_long_is_left_alone_for_a_while() -> None:
    fetch = fetch_of(8)
    meet(fetch, A, bits(0), rate=None)
    fetch.handle(core.HashesKnown(bits(0)), 0.0)
    late_s = STALL_S + 0.1
    fetch.handle(core.NeighbourUp(B, Distance.DC, False), late_s)
    fetch.handle_deadline(late_s)
    fetch.handle(core.Offered(A, bits(1)), late_s)

    assert asks(fetch.handle(core.HashesKnown(bits(1)), late_s)) == []
    assert asks(fetch.handle_deadline(late_s + SLOW_PENALTY_S - TICK_S)) == []
    assert asked_of(fetch.handle_deadline(late_s + SLOW_PENALTY_S + TICK_S), A)


def test_the_only_neighbour_is_asked_again_at_once() -> None:
    """To leave it alone would leave the blob alone."""
    fetch = fetch_of(1)
    meet(fetch, A, 1, rate=None)
    fetch.handle(core.HashesKnown(1), 0.0)

    assert asks(fetch.handle_deadline(STALL_S + 0.1)) == [(A, 0, 1)]


def test_who_is_busy_is_asked_again_after_a_pause() -> None:
    fetch = fetch_of(1)
    meet(fetch, A, 1)
    fetch.handle(core.NeighbourUp(B, Distance.DC, False), 0.0)
    (ask,) = fetch.handle(core.HashesKnown(1), 0.0)
    assert isinstance(ask, core.Ask)

    assert fetch.handle(core.Refused(A, ask.request_id, gone=False), 0.1) == []

    assert asks(fetch.handle_deadline(0.1 + TICK_S)) == [(A, 0, 1)]


def test_the_nearest_is_asked_before_a_faster_one() -> None:
    fetch = fetch_of(1)
    near, far = known(FAST / 2), known(FAST)
    fetch.handle(core.NeighbourUp(A, Distance.RACK, False, near), 0.0)
    fetch.handle(core.NeighbourUp(B, Distance.DC, False, far), 0.0)
    fetch.handle(core.Offered(A, 1), 0.0)
    fetch.handle(core.Offered(B, 1), 0.0)

    assert asks(fetch.handle(core.HashesKnown(1), 0.0)) == [(A, 0, 1)]


def test_what_a_lost_neighbour_was_asked_for_is_asked_of_another() -> None:
    fetch = fetch_of(2)
    meet(fetch, A, bits(0, 1))
    fetch.handle(core.HashesKnown(bits(0, 1)), 0.0)
    meet(fetch, B, bits(0, 1))

    orders = fetch.handle(core.NeighbourDown(A), 0.1)

    assert asked_of(orders, B) == bits(0, 1)


# --- how much -------------------------------------------------------------------------------------


def test_what_is_on_the_way_has_an_end_however_many_neighbours_there_are() -> None:
    in_flight_max = IN_FLIGHT_BYTES_MAX // CHUNK
    fetch = fetch_of(4 * in_flight_max)
    everything = (1 << 4 * in_flight_max) - 1
    for n in range(64):
        meet(fetch, HostId(f"{n:032x}"), everything)

    orders = fetch.handle(core.HashesKnown(everything), 0.0)

    # The last run begins below the bound.
    assert in_flight_max <= fetch.in_flight < in_flight_max + 4
    assert sum(count for _, _, count in asks(orders)) == fetch.in_flight


def asked_of_a_proxy(distance: Distance, rate: float | None) -> core.BlobFetch:
    """What it offers is ten times what a blob may have on the way."""
    fetch = fetch_of(10 * IN_FLIGHT_BYTES_MAX // CHUNK)
    everything = (1 << 10 * IN_FLIGHT_BYTES_MAX // CHUNK) - 1
    meet(fetch, PROXY, everything, proxy=True, rate=rate, distance=distance)
    fetch.handle(core.HashesKnown(everything), 0.0)
    return fetch


@pytest.mark.parametrize("rate", [None, FAST])
def test_a_proxy_of_this_datacenter_is_asked_for_two_runs(rate: float | None) -> None:
    fetch = asked_of_a_proxy(Distance.DC, rate)

    assert fetch.in_flight * CHUNK == OUTSTANDING_BYTES_MAX


def test_a_proxy_far_away_is_asked_for_what_it_brings_during_a_long_round_trip() -> None:
    unknown = asked_of_a_proxy(Distance.ELSEWHERE, None)
    slow, fast = (asked_of_a_proxy(Distance.ELSEWHERE, rate) for rate in (1e6, FAST))

    assert unknown.in_flight * CHUNK == OUTSTANDING_BYTES_MAX
    assert OUTSTANDING_BYTES_MAX <= slow.in_flight * CHUNK < 1.2 * OUTSTANDING_BYTES_MAX
    assert fast.in_flight * CHUNK >= OUTSTANDING_BYTES_MAX + 0.9 * FAR_QUEUE_S * FAST
    assert fast.in_flight * CHUNK <= IN_FLIGHT_BYTES_MAX


def test_what_is_on_the_way_has_an_end_where_one_neighbour_takes_much() -> None:
    in_flight_max = IN_FLIGHT_BYTES_MAX // CHUNK
    fetch = fetch_of(10 * in_flight_max)
    everything = (1 << 10 * in_flight_max) - 1
    for proxy in (PROXY, A):
        meet(fetch, proxy, everything, proxy=True, rate=FAST, distance=Distance.ELSEWHERE)
    fetch.handle(core.HashesKnown(everything), 0.0)

    assert in_flight_max <= fetch.in_flight < in_flight_max + RUN_BYTES // CHUNK


def test_a_proxy_far_away_is_asked_for_whole_runs() -> None:
    """Or its runs would be many and short, and their number what bounds it."""
    fetch, everything = fetch_of(64, sequential=True), (1 << 64) - 1
    meet(fetch, PROXY, everything, proxy=True, rate=None, distance=Distance.ELSEWHERE)
    (first, *_) = asks(fetch.handle(core.HashesKnown(everything), 0.0))
    assert first == (PROXY, 0, RUN_BYTES // CHUNK)

    came = [core.Arrived(PROXY, RequestId(1), chunk, good=True) for chunk in range(first[2])]
    asked = [asks(fetch.handle(event, 0.1)) for event in came]

    assert [[count for _, _, count in each] for each in asked] == [[], [], [], [first[2]]]


# --- hedges ---------------------------------------------------------------------------------------


def waiting_readers(count: int) -> core.BlobFetch:
    """Each waits for a chunk that A was asked for; B and C have it as well."""
    fetch = fetch_of(count)
    everything = (1 << count) - 1
    meet(fetch, A, everything)
    fetch.handle(core.HashesKnown(everything), 0.0)
    assert fetch.in_flight == count
    for host in (B, C):
        meet(fetch, host, everything)
    for chunk in range(count):
        fetch.handle(core.ReaderMoved(chunk, chunk), 0.0)
    return fetch


def test_hedges_end_with_their_budget() -> None:
    fetch = waiting_readers(2 * HEDGES_MIN)

    hedges = asks(fetch.handle_deadline(HEDGE_S + 0.1))

    assert len(hedges) == HEDGES_MIN
    assert asks(fetch.handle_deadline(HEDGE_S + 0.3)) == []


def test_a_chunk_is_asked_for_beside_its_source_once() -> None:
    fetch = waiting_readers(1)

    assert len(asks(fetch.handle_deadline(HEDGE_S + 0.1))) == 1
    assert asks(fetch.handle_deadline(2 * HEDGE_S + 0.3)) == []
