"""Answers that are kept for a while."""

from __future__ import annotations

from p2pdist.model.last_good import LastGood


def test_an_answer_is_recalled_until_its_time_is_up() -> None:
    good: LastGood[str, str] = LastGood(600.0)
    good.answered("name", "address", 10.0)

    assert good.recall("name", 610.0) == ("address", 600.0)
    assert good.recall("name", 610.1) is None
    assert good.recall("other", 10.0) is None


def test_a_newer_answer_starts_its_time_anew() -> None:
    good: LastGood[str, str] = LastGood(600.0)
    good.answered("name", "old", 0.0)
    good.answered("name", "new", 500.0)

    assert good.recall("name", 1000.0) == ("new", 500.0)


def test_the_answers_that_were_given_longest_ago_go_first() -> None:
    good: LastGood[int, int] = LastGood(600.0, answers_max=2)
    for number in (1, 2, 1, 3):
        good.answered(number, number, 0.0)

    assert [good.recall(number, 0.0) is not None for number in (1, 2, 3)] == [True, False, True]
