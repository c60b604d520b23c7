"""Readers that need a part of a blob now, on a simulated wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import RequestId
from p2pdist.model.members import Distance
from p2pdist.swarm.core import fetch as core
from p2pdist.swarm.core.fetch import READER_TICK_S, REFUSED_S
from p2pdist.swarm.core.flow import Flows
from tests.swarm.core.test_fetch import FAST, PROXY, A, B, asks, bits, fetch_of, meet

CHUNKS = 64
ALL = (1 << CHUNKS) - 1


def demanding(*ranges: tuple[int, int], seed: int = 1) -> core.BlobFetch:
    """A fetch of a blob whose hashes are all known, with a demand reader for each range."""
    fetch = fetch_of(CHUNKS, seed)
    fetch.handle(core.WholeWanted(False), 0.0)
    fetch.handle(core.HashesKnown(ALL), 0.0)
    for reader, (first, stop) in enumerate(ranges):
        fetch.handle(core.ReaderMoved(reader, first, stop), 0.0)
    return fetch


def asked(orders: list[core.Order]) -> int:
    """The chunks that are asked for, each of them once."""
    wanted = 0
    for order in orders:
        if isinstance(order, core.Ask):
            run = ((1 << order.count) - 1) << order.first
            assert not wanted & run, "asked for twice"
            wanted |= run
    return wanted


def bring(fetch: core.BlobFetch, orders: list[core.Order], now_s: float) -> list[core.Order]:
    """All that `orders` ask for comes; return what is asked for then."""
    more: list[core.Order] = []
    for order in orders:
        if isinstance(order, core.Ask):
            for chunk in range(order.first, order.first + order.count):
                arrived = core.Arrived(order.host, order.request_id, chunk, good=True)
                more += fetch.handle(arrived, now_s)
    return more


def refuse(
    fetch: core.BlobFetch, orders: list[core.Order], now_s: float, *, gone: bool = False
) -> list[core.Order]:
    more: list[core.Order] = []
    for order in orders:
        if isinstance(order, core.Ask):
            more += fetch.handle(core.Refused(order.host, order.request_id, gone), now_s)
    return more


def test_what_no_demand_reader_needs_is_not_asked_for() -> None:
    fetch = demanding((10, 13))

    orders = meet(fetch, A, ALL)

    assert asked(orders) == bits(10, 11, 12)
    assert asks(bring(fetch, orders, 0.1)) == []
    assert fetch.next_deadline_s() is None, "nothing lacks that anybody needs"


def test_each_of_two_demand_readers_gets_what_it_needs() -> None:
    fetch = demanding((10, 13), (40, 42))

    assert asked(meet(fetch, A, ALL)) == bits(10, 11, 12, 40, 41)


def test_one_demand_reader_leaves_and_the_other_still_waits() -> None:
    fetch = demanding((10, 13), (40, 42))
    fetch.handle(core.ReaderLeft(0), 0.0)

    assert asked(meet(fetch, A, ALL)) == bits(40, 41)


def test_what_lies_behind_a_demand_reader_is_not_wanted_any_more() -> None:
    fetch = demanding((10, 13))
    fetch.handle(core.ReaderMoved(0, 12, 13), 0.0)

    assert asked(meet(fetch, A, ALL)) == bits(12)


def test_an_ordinary_reader_beside_wants_everything_after_what_is_demanded() -> None:
    fetch = demanding((50, 52))
    fetch.handle(core.ReaderMoved(9, 0), 0.0)

    orders = meet(fetch, A, ALL)

    first, *_ = asks(orders)
    assert first == (A, 50, 2)
    assert asked(orders) & bits(0, 1, 2, 3)


def test_what_is_ordered_is_wanted_whole_until_the_order_is_taken_back() -> None:
    fetch = demanding((10, 13))
    fetch.handle(core.WholeWanted(True), 0.0)
    assert asked(meet(fetch, A, ALL)) & ~bits(10, 11, 12)

    fetch = demanding((10, 13))
    fetch.handle(core.WholeWanted(True), 0.0)
    fetch.handle(core.WholeWanted(False), 0.0)
    assert asked(meet(fetch, A, ALL)) == bits(10, 11, 12)


def test_nothing_is_asked_for_when_the_last_demand_reader_has_left() -> None:
    fetch = demanding((10, 13))
    orders = meet(fetch, A, bits(10))
    fetch.handle(core.ReaderLeft(0), 0.1)

    assert asks(bring(fetch, orders, 0.1)) == []
    assert asks(fetch.handle(core.Offered(A, ALL), 0.2)) == []
    assert fetch.next_deadline_s() is None


def test_a_blob_at_rest_neither_starves_nor_looks_for_others() -> None:
    fetch = demanding()
    meet(fetch, PROXY, 0, proxy=True)

    for tenth in range(50):
        orders = fetch.handle_deadline(tenth / 10)
        assert orders == []

    assert fetch.counters == core.FetchCounters()


def test_after_a_rest_no_time_before_it_counts_as_silence() -> None:
    fetch = demanding()
    fetch.handle(core.ReaderMoved(1, 3, 5), 100.0)

    assert fetch.handle_deadline(100.0 + READER_TICK_S) == [], "it looks for others at once"


def test_a_proxy_is_asked_at_once_for_what_it_did_not_offer() -> None:
    fetch = demanding((10, 13))
    fetch.handle(core.NeighbourUp(PROXY, Distance.DC, True, Flows()), 0.0)

    orders = fetch.handle(core.ReaderMoved(0, 10, 13), 0.0)

    assert asks(orders) == [(PROXY, 10, 3)]
    assert fetch.counters.escapes == fetch.counters.hedges == 0


def test_an_ordinary_reader_still_waits_for_a_promise() -> None:
    fetch = fetch_of(CHUNKS)
    fetch.handle(core.HashesKnown(ALL), 0.0)
    fetch.handle(core.ReaderMoved(0, 10), 0.0)
    fetch.handle(core.NeighbourUp(PROXY, Distance.DC, True, Flows()), 0.0)

    assert asks(fetch.handle(core.ReaderMoved(0, 11), 0.0)) == []


def test_peers_that_offer_it_come_before_a_proxy() -> None:
    fetch = demanding((10, 14))
    fetch.take(core.NeighbourUp(PROXY, Distance.DC, True, Flows()), 0.0)
    fetch.take(core.NeighbourUp(A, Distance.DC, False, Flows()), 0.0)
    fetch.take(core.Offered(A, bits(10, 11)), 0.0)

    orders = fetch.plan(0.0)

    # The peer's speed is unknown: it gets one chunk, and the next one is left to it all the same.
    assert asks(orders) == [(A, 10, 1), (PROXY, 12, 2)]


def test_what_only_a_late_peer_offers_is_asked_of_a_proxy() -> None:
    fetch = demanding()
    meet(fetch, A, ALL, rate=100e3)
    meet(fetch, B, 0, rate=FAST)
    fetch.handle(core.NeighbourUp(PROXY, Distance.DC, True, Flows()), 0.0)

    assert asks(fetch.handle(core.ReaderMoved(0, 10, 12), 0.0)) == [(PROXY, 10, 2)]


def test_where_no_proxy_is_there_a_late_peer_brings_it() -> None:
    fetch = demanding()
    meet(fetch, A, ALL, rate=100e3)
    meet(fetch, B, 0, rate=FAST)

    assert asked(fetch.handle(core.ReaderMoved(0, 10, 11), 0.0)) == bits(10)


def test_what_a_proxy_refused_is_asked_of_whoever_offers_it_next() -> None:
    fetch = demanding((10, 12))
    orders = meet(fetch, PROXY, 0, proxy=True)

    assert asks(refuse(fetch, orders, 0.01)) == []
    fetch.handle(core.NeighbourUp(A, Distance.RACK, False, Flows()), 0.02)

    assert asks(fetch.handle(core.Offered(A, bits(10, 11)), 0.02)) == [(A, 10, 1)]


def test_a_refusal_is_remembered_for_a_moment_and_of_these_chunks_only() -> None:
    for gone in (False, True):
        fetch = demanding((10, 12))
        orders = meet(fetch, PROXY, 0, proxy=True)
        refuse(fetch, orders, 0.01, gone=gone)
        assert fetch.next_deadline_s() is not None

        assert asks(fetch.handle(core.ReaderMoved(1, 20, 21), 0.02)) == [(PROXY, 20, 1)]
        assert asks(fetch.handle(core.ReaderMoved(2, 30, 31), 0.01 + REFUSED_S)) == [
            (PROXY, 10, 2),
            (PROXY, 30, 1),
        ]


def test_a_refused_chunk_is_asked_for_again_when_its_time_has_come() -> None:
    fetch = demanding((10, 12))
    orders = meet(fetch, PROXY, 0, proxy=True)
    refuse(fetch, orders, 0.01)

    now_s = 0.0
    for _ in range(10):
        deadline_s = fetch.next_deadline_s()
        assert deadline_s is not None
        now_s = max(now_s, deadline_s)
        if asks(orders := fetch.handle_deadline(now_s)):
            break

    assert asks(orders) == [(PROXY, 10, 2)]
    assert now_s == 0.01 + REFUSED_S


def test_what_is_demanded_goes_before_what_a_proxy_promised() -> None:
    """The proxy has as much to bring for an ordinary reader as it may be asked for."""
    fetch = fetch_of(CHUNKS)
    fetch.handle(core.HashesKnown(ALL), 0.0)
    fetch.handle(core.ReaderMoved(0, 0), 0.0)
    first = meet(fetch, PROXY, (1 << 32) - 1, proxy=True)
    assert asked(first) == (1 << 8) - 1

    orders = fetch.handle(core.ReaderMoved(1, 60, 62), 0.0)

    assert asks(orders) == [(PROXY, 60, 2)]
    assert asks(fetch.handle(core.Offered(PROXY, 0), 0.0)) == []  # no room below none


def test_a_demand_reader_makes_no_reader_hungry() -> None:
    fetch = demanding((10, 60))
    orders = meet(fetch, PROXY, 0, proxy=True)
    refuse(fetch, orders, 0.0)

    said = [order for tenth in range(1, 30) for order in fetch.handle_deadline(tenth / 10)]

    assert not [order for order in said if isinstance(order, core.SayHungry)]


def test_an_end_beyond_what_is_there_hedges_nothing() -> None:
    """All that the range holds is here; the chunk after it is on its way to nobody who waits."""
    fetch = demanding((10, 11))
    bring(fetch, meet(fetch, A, bits(10)), 0.0)
    fetch.handle(core.NeighbourUp(PROXY, Distance.DC, True, Flows()), 0.0)

    for tenth in range(1, 30):
        assert fetch.handle_deadline(tenth / 10) == []


def test_an_answer_to_nobody_changes_nothing() -> None:
    fetch = demanding((10, 11))
    meet(fetch, PROXY, 0, proxy=True)

    assert asks(fetch.handle(core.Refused(PROXY, RequestId(999), gone=True), 0.1)) == []


@dataclass
class Wire:
    """Carries out what a fetch orders, in any order, and checks each order as it comes."""

    fetch: core.BlobFetch
    rng: Random
    now_s: float = 0.0
    out: dict[RequestId, core.Ask] = field(default_factory=dict)
    needed: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of each reader the chunks that it demands: from, and until."""
    here: int = 0

    def hear(self, event: core.Event) -> None:
        self.carry_out(self.fetch.handle(event, self.now_s))

    def carry_out(self, orders: list[core.Order]) -> None:
        for order in orders:
            match order:
                case core.Ask(_, request_id, first, count):
                    run = ((1 << count) - 1) << first
                    assert run & ~self.demanded == 0, "nobody needs it"
                    assert run & self.here == 0, "it is here"
                    self.out[request_id] = order
                case core.Withdraw(_, request_id):
                    del self.out[request_id]
                case _:
                    pass

    def answer(self) -> None:
        """One of those who were asked brings all, or refuses."""
        if not self.out:
            return
        ask = self.out.pop(self.rng.choice(sorted(self.out)))
        if self.rng.random() < 0.3:
            self.hear(core.Refused(ask.host, ask.request_id, gone=self.rng.random() < 0.5))
            return
        for chunk in range(ask.first, ask.first + ask.count):
            self.here |= 1 << chunk
            self.hear(core.Arrived(ask.host, ask.request_id, chunk, good=True))

    def read(self, reader: int) -> None:
        first = self.rng.randrange(CHUNKS)
        self.needed[reader] = first, min(CHUNKS, first + self.rng.randrange(1, 6))
        self.hear(core.ReaderMoved(reader, *self.needed[reader]))

    def leave(self, reader: int) -> None:
        self.needed.pop(reader, None)
        self.hear(core.ReaderLeft(reader))

    def wait(self) -> None:
        deadline_s = self.fetch.next_deadline_s()
        self.now_s += 0.01
        if deadline_s is not None:
            self.now_s = max(self.now_s, deadline_s)
            self.carry_out(self.fetch.handle_deadline(self.now_s))

    @property
    def demanded(self) -> int:
        chunks = 0
        for first, stop in self.needed.values():
            chunks |= bits(*range(first, stop))
        return chunks

    @property
    def lacking(self) -> int:
        return self.demanded & ~self.here


@given(st.integers(0, 1 << 32), st.lists(st.sampled_from("rrlaaaaw"), max_size=60))
def test_whatever_happens_only_what_is_needed_is_asked_for_and_all_of_it_comes(
    seed: int, steps: list[str]
) -> None:
    rng = Random(seed)
    wire = Wire(demanding(seed=seed), rng)
    for host, is_proxy in ((PROXY, True), (A, False), (B, False)):
        wire.hear(core.NeighbourUp(host, Distance.DC, is_proxy, Flows()))
    wire.hear(core.Offered(A, rng.getrandbits(CHUNKS)))
    for step in steps:
        match step:
            case "r":
                wire.read(rng.randrange(3))
            case "l":
                wire.leave(rng.randrange(3))
            case "a":
                wire.answer()
            case _:
                wire.wait()
    for _ in range(1000):
        if not wire.lacking and not wire.out:
            break
        wire.answer()
        wire.wait()

    assert not wire.lacking
    assert wire.fetch.in_flight == 0
    assert wire.fetch.next_deadline_s() is None
