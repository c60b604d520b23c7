"""Rates of neighbours: measured while something is asked of them, never believed for long."""

from __future__ import annotations

import math

import pytest

from p2pdist.swarm.core.flow import Flow, Flows

CHUNK = 256 * 1024


def bring(flow: Flow, chunks: int, rate: float, now_s: float, heard: int = 0) -> float:
    """Ask for chunks one after the other, each of which comes at `rate`; return the time then."""
    for n in range(1, chunks + 1):
        flow.asked(CHUNK, now_s)
        now_s += CHUNK / rate
        flow.heard(heard + n * CHUNK, now_s)
        flow.came(CHUNK, now_s)
    return now_s


def test_a_neighbour_that_brought_nothing_has_no_rate() -> None:
    flow = Flow()
    flow.asked(CHUNK, 0.0)

    assert not flow.rated
    assert flow.rate(1.0) is None


def test_until_it_brought_something_it_is_expected_to_take_as_long_again() -> None:
    flow = Flow()
    assert flow.eta_s(CHUNK, 0.0) == 0.0
    flow.asked(CHUNK, 0.0)

    assert flow.eta_s(CHUNK, 0.4) == pytest.approx(0.4)


@pytest.mark.parametrize("rate", [250e3, 12.5e6, 1.25e9])
def test_the_first_chunk_gives_a_rate(rate: float) -> None:
    flow = Flow()
    bring(flow, 1, rate, 0.0)

    assert flow.rate(10.0) == pytest.approx(rate)


def test_the_rate_follows_within_a_second() -> None:
    flow = Flow()
    now_s = bring(flow, 40, 12.5e6, 0.0)
    now_s = bring(flow, 4, 1e6, now_s, heard=40 * CHUNK)

    assert flow.rate(now_s) == pytest.approx(1e6, rel=0.5)


def test_a_first_burst_is_a_guess_that_the_next_sample_mends() -> None:
    """Two chunks at once through a token bucket, then 2 Mbit/s."""
    flow = Flow()
    now_s = bring(flow, 2, 20e6, 0.0)
    assert flow.ahead_bytes(0.1, now_s) < CHUNK
    flow.asked(8 * CHUNK, now_s)

    flow.heard(2 * CHUNK + 25_000, now_s + 0.1)

    assert flow.rate(now_s + 0.1) == pytest.approx(4e6, rel=0.2)
    assert flow.ahead_bytes(0.1, now_s + 0.1) < CHUNK


def test_what_was_seen_for_a_while_may_be_asked_for_ahead() -> None:
    flow = Flow()
    now_s = bring(flow, 40, 12.5e6, 0.0)

    assert flow.ahead_bytes(0.1, now_s) == pytest.approx(1.25e6, rel=0.1)


def test_idle_time_costs_no_rate() -> None:
    flow = Flow()
    now_s = bring(flow, 10, 12.5e6, 0.0)
    bring(flow, 10, 12.5e6, now_s + 60.0, heard=10 * CHUNK)

    assert flow.rate(now_s + 61.0) == pytest.approx(12.5e6, rel=0.01)


def test_a_source_that_falls_silent_is_not_as_fast_as_it_was() -> None:
    flow = Flow()
    now_s = bring(flow, 10, 12.5e6, 0.0)
    flow.asked(CHUNK, now_s)

    rates = [flow.rate(now_s + silent_s) or math.inf for silent_s in (0.05, 0.2, 1.0)]
    assert rates[0] > rates[1] > rates[2]
    assert flow.eta_s(0, now_s + 1.0) > 1.0


def test_what_it_owes_counts_parts_of_a_chunk_and_what_was_taken_back() -> None:
    flow = Flow()
    flow.asked(3 * CHUNK, 0.0)
    flow.heard(CHUNK, 0.1)
    flow.came(CHUNK, 0.1)
    flow.heard(CHUNK + CHUNK // 2, 0.15)
    assert flow.owed_bytes == 3 * CHUNK // 2

    flow.taken_back(2 * CHUNK)
    assert flow.owed_bytes == 0
    flow.heard(2 * CHUNK, 0.2)  # what still came of it
    flow.asked(CHUNK, 0.3)
    assert flow.owed_bytes == CHUNK


def test_a_trickle_is_no_progress() -> None:
    flow = Flow()
    flow.asked(CHUNK, 1.0)
    for n in range(1, 100):
        flow.heard(n, 1.0 + n / 10)

    assert flow.progress_s == 1.0


def test_bulk_that_is_held_back_makes_no_neighbour_slow_for_what_is_urgent() -> None:
    flows = Flows()
    now_s = bring(flows.urgent, 4, 12.5e6, 0.0)
    flows.heard(4 * CHUNK, now_s)
    flows.bulk.asked(CHUNK, now_s)
    flows.heard(4 * CHUNK, now_s + 5.0)

    assert flows.urgent.rate(now_s + 5.0) == pytest.approx(12.5e6)
    assert flows.bulk.rate(now_s + 5.0) is None
