"""Promises of a seed, with numbers for time."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.bits import indexes as each
from p2pdist.model.ids import HostId
from p2pdist.swarm.core.patience import FIRST_S
from p2pdist.swarm.core.seeding import Promise, SeedPlan
from p2pdist.swarm.core.uplink import Uplink

CHUNK = 256 * 1024
A, B, C = (HostId(x * 32) for x in "abc")


def seed_of(
    chunks: int,
    *readers: HostId,
    whole: bool = True,
    spares: bool = True,
    uplink: Uplink | None = None,
) -> SeedPlan:
    plan = SeedPlan(CHUNK, Uplink() if uplink is None else uplink, spares=spares)
    for reader in readers:
        plan.joined(reader, 0.0)
    plan.hold((1 << chunks) - 1, whole=whole)
    return plan


def promised(promises: list[Promise]) -> dict[HostId, int]:
    """What each reader was promised; nobody the same chunk twice."""
    found: dict[HostId, int] = {}
    for host, bits in promises:
        assert not found.get(host, 0) & bits, "promised twice"
        found[host] = found.get(host, 0) | bits
    return found


def serve(plan: SeedPlan, host: HostId, bits: int, now_s: float) -> None:
    plan.asked(host, bits, now_s)
    plan.sent(host, bits, now_s)


def test_readers_are_promised_different_chunks_from_the_front_on() -> None:
    plan = seed_of(100, A, B)

    given_to = promised(plan.refill(0.0))

    assert given_to[A] & given_to[B] == 0
    assert given_to[A] | given_to[B] == (1 << plan.depth) - 1
    assert given_to[A].bit_count() == given_to[B].bit_count()


def test_no_more_is_promised_before_something_was_sent() -> None:
    plan = seed_of(100, A, B)
    first = promised(plan.refill(0.0))
    plan.asked(A, first[A], 0.01)

    assert plan.refill(0.01) == []
    plan.sent(A, first[A], 0.02)
    assert promised(plan.refill(0.02))[A]


def test_the_depth_grows_while_the_uplink_runs_dry() -> None:
    plan = seed_of(4000, A, B)
    before, now_s = plan.depth, 0.0
    for _ in range(20):
        for host, bits in promised(plan.refill(now_s)).items():
            serve(plan, host, bits, now_s)
        now_s += 0.01

    assert plan.depth >= 4 * before


def test_the_depth_stays_while_something_waits_to_be_sent() -> None:
    plan = seed_of(4000, A, B)
    before, now_s, queue = plan.depth, 0.0, []
    for _ in range(200):
        for host, bits in plan.refill(now_s):
            plan.asked(host, bits, now_s)
            queue.append((host, bits))
        host, bits = queue.pop(0)
        plan.sent(host, bits, now_s)
        now_s += 0.02

    assert plan.depth == before


def test_what_was_sent_is_not_promised_again_while_it_may_be_passed_on() -> None:
    plan = seed_of(4, A, B, whole=False)
    first = promised(plan.refill(0.0))
    for host, bits in first.items():
        serve(plan, host, bits, 0.0)

    plan.expire(FIRST_S - 0.01)

    assert plan.refill(FIRST_S - 0.01) == []


def test_what_nobody_passes_on_is_promised_to_the_other_reader() -> None:
    """Without a tracker the readers do not know of each other."""
    plan = seed_of(8, A, B, whole=False)
    first = promised(plan.refill(0.0))
    for host, bits in first.items():
        serve(plan, host, bits, 0.0)
    assert plan.refill(0.0) == []

    due_s = plan.next_deadline_s()
    assert due_s == FIRST_S
    plan.expire(due_s)

    assert promised(plan.refill(due_s)) == {A: first[B], B: first[A]}


def test_what_was_passed_on_is_done() -> None:
    plan = seed_of(2, A, B, whole=False)
    for host, bits in plan.refill(0.0):
        serve(plan, host, bits, 0.0)
    plan.holds(A, 0b11, 0.1)
    plan.holds(B, 0b11, 0.1)

    plan.expire(60.0)

    assert plan.refill(60.0) == []


def test_a_promise_that_is_not_taken_up_goes_to_another_reader() -> None:
    plan = seed_of(1, A, B)
    (first,) = plan.refill(0.0)
    other = B if first.host == A else A

    plan.expire(FIRST_S)

    assert plan.refill(FIRST_S) == [Promise(other, 0b1)]


def test_a_reader_that_takes_nothing_in_does_not_keep_what_it_asked_for() -> None:
    plan = seed_of(1, A, B)
    (first,) = plan.refill(0.0)
    plan.asked(first.host, 0b1, 0.0)
    other = B if first.host == A else A

    plan.expire(FIRST_S)

    assert plan.refill(FIRST_S) == [Promise(other, 0b1)]


def test_what_only_a_lost_reader_had_is_promised_anew() -> None:
    plan = seed_of(8, A, B)
    first = promised(plan.refill(0.0))
    for host, bits in first.items():
        serve(plan, host, bits, 0.0)
    plan.holds(B, first[A] & 0b1, 0.1)

    plan.gone(A)

    assert promised(plan.refill(0.1)) == {B: first[A] & ~0b1}


def test_what_a_reader_has_that_finished_is_left_to_it() -> None:
    plan = seed_of(8, A)
    for _ in range(8):
        for host, bits in plan.refill(0.0):
            serve(plan, host, bits, 0.0)
    plan.left(A)

    plan.joined(B, 5.0)

    assert plan.refill(5.0) == []
    plan.gone(A)
    assert promised(plan.refill(5.0))[B]


def test_a_peer_that_has_it_all_gives_it_to_who_comes_later() -> None:
    """It is not for it to know who else does: nobody would, each leaving it to the other."""
    plan = seed_of(8, A, spares=False)
    for _ in range(8):
        for host, bits in plan.refill(0.0):
            serve(plan, host, bits, 0.0)
    plan.left(A)
    plan.holds(C, 0xFF, 1.0)

    plan.joined(B, 5.0)

    assert promised(plan.refill(5.0))[B]


def test_a_reader_that_cannot_reach_those_that_finished_is_helped() -> None:
    plan = seed_of(8, A)
    for _ in range(8):
        for host, bits in plan.refill(0.0):
            serve(plan, host, bits, 0.0)
    plan.left(A)
    plan.joined(B, 5.0)
    plan.refill(5.0)

    due_s = plan.next_deadline_s()
    assert due_s is not None
    assert due_s > 5.0
    plan.expire(due_s)

    assert promised(plan.refill(due_s))[B]


def test_nobody_is_helped_while_another_blob_has_chunks_that_nobody_has() -> None:
    uplink = Uplink()
    plan, other = seed_of(8, A, uplink=uplink), seed_of(100, A, uplink=uplink)
    for _ in range(8):
        for host, bits in plan.refill(0.0):
            serve(plan, host, bits, 0.0)
    plan.left(A)
    plan.joined(B, 5.0)
    other.refill(5.0)

    assert plan.refill(60.0) == []

    other.close()
    assert promised(plan.refill(60.0))[B]


def test_a_reader_that_retracts_had_nothing() -> None:
    plan = seed_of(4, A, B)
    first = promised(plan.refill(0.0))
    for host, bits in first.items():
        serve(plan, host, bits, 0.0)

    plan.retracted(A)

    assert promised(plan.refill(0.0)) == {B: first[A]}


def test_who_only_says_that_it_holds_everything_keeps_nobody_waiting_for_long() -> None:
    plan = seed_of(8, A, B, whole=False)
    plan.holds(A, 0xFF, 0.0)
    assert plan.refill(0.0) == []

    due_s = plan.next_deadline_s()
    assert due_s == FIRST_S
    plan.expire(due_s)

    assert promised(plan.refill(due_s))[B] == 0xFF


def test_a_reader_that_passes_things_on_keeps_what_it_has_not_passed_on_yet() -> None:
    """Judged chunk by chunk, a busy reader's last ones would go out again, and slow it further."""
    plan = seed_of(8, A, B, whole=False)
    first = promised(plan.refill(0.0))
    for host, bits in first.items():
        serve(plan, host, bits, 0.0)
    plan.holds(A, first[B], 0.2)
    for now_s, chunk in zip((0.2, 0.4, 0.6), each(first[A]), strict=False):
        plan.holds(B, 1 << chunk, now_s)

    plan.expire(0.9)
    assert plan.refill(0.9) == []

    plan.expire(2.0)
    assert promised(plan.refill(2.0)) == {B: 1 << list(each(first[A]))[-1]}


