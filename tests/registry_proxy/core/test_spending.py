from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.registry_proxy.core.spending import BYTES_S, Spending
from p2pdist.settings import Settings


@pytest.fixture
def spending() -> Spending:
    """60 questions at once and one a second; 400 bytes at once and one a second."""
    return Spending(questions_per_min=60, bytes_per_s=1)


def asked(spending: Spending, caller: str, count: int, now_s: float) -> int:
    """How many of so many questions are allowed."""
    return sum(not spending.ask(caller, now_s) for _ in range(count))


def test_the_questions_of_a_minute_are_there_at_once_and_then_their_rate(
    spending: Spending,
) -> None:
    assert asked(spending, "a", 100, 0.0) == 60
    assert asked(spending, "a", 100, 10.5) == 11
    assert spending.refused == {"questions": 129, "bytes": 0}


def test_who_is_refused_is_told_when_to_come_back(spending: Spending) -> None:
    spending.begin("a", 1000, 0.0)
    wait_s = spending.begin("a", 1, 0.0)

    assert 600 < wait_s < 601
    assert spending.begin("a", 1, wait_s / 2)
    assert not spending.begin("a", 1, wait_s)


def test_whoever_has_any_bytes_left_may_begin_a_blob_of_any_size(spending: Spending) -> None:
    assert not spending.begin("a", 399, 0.0)
    assert not spending.begin("a", 10_000, 0.0)
    assert spending.begin("a", 0, 0.0) > 9000


def test_what_came_is_owed(spending: Spending) -> None:
    spending.came("a", 500, 0.0)

    assert spending.begin("a", 0, 0.0) > 99
    assert not spending.begin("a", 0, 101.0)


def test_what_was_taken_and_did_not_come_is_given_back(spending: Spending) -> None:
    spending.begin("a", 1000, 0.0)
    spending.came("a", -900, 0.0)

    assert not spending.begin("a", 300, 0.0)
    assert spending.begin("a", 0, 0.0)


def test_one_caller_spends_nothing_of_another_one(spending: Spending) -> None:
    asked(spending, "a", 100, 0.0)
    spending.begin("a", 10_000, 0.0)

    assert asked(spending, "b", 100, 0.0) == 60
    assert not spending.begin("b", 1, 0.0)


def test_questions_and_bytes_are_apart(spending: Spending) -> None:
    asked(spending, "a", 100, 0.0)

    assert not spending.begin("a", 10_000, 0.0)


def test_a_rate_of_0_is_no_limit() -> None:
    spending = Spending(questions_per_min=0, bytes_per_s=0)
    spending.came("a", 1e15, 0.0)

    assert asked(spending, "a", 10_000, 0.0) == 10_000
    assert not spending.begin("a", 1e15, 0.0)
    assert not len(spending)


def test_a_release_in_a_flash_crowd_is_within_the_defaults() -> None:
    """One host asks first for all of it: 50 images of 100 layers, 50 GB, and a model of 140 GB."""
    own = Settings().proxy
    spending = Spending(questions_per_min=own.caller_questions, bytes_per_s=own.caller_rate)

    assert asked(spending, "a", 50 * 105, 0.0) == 50 * 105
    assert not any(spending.begin("a", 10_000_000, 0.0) for _ in range(50 * 100))
    assert not any(spending.begin("a", 5_000_000_000, 0.0) for _ in range(28))


@given(
    st.lists(
        st.tuples(st.floats(0, 50), st.sampled_from("abcdef"), st.integers(0, 300), st.booleans()),
        max_size=200,
    )
)
def test_no_caller_has_more_than_its_share_and_few_are_remembered(
    steps: list[tuple[float, str, int, bool]],
) -> None:
    spending, now_s = Spending(questions_per_min=60, bytes_per_s=1), 0.0
    few = Spending(questions_per_min=60, bytes_per_s=1, callers_max=2)
    questions, nbytes = dict.fromkeys("abcdef", 0), dict.fromkeys("abcdef", 0)
    for wait_s, caller, amount, asks in steps:
        now_s += wait_s
        few.ask(caller, now_s)
        few.begin(caller, amount, now_s)
        assert len(few) <= 4
        if asks:
            questions[caller] += not spending.ask(caller, now_s)
            assert questions[caller] <= 60 + now_s + 1
        else:
            before = nbytes[caller]
            if not spending.begin(caller, amount, now_s):
                nbytes[caller] += amount
                assert before <= BYTES_S + now_s + 1
