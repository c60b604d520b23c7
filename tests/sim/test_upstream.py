"""What a simulated registry makes of requests: bodies at a rate, and what goes wrong with them."""

from __future__ import annotations

from random import Random

import pytest

from bench.sim.clock import Clock
from bench.sim.scenario import UpstreamFaults
from bench.sim.upstream import READ_IDLE_S, STATUSES, Upstream
from bench.sim.wire import Card
from p2pdist.errors import UpstreamError

MB = 1_000_000
SIZE = 10 * MB


def registry(**faults: float) -> Upstream:
    """At 1 MB/s, with faults in the first minute."""
    return Upstream(MB, 0.01, UpstreamFaults(end_s=60.0, **faults), Random(1))  # type: ignore[arg-type]


def card() -> Card:
    return Card(Clock(), 100 * MB, 100 * MB)


def test_what_has_no_fault_comes_at_the_rate_that_all_share() -> None:
    upstream = registry()
    one, other = upstream.open(SIZE, 0, 0.0), upstream.open(SIZE, 0, 0.0)

    assert one.send(MB, card(), 0.0)[0] == pytest.approx(1.0, abs=0.02)
    assert other.send(MB, card(), 0.0)[0] == pytest.approx(2.0, abs=0.02)
    assert (one.error, other.error) == (None, None)
    assert (upstream.lane.bytes_total, upstream.faulty) == (2 * MB, 0)


def test_an_error_comes_in_place_of_a_body_until_the_faults_end() -> None:
    upstream = registry(errors=1.0)
    told = set()
    for _ in range(50):
        with pytest.raises(UpstreamError) as raised:
            upstream.open(SIZE, 0, 59.0)
        told.add(raised.value.status)

    assert told == set(STATUSES)
    assert upstream.faulty == 50
    assert upstream.open(SIZE, 0, 60.0).error is None


@pytest.mark.parametrize(("fault", "silence_s"), [("cut", 0.0), ("stalled", READ_IDLE_S)])
def test_a_body_ends_before_it_is_whole(fault: str, silence_s: float) -> None:
    body = registry(**{fault: 1.0}).open(SIZE, 4 * MB, 0.0)
    error, sent, come_s = None, 0, 0.0
    while error is None:
        before_s = come_s
        come_s, error = body.send(MB // 10, card(), come_s)
        sent += MB // 10 if error is None else 0
        assert sent < 6 * MB

    assert error is body.error
    assert silence_s <= come_s - before_s <= silence_s + 0.11


def test_a_slow_one_takes_ten_times_as_long_and_holds_up_no_other() -> None:
    upstream = registry(slow=1.0)
    slow = upstream.open(SIZE, 0, 0.0)
    assert slow.send(MB, card(), 0.0)[0] == pytest.approx(10.0, abs=0.02)

    assert upstream.open(SIZE, 0, 60.0).send(MB, card(), 0.0)[0] == pytest.approx(2.0, abs=0.02)


def test_without_ranges_what_was_not_asked_for_comes_first_and_once() -> None:
    upstream = registry(no_ranges=True)
    body = upstream.open(SIZE, 4 * MB, 0.0)

    assert body.send(MB, card(), 0.0)[0] == pytest.approx(5.0, abs=0.06)
    assert body.send(MB, card(), 5.0)[0] == pytest.approx(6.0, abs=0.08)
    assert upstream.lane.bytes_total == 6 * MB
