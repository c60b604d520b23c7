"""What a client may have upstream asked for in vain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.registry_proxy.core.misses import SAY_EVERY_S, MissBudget


@pytest.fixture
def budget() -> MissBudget:
    return MissBudget(rate_per_s=2.0, burst=4.0)


def asked(budget: MissBudget, client: str, count: int, now_s: float) -> int:
    """How many of so many questions are allowed."""
    return sum(budget.ask(client, now_s) for _ in range(count))


def test_a_burst_is_allowed_and_then_the_rate(budget: MissBudget) -> None:
    assert asked(budget, "a", 100, 0.0) == 4
    assert asked(budget, "a", 100, 1.0) == 2
    assert budget.refused_total == 96 + 98


def test_what_was_found_costs_nothing(budget: MissBudget) -> None:
    for _ in range(100):
        assert budget.ask("a", 0.0)
        budget.give_back("a", 0.0)


def test_a_good_answer_makes_no_more_room_than_there_was(budget: MissBudget) -> None:
    for _ in range(100):
        budget.give_back("a", 0.0)

    assert asked(budget, "a", 100, 0.0) == 4


def test_one_client_does_not_spend_what_another_has(budget: MissBudget) -> None:
    asked(budget, "a", 100, 0.0)

    assert asked(budget, "b", 100, 0.0) == 4


def test_it_is_said_once_a_minute_for_each_client(budget: MissBudget) -> None:
    assert budget.to_be_said("a", 0.0)
    assert not budget.to_be_said("a", SAY_EVERY_S - 1)
    assert budget.to_be_said("b", 1.0)
    assert budget.to_be_said("a", SAY_EVERY_S)


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=200))
def test_misses_never_exceed_burst_and_rate(steps: list[tuple[float, bool]]) -> None:
    budget, now_s, misses = MissBudget(rate_per_s=2.0, burst=4.0), 0.0, 0
    for wait_s, found in steps:
        now_s += wait_s
        if budget.ask("a", now_s):
            if found:
                budget.give_back("a", now_s)
            else:
                misses += 1
        assert misses <= 4 + 1 + 2.0 * now_s
