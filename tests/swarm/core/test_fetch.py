"""The picker on a simulated wire: numbers for time, plain records in and out."""

from __future__ import annotations

import heapq
import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Distance
from p2pdist.swarm.core import fetch as core
from p2pdist.swarm.core.flow import Flows
from p2pdist.swarm.core.rescue import HEDGE_S, STALL_S, STARVE_S, UNOFFERED_S

A, B, PROXY = HostId("a" * 32), HostId("b" * 32), HostId("f" * 32)
CHUNK = 256 * 1024


def fetch_of(
    chunks: int, seed: int = 1, *, sequential: bool = False, verified: int = 0
) -> core.BlobFetch:
    ids = itertools.count(1)
    return core.BlobFetch(
        Geometry(chunks * CHUNK, CHUNK),
        rng=Random(seed),
        new_request_id=lambda: RequestId(next(ids)),
        counters=core.FetchCounters(),
        sequential=sequential,
        verified=verified,
    )


def bits(*chunks: int) -> int:
    return sum(1 << c for c in chunks)


def asks(orders: list[core.Order]) -> list[tuple[HostId, int, int]]:
    return [(o.host, o.first, o.count) for o in orders if isinstance(o, core.Ask)]


def known(rate: float) -> Flows:
    """Of a neighbour that has brought `rate` bytes per second for `KNOWN_S`, until now."""
    flows, nbytes = Flows(), int(KNOWN_S * rate)
    flows.urgent.asked(nbytes, -KNOWN_S)
    for step in range(1, 21):
        flows.heard(nbytes * step // 20, KNOWN_S * (step / 20 - 1))
    flows.urgent.came(nbytes, 0.0)
    return flows


KNOWN_S = 2.0
FAST = 100e6


def meet(
    fetch: core.BlobFetch,
    host: HostId,
    offered: int,
    *,
    proxy: bool = False,
    rate: float | None = FAST,
    distance: Distance = Distance.DC,
) -> list[core.Order]:
    flows = Flows() if rate is None else known(rate)
    fetch.handle(core.NeighbourUp(host, distance, proxy, flows), 0.0)
    return fetch.handle(core.Offered(host, offered), 0.0)


def test_a_chunk_without_a_known_hash_is_not_asked_for() -> None:
    fetch = fetch_of(8)
    meet(fetch, A, bits(0, 1, 2))

    orders = fetch.handle(core.HashesKnown(bits(1)), 0.0)

    assert asks(orders) == [(A, 1, 1)]


def test_what_a_reader_waits_for_comes_first() -> None:
    fetch = fetch_of(64)
    fetch.handle(core.ReaderMoved(7, 40), 0.0)
    meet(fetch, A, (1 << 64) - 1)

    orders = fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)

    assert asks(orders) == [(A, 40, 4), (A, 44, 4)]


def test_without_a_reader_what_only_one_peer_offers_comes_first() -> None:
    fetch = fetch_of(8)
    meet(fetch, A, bits(0, 1, 2, 3, 4, 5, 6, 7))
    meet(fetch, B, bits(0, 1, 2, 3, 4, 5, 6))
    fetch.handle(core.NeighbourDown(B), 0.0)
    fetch.handle(core.NeighbourUp(B, Distance.DC, False), 0.0)
    fetch.handle(core.Offered(B, bits(0, 1, 2, 3, 4, 5, 6)), 0.0)

    orders = fetch.handle(core.HashesKnown((1 << 8) - 1), 0.0)

    assert (A, 7, 1) in asks(orders)


def test_a_proxy_is_asked_only_for_what_no_peer_offers() -> None:
    fetch = fetch_of(8)
    meet(fetch, PROXY, bits(0, 1, 2, 3), proxy=True)
    meet(fetch, A, bits(0, 1))

    orders = fetch.handle(core.HashesKnown(bits(0, 1, 2, 3)), 0.0)

    assert [(h, f, n) for h, f, n in asks(orders) if h == PROXY] == [(PROXY, 2, 2)]


def test_a_good_chunk_is_not_asked_for_again() -> None:
    fetch = fetch_of(1)
    meet(fetch, A, 1)
    (ask,) = fetch.handle(core.HashesKnown(1), 0.0)
    assert isinstance(ask, core.Ask)

    fetch.handle(core.Arrived(A, ask.request_id, 0, good=True), 0.1)

    assert fetch.complete
    assert fetch.next_deadline_s() is None


def test_a_bad_chunk_is_asked_of_another_neighbour() -> None:
    fetch = fetch_of(1)
    meet(fetch, A, 1)
    (ask,) = fetch.handle(core.HashesKnown(1), 0.0)
    assert isinstance(ask, core.Ask)
    fetch.handle(core.NeighbourUp(B, Distance.DC, False), 0.0)
    fetch.handle(core.Offered(B, 1), 0.0)

    orders = fetch.handle(core.Arrived(A, ask.request_id, 0, good=False), 0.1)

    assert asks(orders) == [(B, 0, 1)]


