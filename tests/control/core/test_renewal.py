"""When certificates are renewed, in simulated time: well before the end, and never all at once."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from p2pdist.control.core.renewal import RUSH_S, RenewalPlan

DAY_S = 86400.0
LIFE_S = 30 * DAY_S


def plan_of(seed: int, begins_s: float = 0.0, ends_s: float = LIFE_S) -> RenewalPlan:
    plan = RenewalPlan(Random(seed))
    plan.follow(begins_s, ends_s)
    return plan


def test_thirty_thousand_hosts_of_one_hour_come_over_two_days() -> None:
    rng = Random(1)
    moments = [
        plan_of(n, begun := rng.random() * 3600.0, begun + LIFE_S).at_s for n in range(30_000)
    ]

    assert min(moments) >= 0.6 * LIFE_S
    assert max(moments) <= LIFE_S * 2 / 3 + 3600.0
    assert max(Counter(int(moment) for moment in moments).values()) <= 5


def test_it_asks_once_it_is_time_and_somebody_is_there() -> None:
    plan = plan_of(1)
    assert not plan.due(plan.at_s - 1, able=True)
    assert plan.due(plan.at_s, able=True)
    assert not plan.due(plan.at_s, able=False)


def test_those_that_are_late_do_not_come_with_the_tracker() -> None:
    back_s = 28 * DAY_S
    waits = []
    for seed in range(1000):
        plan = plan_of(seed)
        assert not plan.due(back_s - 1, able=False)
        plan.due(back_s, able=True)
        waits.append(plan.at_s - back_s)
    assert 0 <= min(waits) < max(waits) <= RUSH_S
    assert max(Counter(int(wait) for wait in waits).values()) < 20


@pytest.mark.parametrize("life_s", [LIFE_S, 3600.0, 60.0])
def test_failures_are_tried_again_ever_more_seldom_but_never_too_seldom_for_what_is_left(
    life_s: float,
) -> None:
    plan = plan_of(1, 0.0, life_s)
    now_s, tries = plan.at_s, 0
    while now_s < life_s:
        assert plan.due(now_s, able=True)
        plan.failed(now_s)
        tries += 1
        assert plan.at_s > now_s
        now_s = plan.at_s
    assert 10 <= tries <= 300
    plan.failed(life_s + DAY_S)
    assert plan.at_s > life_s + DAY_S, "one that has ended is no reason for a busy loop"


def test_who_refuses_names_the_next_try_and_each_host_adds_to_it() -> None:
    waits = []
    for seed in range(100):
        plan = plan_of(seed)
        plan.failed(plan.at_s, retry_s=300.0)
        waits.append(plan.at_s)
    plans = [plan_of(seed) for seed in range(100)]
    spread = [wait - plan.at_s for wait, plan in zip(waits, plans, strict=True)]
    assert 300.0 <= min(spread) < 350.0 < 550.0 < max(spread) <= 600.0


def test_another_certificate_is_another_plan() -> None:
    plan = plan_of(1)
    plan.failed(plan.at_s)
    plan.follow(20 * DAY_S, 50 * DAY_S)
    assert 38 * DAY_S <= plan.at_s <= 40 * DAY_S
