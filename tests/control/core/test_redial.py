from __future__ import annotations

from random import Random

from p2pdist.control.core.redial import REFUSED_JITTER, RETRY_AFTER_MAX_S, RETRY_MAX_S, Redial

ONE, TWO = "tcp://one:1", "tcp://two:1"


def test_silence_is_met_with_longer_delays_and_the_others_in_turn() -> None:
    redial = Redial([ONE, TWO], Random(1))
    asked, delays = [], []
    for _ in range(8):
        asked.append(redial.url)
        redial.failed()
        delays.append(redial.delay_s(0.0))

    assert asked == [ONE, TWO] * 4
    assert delays[0] <= 0.2
    assert RETRY_MAX_S / 2 <= delays[-1] <= RETRY_MAX_S


def test_a_named_delay_is_kept_with_a_spread_that_grows_with_it() -> None:
    for after_s in (2.0, 40.0):
        delays = []
        for seed in range(100):
            redial = Redial([ONE], Random(seed))
            redial.refused(after_s, 100.0)
            delays.append(redial.delay_s(100.0))

        assert min(delays) >= after_s
        assert max(delays) <= after_s * (1 + REFUSED_JITTER)
        assert max(delays) - min(delays) > 0.8 * REFUSED_JITTER * after_s


def test_another_tracker_is_asked_while_one_is_to_be_left_alone() -> None:
    redial = Redial([ONE, TWO], Random(1))
    redial.refused(30.0, 0.0)

    assert redial.delay_s(0.0) < 1.0
    assert redial.url == TWO
    redial.failed()
    assert redial.delay_s(1.0) < 1.0
    assert redial.url == TWO


def test_no_tracker_sends_a_host_away_for_ever() -> None:
    redial = Redial([ONE], Random(1))
    redial.refused(1e9, 0.0)

    assert redial.delay_s(0.0) <= RETRY_AFTER_MAX_S * (1 + REFUSED_JITTER)


def test_a_connection_that_broke_at_once_does_not_shorten_the_delay() -> None:
    redial = Redial([ONE], Random(1))
    for _ in range(8):
        redial.lost(0.1)
        delay_s = redial.delay_s(0.0)

    assert delay_s >= RETRY_MAX_S / 2
    redial.lost(60.0)
    assert redial.delay_s(0.0) <= 0.2