def test_a_silent_neighbour_is_given_up_and_another_one_asked() -> None:
    fetch = fetch_of(4)
    meet(fetch, A, bits(0, 1, 2, 3))
    fetch.handle(core.HashesKnown(bits(0, 1, 2, 3)), 0.0)
    meet(fetch, B, bits(0, 1, 2, 3))

    orders = fetch.handle_deadline(STALL_S + 0.1)

    assert [type(o) for o in orders] == [core.Withdraw, core.Ask]
    assert asks(orders) == [(B, 0, 4)]


def test_a_trickle_counts_as_silence() -> None:
    fetch, flows = fetch_of(1), Flows()
    fetch.handle(core.NeighbourUp(A, Distance.DC, False, flows), 0.0)
    fetch.handle(core.Offered(A, 1), 0.0)
    fetch.handle(core.HashesKnown(1), 0.0)
    fetch.handle(core.NeighbourUp(B, Distance.DC, False), 0.0)
    fetch.handle(core.Offered(B, 1), 0.0)

    for tenth in range(21):
        flows.heard(tenth, tenth / 10)

    assert asks(fetch.handle_deadline(STALL_S + 0.1)) == [(B, 0, 1)]


def test_an_urgent_chunk_without_progress_is_hedged_once() -> None:
    fetch = fetch_of(1)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, A, 1)
    fetch.handle(core.HashesKnown(1), 0.0)
    fetch.handle(core.NeighbourUp(B, Distance.DC, False), 0.0)
    fetch.handle(core.Offered(B, 1), 0.0)

    first = fetch.handle_deadline(HEDGE_S + 0.1)
    second = fetch.handle_deadline(HEDGE_S + 0.4)

    assert asks(first) == [(B, 0, 1)]
    assert asks(second) == []


def test_the_loser_of_a_hedge_is_withdrawn() -> None:
    fetch = fetch_of(1)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    meet(fetch, A, 1)
    (slow,) = fetch.handle(core.HashesKnown(1), 0.0)
    fetch.handle(core.NeighbourUp(B, Distance.DC, False), 0.0)
    fetch.handle(core.Offered(B, 1), 0.0)
    (hedge,) = fetch.handle_deadline(HEDGE_S + 0.1)
    assert isinstance(slow, core.Ask)
    assert isinstance(hedge, core.Ask)

    orders = fetch.handle(core.Arrived(B, hedge.request_id, 0, good=True), 0.7)

    assert orders == [core.Withdraw(A, slow.request_id)]


def test_starvation_escapes_to_a_proxy_that_offered_nothing_twice_as_much_each_time() -> None:
    fetch = fetch_of(64)
    fetch.handle(core.NeighbourUp(PROXY, Distance.DC, True), 0.0)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)

    asked, now_s = [], 0.0
    for _ in range(5):
        now_s += 2 * STARVE_S + 0.01
        (ask,) = [o for o in fetch.handle_deadline(now_s) if isinstance(o, core.Ask)]
        asked.append(ask.count)
        for chunk in range(ask.first, ask.first + ask.count):
            fetch.handle(core.Arrived(PROXY, ask.request_id, chunk, good=True), now_s)

    assert asked == [1, 2, 4, 8, 8]
    assert fetch.counters.escapes == 5


def test_an_escape_is_small_again_after_something_came_of_itself() -> None:
    fetch = fetch_of(64)
    fetch.handle(core.NeighbourUp(PROXY, Distance.DC, True), 0.0)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    for now_s, count in ((1.0, 1), (2.0, 2)):
        (ask,) = [o for o in fetch.handle_deadline(now_s) if isinstance(o, core.Ask)]
        assert ask.count == count
        for chunk in range(ask.first, ask.first + ask.count):
            fetch.handle(core.Arrived(PROXY, ask.request_id, chunk, good=True), now_s)

    (promised,) = fetch.handle(core.Offered(PROXY, 1 << 63), 2.0)
    assert isinstance(promised, core.Ask)
    fetch.handle(core.Arrived(PROXY, promised.request_id, 63, good=True), 2.1)

    assert [count for _, _, count in asks(fetch.handle_deadline(3.0))] == [1]


def test_no_escape_from_a_proxy_that_is_busy_with_other_blobs_for_this_host() -> None:
    fetch, flows = fetch_of(8), known(FAST)
    flows.urgent.asked(CHUNK, 0.0)
    fetch.handle(core.NeighbourUp(PROXY, Distance.DC, True, flows), 0.0)
    fetch.handle(core.HashesKnown((1 << 8) - 1), 0.0)

    assert asks(fetch.handle_deadline(2 * STARVE_S + 0.01)) == []

    flows.urgent.came(CHUNK, 0.7)

    assert asks(fetch.handle_deadline(4 * STARVE_S + 0.01)) == [(PROXY, 0, 1)]


def test_without_any_source_the_tracker_is_asked_but_not_every_tick() -> None:
    fetch = fetch_of(8)
    fetch.handle(core.HashesKnown(1), 0.0)

    first = fetch.handle_deadline(1.0)
    second = fetch.handle_deadline(1.25)

    assert first == [core.LookFurther()]
    assert second == []


