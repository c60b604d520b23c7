"""Bulk on a simulated wire: every second within the rate, and room for whoever waits."""

from __future__ import annotations

import heapq
import itertools
from random import Random

import pytest

from p2pdist.model.bucket import TokenBucket
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Distance
from p2pdist.swarm.core import fetch as core
from p2pdist.swarm.core.bulk import (
    LINGER_S,
    TRICKLE_BYTES_PER_S,
    BulkGate,
    BulkPace,
    bulk_bucket,
)

A, B = HostId("a" * 32), HostId("b" * 32)
CHUNK = 256 * 1024
MB = 1_000_000


class Wire:
    """Carries out the orders of some fetches: each chunk comes `delay()` after it was asked for."""

    def __init__(self, pace: BulkPace, *, blobs: int, chunks: int, seed: int = 1) -> None:
        self.now_s = 0.0
        self.came: list[tuple[float, int]] = []
        self.asked: list[tuple[float, int, core.Ask]] = []
        self.withdrawn: list[core.Withdraw] = []
        self._rng = Random(seed)
        self._order = itertools.count()
        self._wire: list[tuple[float, int, int, core.Ask, int]] = []
        ids = itertools.count(1)
        self.fetches = [
            core.BlobFetch(
                Geometry(chunks * CHUNK, CHUNK),
                rng=self._rng,
                new_request_id=lambda: RequestId(next(ids)),
                counters=core.FetchCounters(),
            )
            for _ in range(blobs)
        ]
        for blob, fetch in enumerate(self.fetches):
            fetch.handle(core.PaceSet(pace), 0.0)
            for host in (A, B):
                fetch.handle(core.NeighbourUp(host, Distance.DC, False), 0.0)
                fetch.handle(core.Offered(host, (1 << chunks) - 1), 0.0)
            self.tell(blob, core.HashesKnown((1 << chunks) - 1))

    def delay_s(self) -> float:
        """A few milliseconds, and now and then a source that is busy."""
        late = self._rng.random() < 0.02
        return self._rng.uniform(0.08, 0.12) if late else self._rng.uniform(0.002, 0.02)

    def tell(self, blob: int, event: core.Event) -> None:
        self._carry_out(blob, self.fetches[blob].handle(event, self.now_s))

    def _carry_out(self, blob: int, orders: list[core.Order]) -> None:
        for order in orders:
            if isinstance(order, core.Withdraw):
                self.withdrawn.append(order)
            if not isinstance(order, core.Ask):
                continue
            self.asked.append((self.now_s, blob, order))
            at_s = self.now_s
            for chunk in range(order.first, order.first + order.count):
                at_s += self.delay_s()
                heapq.heappush(self._wire, (at_s, next(self._order), blob, order, chunk))

    def run(self, until_s: float) -> None:
        while True:
            due = [
                (deadline_s, blob)
                for blob, fetch in enumerate(self.fetches)
                if (deadline_s := fetch.next_deadline_s()) is not None
            ]
            deadline_s, blob = min(due, default=(float("inf"), 0))
            arrival_s = self._wire[0][0] if self._wire else float("inf")
            step_s = min(deadline_s, arrival_s)
            if step_s > until_s:
                self.now_s = until_s
                return
            self.now_s = max(self.now_s, step_s)
            if arrival_s <= deadline_s:
                _, _, blob, ask, chunk = heapq.heappop(self._wire)
                if any(w.request_id == ask.request_id for w in self.withdrawn):
                    continue
                self.came.append((self.now_s, CHUNK))
                self.tell(blob, core.Arrived(ask.host, ask.request_id, chunk, good=True))
            else:
                # A timer of a busy loop is a little late.
                self.now_s += self._rng.uniform(0.0, 0.003)
                self._carry_out(blob, self.fetches[blob].handle_deadline(self.now_s))

    def peak(self) -> int:
        """The most bytes that came within any second."""
        best, window, first = 0, 0, 0
        for at_s, nbytes in self.came:
            window += nbytes
            while self.came[first][0] <= at_s - 1.0:
                window -= self.came[first][1]
                first += 1
            best = max(best, window)
        return best

    def came_since(self, since_s: float) -> int:
        return sum(nbytes for at_s, nbytes in self.came if at_s > since_s)