def test_a_request_that_was_taken_back_is_promised_anew() -> None:
    plan = seed_of(1, A, B)
    (first,) = plan.refill(0.0)
    plan.asked(first.host, 0b1, 0.0)

    plan.unsent(first.host, 0b1)

    assert plan.refill(0.0) == [Promise(B if first.host == A else A, 0b1)]


def rest(plan: SeedPlan, host: HostId, chunks: int) -> None:
    """`host` has read it all and left, so that the others may have it from there."""
    plan.joined(host, 0.0)
    plan.holds(host, (1 << chunks) - 1, 0.0)
    plan.left(host)


def test_what_others_have_is_given_only_to_the_hungry() -> None:
    plan = seed_of(100, A, B)
    rest(plan, C, 100)
    rest(plan, HostId("d" * 32), 100)
    assert promised(plan.refill(60.0)) == {}

    plan.set_hungry(A, True)
    given_to = promised(plan.refill(60.0))

    assert set(given_to) == {A}
    assert given_to[A] & 1, "from the front on"


def test_the_hungry_get_different_chunks_and_no_more_than_the_depth() -> None:
    plan = seed_of(100, A, B)
    rest(plan, C, 100)
    rest(plan, HostId("d" * 32), 100)
    plan.set_hungry(A, True)
    plan.set_hungry(B, True)

    given_to = promised(plan.refill(60.0))

    assert given_to[A] & given_to[B] == 0
    assert (given_to[A] | given_to[B]).bit_count() == plan.depth


