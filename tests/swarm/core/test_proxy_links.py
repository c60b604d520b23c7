"""Which proxy a link is wanted to, when it is dialled, and when it is left."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.model.ids import HostId
from p2pdist.model.rendezvous import ranked
from p2pdist.swarm.core.proxy_links import (
    FAILURES_MIN,
    IDENTIFY_S,
    IDLE_S,
    RETRY_MAX_S,
    ProxyLinkPlan,
)
from p2pdist.swarm.core.refusals import RefusalBook

NAMES = ["http://one", "http://two", "http://three"]
HOSTS = {name: HostId(f"{n:032x}") for n, name in enumerate(NAMES, 1)}
KEYS = [f"sha256:{n:064x}" for n in range(30)]


class Bench:
    """A plan with its refusals."""

    def __init__(self, seed: int = 1) -> None:
        self.refusals = RefusalBook(Random(seed))
        self.hung: set[str] = set()
        self.plan = ProxyLinkPlan(
            NAMES, self.refusals, Random(seed), hung=lambda name: name in self.hung
        )

    def told(self) -> ProxyLinkPlan:
        for name in self.plan.unknown(0.0):
            self.plan.told(name, HOSTS[name])
        return self.plan


def by_rank(key: str) -> list[str]:
    names = {host: name for name, host in HOSTS.items()}
    return [names[HostId(host)] for host in ranked(key, names)]


# --- whose blob it is ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_the_owner_is_the_one_that_the_tracker_names(key: str) -> None:
    """By host id, whatever the order of the configuration: `tracker/core/handouts`."""
    plan = Bench().told()

    assert plan.order(key, 0.0) == by_rank(key)
    assert plan.owner(key, 0.0) == by_rank(key)[0]


def test_one_that_hangs_owns_nothing_while_another_is_there() -> None:
    bench = Bench()
    plan, (first, *others) = bench.told(), by_rank(KEYS[0])
    plan.up(HOSTS[first], 0.0)

    bench.hung = {first}
    assert plan.order(KEYS[0], 0.0) == [*others, first]
    assert plan.to_dial([KEYS[0]], 0.0) == [others[0]]

    bench.hung = set(NAMES)
    assert plan.owner(KEYS[0], 0.0) == first


def test_each_proxy_is_asked_once_who_it_is() -> None:
    plan = Bench().plan

    assert plan.unknown(0.0) == NAMES
    assert plan.unknown(0.0) == []


def test_nobody_owns_a_blob_until_all_told_who_they_are_or_took_too_long() -> None:
    plan = Bench().plan
    plan.unknown(0.0)
    for name in NAMES[:2]:
        plan.told(name, HOSTS[name])

    owners = {plan.owner(key, IDENTIFY_S + 0.01) for key in KEYS}

    assert {plan.owner(key, IDENTIFY_S / 2) for key in KEYS} == {None}
    assert plan.next_try_s(0.0) == pytest.approx(IDENTIFY_S)
    assert owners == set(NAMES[:2])


def test_a_proxy_that_failed_before_holds_up_nobody_when_asked_again() -> None:
    plan = Bench().plan
    plan.unknown(0.0)
    for name in NAMES[:2]:
        plan.told(name, HOSTS[name])
    plan.failed(NAMES[2], 0.1)

    assert plan.unknown(60.0) == [NAMES[2]]
    assert plan.owner(KEYS[0], 60.0) in NAMES[:2]


@pytest.mark.parametrize("key", KEYS[:5])
def test_the_next_one_takes_over_while_the_owner_is_away(key: str) -> None:
    plan = Bench().told()
    plan.failed(by_rank(key)[0], 1.0)

    away_until_s = plan.next_try_s(1.0)

    assert away_until_s is not None
    assert plan.owner(key, 1.0) == by_rank(key)[1]
    assert plan.order(key, 1.0)[-1] == by_rank(key)[0]
    assert plan.owner(key, away_until_s) == by_rank(key)[0]


def test_a_proxy_that_came_with_another_id_owns_what_that_id_owns() -> None:
    plan = Bench().told()
    key = KEYS[0]
    fresh = next(h for h in map(HostId, (f"{n:032x}" for n in range(100, 999)))
                 if ranked(key, [h, *HOSTS.values()])[0] == h)  # fmt: skip
    last = by_rank(key)[-1]

    plan.told(last, fresh)

    assert plan.owner(key, 0.0) == last


# --- dials --------------------------------------------------------------------------------------


def test_links_are_wanted_to_the_owners_of_what_is_fetched_alone() -> None:
    plan = Bench().told()
    key = KEYS[0]

    assert plan.to_dial([], 0.0) == []
    assert plan.to_dial([key], 0.0) == [by_rank(key)[0]]
    assert plan.to_dial(KEYS, 0.0) == sorted(NAMES)


def test_a_link_that_is_there_is_not_dialled() -> None:
    plan = Bench().told()
    plan.up(HOSTS[by_rank(KEYS[0])[0]], 0.0)

    assert plan.to_dial([KEYS[0]], 0.0) == []


def test_hosts_that_lost_a_proxy_in_one_moment_come_back_spread() -> None:
    """A proxy that restarts must not be dialled by all in the same instant."""
    tries = []
    for seed in range(200):
        plan = Bench(seed).told()
        plan.up(HOSTS[NAMES[0]], 0.0)
        plan.down(HOSTS[NAMES[0]], 10.0)
        tries.append((plan.next_try_s(10.0) or 0.0) - 10.0)

    spread = sorted(int(10 * wait_s) for wait_s in tries)
    assert [spread.count(tenth) > 20 for tenth in range(4)] == [True] * 4
    assert max(tries) <= 0.4


def test_a_proxy_that_stays_away_is_tried_ever_less() -> None:
    plan, now_s, tries = Bench().told(), 0.0, 0
    while now_s < 600:
        plan.failed(NAMES[0], now_s)
        tries += 1
        due_s = plan.next_try_s(now_s)
        assert due_s is not None
        assert due_s - now_s <= RETRY_MAX_S
        now_s = due_s

    assert tries < 200  # a mean of 5 s once the wait is longest


def test_a_link_clears_what_went_wrong_before() -> None:
    plan = Bench().told()
    for _ in range(10):
        plan.failed(NAMES[0], 0.0)
    plan.up(HOSTS[NAMES[0]], 1.0)
    plan.down(HOSTS[NAMES[0]], 2.0)

    assert (plan.next_try_s(2.0) or 0.0) - 2.0 <= 0.4


# --- refusals -----------------------------------------------------------------------------------


def test_a_proxy_that_refuses_is_passed_over_for_as_long_as_it_said() -> None:
    bench = Bench()
    plan, key = bench.told(), KEYS[0]
    bench.refusals.refused(HOSTS[by_rank(key)[0]], 30, 0.0)

    assert plan.owner(key, 29.9) == by_rank(key)[1]
    assert plan.owner(key, 45.1) == by_rank(key)[0]


def test_a_host_that_all_refuse_lives_on_its_peers_and_knows_it() -> None:
    bench = Bench()
    plan = bench.told()
    for name in NAMES[:2]:
        bench.refusals.refused(HOSTS[name], 30, 0.0)
    assert not plan.all_refuse(1.0)
    bench.refusals.refused(HOSTS[NAMES[2]], 30, 0.0)

    assert plan.all_refuse(1.0)
    assert plan.owner(KEYS[0], 1.0) is None
    assert plan.to_dial(KEYS, 1.0) == []
    due_s = plan.next_try_s(1.0)
    assert due_s is not None
    assert 30 <= due_s <= 45
    plan.up(HOSTS[NAMES[1]], due_s)
    assert not plan.all_refuse(due_s)


# --- leaving ------------------------------------------------------------------------------------


def test_a_link_of_no_use_is_left_after_a_while() -> None:
    plan = Bench().told()
    plan.up(HOSTS[NAMES[0]], 0.0)

    assert plan.to_leave(lambda _: False, IDLE_S - 0.1) == []
    assert plan.to_leave(lambda _: False, IDLE_S) == [HOSTS[NAMES[0]]]


def test_a_link_in_use_stays_and_its_time_counts_from_then() -> None:
    plan = Bench().told()
    plan.up(HOSTS[NAMES[0]], 0.0)
    plan.up(HOSTS[NAMES[1]], 0.0)

    idle = plan.to_leave(lambda host: host == HOSTS[NAMES[0]], IDLE_S)

    assert idle == [HOSTS[NAMES[1]]]
    assert plan.to_leave(lambda _: False, 2 * IDLE_S - 1) == [HOSTS[NAMES[1]]]
    assert set(plan.to_leave(lambda _: False, 2 * IDLE_S)) == {HOSTS[n] for n in NAMES[:2]}


def test_a_link_that_was_left_may_be_dialled_again_at_once() -> None:
    plan, owner = Bench().told(), by_rank(KEYS[0])[0]
    plan.up(HOSTS[owner], 0.0)
    plan.left(HOSTS[owner])

    assert plan.to_dial([KEYS[0]], 0.0) == [owner]


# --- whether they are there ---------------------------------------------------------------------


def test_a_proxy_is_reachable_until_it_fails_and_again_when_it_is_linked() -> None:
    plan = Bench().told()
    assert plan.reachable(0.0)

    for name in NAMES:
        plan.failed(name, 0.0)
    assert not plan.reachable(RETRY_MAX_S)  # its next dial may go wrong as well

    plan.up(HOSTS[NAMES[1]], RETRY_MAX_S)
    assert plan.reachable(RETRY_MAX_S)


def test_a_proxy_of_which_nothing_is_known_is_not_reachable() -> None:
    assert not Bench().plan.reachable(0.0)


def test_all_fail_when_each_has_failed_again_and_again_without_a_link() -> None:
    plan = Bench().told()
    for name in NAMES[:2]:
        for _ in range(FAILURES_MIN):
            plan.failed(name, 0.0)
    for _ in range(FAILURES_MIN - 1):
        plan.failed(NAMES[2], 0.0)
    assert not plan.all_fail()

    plan.failed(NAMES[2], 0.0)
    assert plan.all_fail()
    plan.up(HOSTS[NAMES[0]], 1.0)
    assert not plan.all_fail()


def test_nobody_to_fail_is_no_failure() -> None:
    refusals = RefusalBook(Random(1))
    assert not ProxyLinkPlan([], refusals, Random(1)).all_fail()


def test_a_proxy_that_failed_is_looked_at_once_at_a_time_until_it_answers() -> None:
    plan, later_s = Bench().told(), RETRY_MAX_S
    assert plan.to_look_at(later_s) == []

    plan.failed(NAMES[0], 0.0)
    assert plan.to_look_at(later_s) == [NAMES[0]]
    assert plan.to_look_at(later_s) == []  # it is being asked
    plan.told(NAMES[0], HOSTS[NAMES[0]])
    plan.answered(NAMES[0])
    assert plan.to_look_at(later_s) == []
    assert plan.reachable(later_s)


# --- whatever comes, in any order ---------------------------------------------------------------

STEPS = ("ask", "look", "told", "answered", "failed", "up", "down", "used", "left", "refused")


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(STEPS),
            st.sampled_from(NAMES),
            st.sampled_from([*HOSTS.values(), HostId("f" * 32)]),
            st.sampled_from([0.0, 0.1, 1.0, 20.0]),
        ),
        max_size=60,
    )
)
def test_no_proxy_is_forgotten_or_dialled_too_soon(
    steps: list[tuple[str, str, HostId, float]],
) -> None:
    bench, now_s = Bench(), 0.0
    plan = bench.plan
    for step, name, host, later_s in steps:
        now_s += later_s
        match step:
            case "ask":
                plan.unknown(now_s)
            case "look":
                plan.to_look_at(now_s)
            case "told":
                plan.told(name, host)
            case "answered":
                plan.answered(name)
            case "failed":
                plan.failed(name, now_s)
            case "up":
                plan.up(host, now_s)
            case "down":
                plan.down(host, now_s)
            case "used":
                plan.used(host, now_s)
            case "left":
                plan.left(host)
            case _:
                bench.refusals.refused(host, 1.0, now_s)
        for key in KEYS[:3]:
            plan.validate(key, now_s)