@pytest.mark.parametrize("rate", [10 * MB, 20 * MB, 100 * MB])
@pytest.mark.parametrize("blobs", [1, 5])
def test_every_second_and_the_mean_keep_the_rate(rate: int, blobs: int) -> None:
    pace = BulkPace(BulkGate(), bulk_bucket(rate, 0.0))
    wire = Wire(pace, blobs=blobs, chunks=4096)

    wire.run(8.0)

    assert wire.peak() <= 1.05 * rate
    assert wire.came_since(0.0) >= 0.93 * rate * 8.0


def test_a_rate_below_a_few_chunks_a_second_is_kept_on_average() -> None:
    pace = BulkPace(BulkGate(), bulk_bucket(300_000, 0.0))
    wire = Wire(pace, blobs=2, chunks=512)

    wire.run(60.0)

    assert 0.9 * 300_000 * 60 <= wire.came_since(0.0) <= 1.05 * 300_000 * 60


def test_another_rate_holds_from_then_on() -> None:
    bucket = bulk_bucket(20 * MB, 0.0)
    wire = Wire(BulkPace(BulkGate(), bucket), blobs=2, chunks=4096)
    wire.run(2.0)

    bucket.set_rate(10 * MB, wire.now_s)
    wire.run(3.0)
    wire.came.clear()
    wire.run(7.0)

    assert wire.peak() <= 1.05 * 10 * MB
    assert wire.came_since(3.0) >= 0.93 * 10 * MB * 4


def test_while_a_reader_waits_bulk_is_withdrawn_and_trickles() -> None:
    gate = BulkGate()
    wire = Wire(BulkPace(gate, None), blobs=2, chunks=4096)
    wire.run(0.5)
    outstanding = sum(fetch.in_flight for fetch in wire.fetches)
    assert outstanding >= 4

    assert gate.wait_began(wire.now_s)
    for blob in range(2):
        wire.tell(blob, core.GateShut())
    assert sum(fetch.in_flight for fetch in wire.fetches) <= 1
    wire.run(3.5)

    assert wire.came_since(0.5) <= 3.0 * TRICKLE_BYTES_PER_S + 2 * CHUNK
    assert wire.came_since(0.5) >= 2.0 * TRICKLE_BYTES_PER_S, "no source takes us for stalled"
    assert 2.0 <= gate.paused_s <= 3.1


def test_bulk_goes_on_soon_after_the_last_wait() -> None:
    gate = BulkGate()
    wire = Wire(BulkPace(gate, None), blobs=1, chunks=4096)
    gate.wait_began(0.0)
    wire.tell(0, core.GateShut())
    wire.run(1.0)
    gate.wait_ended(1.0)

    wire.run(1.0 + LINGER_S)
    before = wire.came_since(1.0)
    wire.run(1.0 + 3 * LINGER_S)

    assert before <= CHUNK
    assert wire.came_since(1.0) > 2_000_000


def test_a_blob_that_is_opened_is_fetched_at_once_and_as_urgent() -> None:
    bucket = TokenBucket(1 * MB, 1, 0.0)
    wire = Wire(BulkPace(BulkGate(), bucket), blobs=1, chunks=64)
    wire.run(0.5)
    assert all(ask.bulk for _, _, ask in wire.asked)

    wire.tell(0, core.PaceSet(None))
    wire.tell(0, core.ReaderMoved(1, 0))
    wire.run(1.5)

    assert wire.fetches[0].complete
    assert not any(ask.bulk for at_s, _, ask in wire.asked if at_s >= 0.5)


def test_a_blob_that_its_readers_left_is_bulk_again() -> None:
    pace = BulkPace(BulkGate(), bulk_bucket(2 * MB, 0.0))
    wire = Wire(pace, blobs=1, chunks=4096)
    wire.tell(0, core.PaceSet(None))
    wire.run(0.5)

    wire.tell(0, core.PaceSet(pace))
    wire.run(1.0)
    wire.came.clear()
    wire.run(4.0)

    assert wire.peak() <= 2 * MB + CHUNK


def test_what_was_refused_gives_its_share_back() -> None:
    """Outstanding bytes that nobody will send must not shut the budget for ever."""
    pace = BulkPace(BulkGate(), bulk_bucket(1 * MB, 0.0))
    fetch = Wire(pace, blobs=1, chunks=64).fetches[0]
    now_s, asked = 0.0, 0
    for _ in range(400):
        now_s += 0.05
        orders = fetch.handle_deadline(now_s)
        refused = [o for o in orders if isinstance(o, core.Ask)]
        asked += len(refused)
        for ask in refused:
            fetch.handle(core.Refused(ask.host, ask.request_id, gone=False), now_s)

    assert asked > 20
