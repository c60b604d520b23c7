from __future__ import annotations

from random import Random

from p2pdist.model.backoff import Backoff


def test_delays_double_up_to_the_cap_with_jitter_below() -> None:
    backoff = Backoff(first_s=1.0, max_s=8.0, rng=Random(1))

    delays = [backoff.next_delay_s() for _ in range(8)]

    for delay, ceiling in zip(delays, [1, 2, 4, 8, 8, 8, 8, 8], strict=True):
        assert ceiling / 2 <= delay <= ceiling


def test_a_reset_starts_over() -> None:
    backoff = Backoff(first_s=1.0, max_s=8.0, rng=Random(1))
    for _ in range(5):
        backoff.next_delay_s()
    backoff.reset()

    assert backoff.next_delay_s() <= 1.0