def test_a_busy_answer_comes_back_and_a_gone_one_does_not() -> None:
    fetch = fetch_of(1)
    meet(fetch, A, 1)
    (ask,) = fetch.handle(core.HashesKnown(1), 0.0)
    assert isinstance(ask, core.Ask)

    gone = fetch.handle(core.Refused(A, ask.request_id, gone=True), 0.1)

    assert asks(gone) == []
    assert fetch.in_flight == 0


def test_what_a_reader_waits_for_and_nobody_offers_is_asked_of_a_proxy() -> None:
    """Its first receiver passes it on to those whom it knows; without a tracker that is nobody."""
    fetch = fetch_of(64)
    fetch.handle(core.ReaderMoved(7, 0), 0.0)
    meet(fetch, PROXY, bits(4, 5, 6, 7), proxy=True)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)

    early = fetch.handle_deadline(UNOFFERED_S)
    late = fetch.handle_deadline(UNOFFERED_S + 0.01)

    assert asks(early) == []
    assert asks(late) == [(PROXY, 0, 1)]


def test_a_reader_that_just_arrived_waits_for_offers() -> None:
    fetch = fetch_of(64)
    fetch.handle(core.ReaderMoved(7, 0), 0.0)
    meet(fetch, PROXY, bits(4, 5, 6, 7), proxy=True)
    fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)
    fetch.handle(core.ReaderMoved(7, 1), UNOFFERED_S)

    assert asks(fetch.handle_deadline(UNOFFERED_S + 0.01)) == []


def test_a_copying_proxy_asks_in_order() -> None:
    fetch = fetch_of(64, sequential=True)
    meet(fetch, PROXY, (1 << 64) - 1, proxy=True)

    orders = fetch.handle(core.HashesKnown((1 << 64) - 1), 0.0)

    assert asks(orders) == [(PROXY, 0, 4), (PROXY, 4, 4)]


@given(
    seed=st.integers(0, 1 << 32),
    chunks=st.integers(1, 80),
    silent=st.integers(0, 3),
    lying=st.integers(0, 3),
)
@pytest.mark.timeout(120)
def test_every_blob_completes_while_one_honest_source_remains(
    seed: int, chunks: int, silent: int, lying: int
) -> None:
    """Silent and lying neighbours cost time, never the blob; no chunk is stored twice."""
    fetch = fetch_of(chunks, seed)
    full = (1 << chunks) - 1
    hosts = ["honest"] + [f"silent{i}" for i in range(silent)] + [f"lying{i}" for i in range(lying)]
    queue: list[tuple[float, int, core.Event]] = []
    order_no = itertools.count()

    def carry_out(orders: list[core.Order], now_s: float) -> None:
        for order in orders:
            if not isinstance(order, core.Ask) or order.host.startswith("silent"):
                continue
            for i in range(order.count):
                good = order.host == "honest"
                event = core.Arrived(order.host, order.request_id, order.first + i, good)
                heapq.heappush(queue, (now_s + 0.01 * (i + 1), next(order_no), event))

    carry_out(fetch.handle(core.HashesKnown(full), 0.0), 0.0)
    carry_out(fetch.handle(core.ReaderMoved(1, 0), 0.0), 0.0)
    for host in hosts:
        carry_out(fetch.handle(core.NeighbourUp(HostId(host), Distance.DC, False), 0.0), 0.0)
        carry_out(fetch.handle(core.Offered(HostId(host), full), 0.0), 0.0)
    now_s = 0.0
    while not fetch.complete:
        deadline_s = fetch.next_deadline_s()
        assert deadline_s is not None
        if queue and queue[0][0] <= deadline_s:
            now_s, _, event = heapq.heappop(queue)
            carry_out(fetch.handle(event, now_s), now_s)
        else:
            now_s = deadline_s
            carry_out(fetch.handle_deadline(now_s), now_s)
        assert now_s < 60 + chunks, "stuck"


def test_what_a_neighbour_was_asked_for_is_taken_back_when_it_is_parted_from() -> None:
    fetch = fetch_of(4)
    meet(fetch, A, 0b1111)
    (ask,) = fetch.handle(core.HashesKnown(0b1111), 0.0)
    assert isinstance(ask, core.Ask)

    assert fetch.handle(core.Parted(A), 0.1) == [core.Withdraw(A, ask.request_id)]
    assert fetch.in_flight == 0
    assert fetch.handle(core.Offered(A, 0b1111), 0.2) == []


def test_a_hedged_chunk_whose_first_source_goes_stays_asked_of_the_second() -> None:
    fetch = fetch_of(8)
    meet(fetch, A, bits(0))
    meet(fetch, B, bits(0))
    meet(fetch, PROXY, 0, proxy=True)
    fetch.handle(core.ReaderMoved(1, 0), 0.0)
    first = asks(fetch.handle(core.HashesKnown(bits(0)), 0.0))
    (hedge,) = asks(fetch.handle_deadline(HEDGE_S + 0.1))
    assert {first[0][0], hedge[0]} == {A, B}

    orders = fetch.handle(core.NeighbourDown(first[0][0]), HEDGE_S + 0.2)

    assert asks(orders) == [], "it is on its way from the other one"
    assert fetch.in_flight == 1
    fetch.validate()
