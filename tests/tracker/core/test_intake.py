"""The intake against herds of hosts with the product's patience, at a tracker of any speed."""

from __future__ import annotations

import heapq
import itertools
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.control.core.redial import RETRY_AFTER_MAX_S as CLIENT_RETRY_AFTER_MAX_S
from p2pdist.control.core.redial import Redial
from p2pdist.model.control_wire import CONNECT_S
from p2pdist.tracker.core.intake import (
    PER_ADDRESS_MAX,
    RETRY_AFTER_MAX_S,
    RETRY_AFTER_MIN_S,
    STALE_S,
    WAIT_MAX_S,
    Intake,
)

TRACKER = "tcp://tracker:5200"


def herd(
    hosts: int, cost_s: float, *, seed: int = 1, end_s: float = 600.0, addresses: int = 1 << 20
) -> tuple[float, int]:
    """Return when the last of `hosts` was in, and how many dials that took; each costs the one
    server `cost_s`. A host leaves after `CONNECT_S`, whether the tracker knows or not."""
    rng, numbers = Random(seed), itertools.count()
    intake: Intake[tuple[int, float]] = Intake()
    redials = [Redial([TRACKER], rng) for _ in range(hosts)]
    inside = [False] * hosts
    # When, for a lasting order, who, and whether its patience ends then: else it dials.
    events = [(rng.random(), next(numbers), host, False) for host in range(hosts)]
    heapq.heapify(events)
    now_s = free_s = 0.0
    dials = 0

    def serve() -> None:
        nonlocal free_s
        while free_s <= now_s:
            intake.drop_stale(free_s)
            greeted = intake.greet(1)
            if not greeted:
                free_s = now_s + 1e-9
                return
            free_s += cost_s
            host, leaves_s, who = *greeted[0][0], greeted[0][1]
            intake.done(who, free_s)
            inside[host] |= free_s < leaves_s

    while not all(inside) and now_s < end_s:
        now_s, _, host, leaves = heapq.heappop(events)
        serve()
        if inside[host]:
            continue
        if leaves:
            redials[host].failed()
        else:
            dials += 1
            leaves_s = now_s + CONNECT_S
            retry_after_s = intake.arrive((host, leaves_s), str(host % addresses), now_s)
            if retry_after_s is None:
                heapq.heappush(events, (leaves_s, next(numbers), host, True))
                continue
            redials[host].refused(retry_after_s, now_s)
        again_s = now_s + redials[host].delay_s(now_s)
        heapq.heappush(events, (again_s, next(numbers), host, False))
    return (now_s if all(inside) else math.inf), dials