def test_nobody_is_fed_while_another_blob_has_chunks_that_nobody_has() -> None:
    uplink = Uplink()
    other = seed_of(100, B, uplink=uplink)
    other.refill(0.0)
    plan = seed_of(100, A, uplink=uplink)
    rest(plan, C, 100)
    plan.set_hungry(A, True)

    assert promised(plan.refill(60.0)) == {}


def test_a_reader_that_is_hungry_no_more_or_left_is_fed_no_more() -> None:
    plan = seed_of(100, A)
    rest(plan, C, 100)
    rest(plan, B, 100)
    plan.set_hungry(A, True)
    plan.set_hungry(A, False)
    assert promised(plan.refill(60.0)) == {}

    plan.set_hungry(A, True)
    plan.left(A)
    plan.joined(A, 60.0)
    assert promised(plan.refill(120.0)) == {}


def test_the_depth_grows_while_the_hungry_let_the_uplink_run_dry() -> None:
    plan = seed_of(400, A)
    rest(plan, B, 400)
    rest(plan, C, 400)
    plan.set_hungry(A, True)
    first = plan.depth
    for n in range(40):
        for host, bits in plan.refill(60.0 + n):
            serve(plan, host, bits, 60.0 + n)

    assert plan.depth > first


def swarm(
    plan: SeedPlan, chunks: int, hosts: int, rng: Random, *, deaf: int = 0
) -> tuple[float, Counter[int]]:
    """Run readers with links of one chunk a time unit against a seed with the same link.

    Each sends what it has to whoever lacks it, one chunk at a time; the last `deaf` ones never ask
    the seed. Returns when the last one had all, and how often each chunk left the seed.
    """
    names = [HostId(f"{n:032x}") for n in range(hosts)]
    have = dict.fromkeys(names, 0)
    offered = dict.fromkeys(names, 0)
    full, copies = (1 << chunks) - 1, Counter[int]()
    order, events = itertools.count(), list[tuple[float, int, HostId, int, HostId | None]]()
    busy = dict.fromkeys([None, *names], False)
    arriving = dict.fromkeys(names, 0)
    for name in names:
        plan.joined(name, 0.0)
    now_s = 0.0

    def send(source: HostId | None) -> None:
        if busy[source]:
            return
        for name in rng.sample(names, hosts):
            stock = offered[name] if source is None else have[source]
            if name != source and (lacks := stock & ~have[name] & ~arriving[name]):
                if source is None and name in names[hosts - deaf :]:
                    continue
                chunk = rng.choice(list(each(lacks)))
                busy[source], arriving[name] = True, arriving[name] | 1 << chunk
                if source is None:
                    plan.asked(name, 1 << chunk, now_s)
                    copies[chunk] += 1
                heapq.heappush(events, (now_s + 1.0, next(order), name, chunk, source))
                return

    while any(bits != full for bits in have.values()):
        plan.expire(now_s)
        for host, bits in plan.refill(now_s):
            offered[host] |= bits
        for source in [None, *names]:
            send(source)
        due_s = plan.next_deadline_s()
        if events and (due_s is None or events[0][0] <= max(due_s, now_s)):
            now_s, _, name, chunk, source = heapq.heappop(events)
            busy[source], arriving[name] = False, arriving[name] & ~(1 << chunk)
            have[name] |= 1 << chunk
            if source is None:
                plan.sent(name, 1 << chunk, now_s)
            plan.holds(name, 1 << chunk, now_s)
        else:
            assert due_s is not None, "stuck: nothing on its way and nothing due"
            now_s = max(now_s, due_s)
    return now_s, copies


@pytest.mark.parametrize("hosts", [1, 2, 8])
def test_a_swarm_of_equal_links_takes_about_the_time_of_one_host(hosts: int) -> None:
    plan = seed_of(200, whole=True)

    took_s, copies = swarm(plan, 200, hosts, Random(1))

    assert took_s <= 1.15 * 200
    assert copies.total() <= 1.2 * 200


@given(
    chunks=st.integers(1, 40),
    hosts=st.integers(2, 6),
    deaf=st.integers(0, 1),
    seed=st.integers(0, 1 << 16),
)
def test_every_swarm_completes_while_one_reader_takes_what_it_is_promised(
    chunks: int, hosts: int, deaf: int, seed: int
) -> None:
    plan = seed_of(chunks, whole=True)

    _, copies = swarm(plan, chunks, hosts, Random(seed), deaf=deaf)

    assert set(copies) == set(range(chunks))


def test_nothing_is_kept_of_who_had_a_chunk_and_went() -> None:
    plan = seed_of(1, A, B)
    serve(plan, A, 0b1, 0.0)
    plan.holds(A, 0b1, 0.1)
    plan.validate()

    plan.gone(A)

    plan.validate()
    assert promised(plan.refill(0.2)) == {B: 0b1}
