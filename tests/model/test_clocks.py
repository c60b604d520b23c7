"""Skew against other hosts, with the error of its measurement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.clocks import (
    CLOCK_TOLERANCE_S,
    PARTIES_MAX,
    READING_KEPT_S,
    SKEW_OVER_S,
    SKEW_TOLERATED_S,
    ClockBook,
    Skew,
    sober_unix_s,
)

UNIX_S = 1_800_000_000.0
DAY_S = 86_400.0


@given(
    ahead_s=st.floats(-1e6, 1e6),
    there_s=st.floats(0, 5),
    back_s=st.floats(0, 5),
    later=st.floats(0, 500),
)
def test_the_truth_is_within_the_error(
    ahead_s: float, there_s: float, back_s: float, later: float
) -> None:
    book, asked_s = ClockBook(), 100.0
    told_ms = round((UNIX_S + there_s + ahead_s) * 1000)
    book.heard("proxy", "p", told_ms, asked_s=asked_s, answered_s=asked_s + there_s + back_s)

    passed_s = there_s + back_s + later
    (skew,) = book.skews(UNIX_S + passed_s, asked_s + passed_s)
    assert abs(skew.ahead_s - ahead_s) <= skew.error_s + 0.001


def test_tolerances_leave_time_before_anything_is_refused() -> None:
    assert SKEW_OVER_S < SKEW_TOLERATED_S < CLOCK_TOLERANCE_S / 2


def test_a_clock_of_ours_that_is_set_is_seen_without_asking_again() -> None:
    book = ClockBook()
    book.heard("tracker", "t", round(UNIX_S * 1000), asked_s=10.0, answered_s=10.0)

    (wrong,) = book.skews(UNIX_S - 120 + 5, 15.0)
    (right,) = book.skews(UNIX_S + 5, 15.0)

    assert wrong.beyond(SKEW_TOLERATED_S)
    assert str(wrong) == "this clock is 120 s behind t (±0.0 s)"
    assert not right.beyond(1.0)


def test_a_slow_answer_proves_less() -> None:
    book = ClockBook()
    book.heard("tracker", "t", round((UNIX_S + 15 + 40) * 1000), asked_s=0.0, answered_s=30.0)

    (skew,) = book.skews(UNIX_S + 15, 15.0)

    assert skew.ahead_s == pytest.approx(40)
    assert skew.beyond(SKEW_OVER_S)
    assert not skew.beyond(SKEW_TOLERATED_S)


def test_who_tells_no_time_and_who_was_not_heard_of_lately_is_not_compared() -> None:
    book = ClockBook()
    book.heard("tracker", "t", 1, asked_s=0.0, answered_s=0.0)
    assert book.skews(UNIX_S, READING_KEPT_S) == []
    book.heard("tracker", "t", 0, asked_s=0.0, answered_s=0.0)
    assert book.skews(UNIX_S, 0.0) == []


def test_the_book_is_bounded() -> None:
    book = ClockBook()
    for number in range(2 * PARTIES_MAX):
        book.heard("proxy", str(number), 1, asked_s=0.0, answered_s=0.0)

    assert len(book.skews(UNIX_S, 0.0)) == PARTIES_MAX


def skew(ahead_s: float, error_s: float = 0.1) -> Skew:
    return Skew("tracker", "t", ahead_s, error_s)


@pytest.mark.parametrize(
    ("others", "set_back_s"),
    [
        ([], 0.0),
        ([-DAY_S], DAY_S),
        ([-DAY_S, -3 * DAY_S], DAY_S),  # the one that is least behind
        ([-DAY_S, 0.2], 0.0),  # one agrees with ours
        ([-DAY_S, DAY_S], 0.0),
        ([DAY_S], 0.0),  # ours is behind: nothing is set forward
        ([-SKEW_TOLERATED_S], 0.0),
    ],
)
def test_a_clock_is_set_back_only_where_all_others_are_behind(
    others: list[float], set_back_s: float
) -> None:
    assert sober_unix_s(UNIX_S, map(skew, others)) == UNIX_S - set_back_s


def test_a_reading_that_took_too_long_sets_nothing_back() -> None:
    assert sober_unix_s(UNIX_S, [skew(-60.0, error_s=40.0)]) == UNIX_S