def test_without_it_a_herd_takes_many_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the harness is to show: everybody waits, and has gone when it is greeted."""
    with_it_s, _ = herd(3000, 0.0007 * 6)
    for name in ("WAIT_MAX_S", "STALE_S", "WAITING_MAX"):
        monkeypatch.setattr(f"p2pdist.tracker.core.intake.{name}", 1_000_000)

    assert herd(3000, 0.0007 * 6)[0] > 5 * with_it_s


@pytest.mark.parametrize("share", [1.0, 1 / 4, 1 / 6])
def test_no_host_starves_and_few_dials_are_in_vain(share: float) -> None:
    hosts, cost_s = 3000, 0.0007 / share

    last_s, dials = herd(hosts, cost_s)

    # Some more than the work itself: the pace is being learnt, and delays are jittered.
    assert last_s <= 2 * hosts * cost_s + 2 * CONNECT_S
    assert dials <= 4 * hosts


def test_a_whole_network_behind_one_address_gets_in() -> None:
    hosts, cost_s = 3000, 0.0007

    last_s, dials = herd(hosts, cost_s, addresses=1)

    assert last_s <= 2 * hosts * cost_s + 2 * CONNECT_S
    assert dials <= 4 * hosts


@given(st.integers(1, 400), st.floats(0.0002, 0.05), st.integers(0, 1 << 16))
def test_every_herd_gets_in(hosts: int, cost_s: float, seed: int) -> None:
    last_s, _ = herd(hosts, cost_s, seed=seed)

    assert last_s <= 3 * hosts * cost_s + 4 * CONNECT_S


def test_nobody_waits_for_longer_than_a_host_does() -> None:
    intake: Intake[str] = Intake()
    assert WAIT_MAX_S < STALE_S < CONNECT_S
    intake.arrive("old", "a", 0.0)
    intake.arrive("new", "b", 1.0)

    assert intake.drop_stale(STALE_S + 0.5) == ["old"]
    assert intake.greet(9) == [("new", "b")]
    assert intake.dropped_total == 1


def test_those_who_are_sent_away_come_back_one_after_the_other() -> None:
    intake: Intake[int] = Intake()
    answers = [intake.arrive(number, str(number), 0.0) for number in range(6000)]
    delays = [after_s for after_s in answers if after_s is not None]

    assert answers[:2000] == [None] * 2000
    assert delays == sorted(delays)
    assert delays[0] == RETRY_AFTER_MIN_S
    assert delays[-1] > delays[0] + (len(delays) - 1) * intake.pace_s


def test_no_delay_grows_without_end_and_clients_believe_all_of_them() -> None:
    intake: Intake[int] = Intake()
    delays = [intake.arrive(number, str(number), 0.0) or 0.0 for number in range(200_000)]

    assert max(delays) == RETRY_AFTER_MAX_S < CLIENT_RETRY_AFTER_MAX_S


def test_a_tracker_that_gets_slower_takes_fewer() -> None:
    intake: Intake[int] = Intake()
    now_s = 0.0
    for number in range(1000):
        intake.arrive(number, str(number), now_s)
    while intake.waiting:
        ((_, who),) = intake.greet(1)
        now_s += 0.004
        intake.done(who, now_s)

    taken = sum(intake.arrive(number, str(number), now_s) is None for number in range(2000))

    assert WAIT_MAX_S / 0.0045 <= taken <= WAIT_MAX_S / 0.0035


def test_not_more_handshakes_at_once_than_allowed() -> None:
    intake: Intake[int] = Intake(handshakes_max=3)
    for number in range(5):
        intake.arrive(number, str(number), 0.0)

    assert [number for number, _ in intake.greet(9)] == [0, 1, 2]
    assert intake.greet(9) == []
    intake.done("0", 0.1)
    assert intake.greet(9) == [(3, "3")]


def test_one_address_keeps_nobody_else_out_by_silence() -> None:
    """1,024 connections that said nothing used to keep all others waiting until they gave up."""
    intake: Intake[int] = Intake()
    answers = [intake.arrive(number, "silent", 0.0) for number in range(5000)]
    assert answers.count(None) == PER_ADDRESS_MAX
    assert len(intake.greet(5000)) == PER_ADDRESS_MAX

    assert intake.arrive(9999, "honest", 0.0) is None
    assert intake.greet(9) == [(9999, "honest")]


def test_who_is_done_makes_room_for_others_of_its_address() -> None:
    intake: Intake[int] = Intake()
    for number in range(PER_ADDRESS_MAX):
        intake.arrive(number, "a", 0.0)
    intake.greet(1)
    intake.done("a", 0.1)
    assert intake.arrive(5000, "a", 0.1) is None
    assert intake.arrive(5001, "a", 0.1) is not None

    assert len(intake.drop_stale(STALE_S + 1)) == PER_ADDRESS_MAX
    assert intake.arrive(5002, "a", STALE_S + 1) is None


def test_silence_of_the_other_end_is_not_the_pace_of_the_tracker() -> None:
    """Else 1,024 handshakes that end by their deadline have every host sent away."""
    intake: Intake[int] = Intake()
    pace_s = intake.pace_s
    for number in range(1000):
        intake.arrive(number, str(number), 0.0)
    now_s = 0.0
    for _, who in intake.greet(1000):
        now_s += 1.0
        intake.done(who, now_s, silent=True)

    assert intake.pace_s == pace_s


def test_a_quiet_night_after_hosts_that_gave_up_is_no_slow_pace() -> None:
    intake: Intake[int] = Intake()
    for connection in (1, 2):
        intake.arrive(connection, f"host {connection}", 0.0)
    intake.greet(1)
    intake.done("host 1", 0.001)
    assert intake.drop_stale(STALE_S + 0.1) == [2]
    pace_s = intake.pace_s

    intake.arrive(3, "host 3", 40_000.0)
    intake.greet(1)
    intake.done("host 3", 40_000.001)

    assert intake.pace_s == pace_s


@pytest.mark.parametrize("seed", range(20))
def test_its_books_agree_whatever_comes_in_any_order(seed: int) -> None:
    rng, now_s = Random(seed), 0.0
    intake: Intake[int] = Intake(handshakes_max=3)
    greeted: list[str] = []
    for connection in range(500):
        now_s += rng.choice([0.0, 0.01, 1.0, CONNECT_S])
        match rng.choice(["arrive", "arrive", "greet", "done", "stale"]):
            case "arrive":
                intake.arrive(connection, rng.choice("abc"), now_s)
            case "greet":
                greeted += [who for _, who in intake.greet(rng.randrange(3))]
            case "done" if greeted:
                who = greeted.pop(rng.randrange(len(greeted)))
                intake.done(who, now_s, silent=rng.random() < 0.3)
            case "stale":
                intake.drop_stale(now_s)
            case _:
                pass
        intake.validate()
        assert intake.greeted == len(greeted)
