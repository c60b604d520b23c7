from __future__ import annotations

import pytest

from p2pdist.model.ids import HostId
from p2pdist.swarm.core.offers import BATCH_MAX_S, BATCH_S, BATCH_SHARE, OfferPlan, OfferTo
from p2pdist.swarm.core.uplink import Uplink

CHUNK = 256 * 1024
A, B, FAR, SEED = (HostId(x * 32) for x in "abcd")


def told(orders: list[OfferTo]) -> dict[HostId, int]:
    hosts = [order.host for order in orders]
    assert len(set(hosts)) == len(hosts), "two frames where one would do"
    return {order.host: order.bits for order in orders}


def test_a_node_that_still_fetches_offers_everything_to_everybody() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)

    plan.landed(0b111, 0.0)

    assert told(plan.take_orders(0.0)) == {A: 0b111, B: 0b111}


def test_what_lands_soon_after_an_offer_waits_for_more() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.landed(0b001, 10.0)
    assert told(plan.take_orders(10.0)) == {A: 0b001}
    plan.landed(0b010, 10.01)
    plan.landed(0b100, 10.02)

    assert plan.take_orders(10.02) == []
    assert plan.next_deadline_s() == 10.0 + BATCH_S
    assert told(plan.take_orders(10.0 + BATCH_S)) == {A: 0b110}


def test_in_the_middle_of_a_long_fetch_batches_are_large_and_at_both_ends_small() -> None:
    plan, chunks, end_s = OfferPlan(CHUNK, Uplink(), seed=False), 400, 40.0
    plan.reader_joined(A, shares=True, now_s=0.0)
    waits = {}
    for chunk in range(chunks):  # ten a second
        now_s = chunk * end_s / chunks
        plan.landed(1 << chunk, now_s)
        if plan.take_orders(now_s, chunks=chunks):
            plan.landed(1 << chunk + chunks, now_s)
            due_s = plan.next_deadline_s()
            assert due_s is not None
            waits[now_s] = due_s - now_s
            plan.lost(1 << chunk + chunks, now_s)
            plan.validate()

    assert [waits[0.5], waits[39.5]] == pytest.approx([BATCH_S, BATCH_S])
    assert waits[20.0] == pytest.approx(BATCH_MAX_S)
    assert waits[1.5] == pytest.approx(BATCH_SHARE * 1.5)
    assert min(waits.values()) == pytest.approx(BATCH_S)


def test_another_map_begins_with_short_batches_again() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.landed(0b1, 0.0)
    plan.dropped(60.0)
    plan.landed(0b1, 60.0)
    assert told(plan.take_orders(60.0)) == {A: 0b1}
    plan.landed(0b10, 60.0)

    assert plan.next_deadline_s() == 60.0 + BATCH_S


def test_the_last_chunks_go_out_with_what_was_kept_for_a_batch() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.source_joined(SEED)
    plan.landed(0b01, 10.0)
    plan.take_orders(10.0)
    plan.landed(0b10, 10.01, whole=True)

    assert told(plan.take_orders(10.01, flush=True)) == {SEED: 0b10}


def test_who_left_is_told_nothing_more() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)
    plan.landed(0b1, 0.0, whole=True)

    plan.reader_left(A, 0.0)

    assert told(plan.take_orders(0.0)) == {B: 0b1}


def test_a_listener_is_not_told_of_what_it_has() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.host_holds(A, 0b01, shares=True, now_s=0.0)

    plan.landed(0b11, 0.0)

    assert told(plan.take_orders(0.0)) == {A: 0b10}


def test_a_seed_promises_readers_different_chunks() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)

    plan.landed(0xFF, 0.0)

    promised = told(plan.take_orders(0.0))
    assert promised[A] & promised[B] == 0
    assert promised[A] | promised[B] == 0xFF


def test_a_seed_offers_everything_to_a_proxy_of_another_datacenter() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(FAR, shares=False, now_s=0.0)

    plan.landed((1 << 100) - 1, 0.0)

    assert told(plan.take_orders(0.0))[FAR] == (1 << 100) - 1


def test_what_the_proxy_has_that_we_copy_from_is_promised_all_the_same() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.host_holds(FAR, 0b11, shares=False, now_s=0.0)

    plan.landed(0b11, 0.0)

    assert told(plan.take_orders(0.0)) == {A: 0b11}


def test_what_a_peer_has_already_is_left_to_it() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.host_holds(B, 0b01, shares=True, now_s=0.0)

    plan.landed(0b11, 0.0)

    assert told(plan.take_orders(0.0)) == {A: 0b10}


def test_whoever_has_the_whole_blob_is_a_seed_to_those_that_come_later() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.landed((1 << 100) - 1, 0.0, whole=True)
    assert told(plan.take_orders(0.0)) == {A: (1 << 100) - 1}

    plan.reader_joined(B, shares=True, now_s=1.0)

    assert 0 < told(plan.take_orders(1.0))[B].bit_count() < 100


def test_sources_are_told_what_is_here_until_nothing_lacks() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.landed(0b01, 0.0)
    plan.take_orders(0.0)
    plan.source_joined(SEED)
    assert told(plan.take_orders(0.0)) == {SEED: 0b01}

    plan.sources_left()
    plan.landed(0b10, 1.0)

    assert plan.take_orders(1.0) == []


def test_a_reader_that_finished_and_is_read_from_is_still_told() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.source_joined(A)
    plan.reader_left(A, 0.0)

    plan.landed(0b1, 0.0)

    assert told(plan.take_orders(0.0)) == {A: 0b1}


def test_what_a_lost_reader_was_promised_goes_to_the_other() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)
    plan.landed(0xFF, 0.0)
    first = told(plan.take_orders(0.0))

    plan.host_gone(A, 0.1)

    assert told(plan.take_orders(0.1)) == {B: first[A]}


def test_nothing_is_offered_of_a_dropped_map() -> None:
    for seed in (False, True):
        plan = OfferPlan(CHUNK, Uplink(), seed=seed)
        plan.reader_joined(A, shares=True, now_s=0.0)
        plan.landed(0b1, 0.0)

        plan.dropped(0.0)

        assert plan.take_orders(1.0) == []
        plan.reader_joined(B, shares=True, now_s=1.0)
        assert plan.take_orders(1.0) == []


def test_after_a_dropped_map_the_readers_are_told_of_the_new_one() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.landed(0b1, 0.0)
    plan.take_orders(0.0)
    plan.dropped(0.0)

    plan.landed(0b1, 1.0)

    assert told(plan.take_orders(1.0)) == {A: 0b1}


def test_what_lands_after_the_end_keeps_no_other_blob_from_being_helped_with() -> None:
    uplink = Uplink()
    for seed in (False, True):
        plan = OfferPlan(CHUNK, uplink, seed=seed)
        plan.reader_joined(A, shares=True, now_s=0.0)
        plan.close()

        plan.landed(0b1, 0.0, whole=True)

        assert plan.take_orders(0.0) == []
        assert uplink.idle


# --- demand readers -------------------------------------------------------------------------------

ALL = 0xFF


def test_a_proxy_promises_nothing_to_a_demand_reader_and_the_others_get_it_all() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0, demand=True)

    plan.landed(ALL, 0.0)

    assert told(plan.take_orders(0.0)) == {A: ALL}


def test_a_peer_that_has_it_all_tells_a_demand_reader_so() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.landed(ALL, 0.0, whole=True)
    plan.take_orders(0.0, flush=True)

    plan.reader_joined(A, shares=True, now_s=1.0, demand=True)

    assert told(plan.take_orders(1.0)) == {A: ALL}


def test_a_demand_reader_of_a_peer_hears_of_the_chunks_that_make_it_whole() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.reader_joined(A, shares=True, now_s=0.0, demand=True)
    plan.landed(0x0F, 0.0)
    plan.take_orders(0.0)

    plan.landed(0xF0, 1.0, whole=True)

    assert told(plan.take_orders(1.0)) == {A: 0xF0}


def test_who_needs_all_of_it_from_now_on_is_promised_its_share() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0, demand=True)
    plan.landed(ALL, 0.0, whole=True)
    assert plan.take_orders(0.0) == []

    plan.reader_demands(A, False, 1.0)

    assert told(plan.take_orders(1.0)) == {A: ALL}


def test_what_was_promised_to_who_needs_parts_only_now_is_promised_to_others() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)
    plan.landed(ALL, 0.0, whole=True)
    promised = told(plan.take_orders(0.0))

    plan.reader_demands(A, True, 0.1)

    assert told(plan.take_orders(0.1)) == {B: promised[A]}


def test_a_new_map_promises_nothing_to_demand_readers_either() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0, demand=True)
    plan.dropped(1.0)

    plan.landed(ALL, 1.0, whole=True)

    assert plan.take_orders(1.0) == []


def test_a_demand_reader_is_referred_to_those_that_are_being_sent_the_same() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    for host in (A, B):
        plan.reader_joined(host, shares=True, now_s=0.0, demand=True)
    plan.landed(ALL, 0.0, whole=True)
    assert not plan.refers(A, 0b11, 0.0)
    plan.asked(A, 0b11, 0.0)

    assert plan.refers(B, 0b11, 0.0)
    plan.sent(A, 0b11, 0, 0.1)
    assert not plan.refers(B, 0b10, 0.1), "it comes back for what it was referred for"


def test_a_demand_reader_is_referred_to_those_that_got_it_long_ago() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    for host in (A, B, SEED):
        plan.reader_joined(host, shares=True, now_s=0.0, demand=True)
    plan.landed(ALL, 0.0, whole=True)
    plan.asked(A, 0b11, 0.0)
    plan.sent(A, 0b11, 0, 0.1)

    assert plan.refers(B, 0b11, 60.0)

    plan.host_gone(A, 61.0)
    assert not plan.refers(SEED, 0b11, 61.0)


def test_nobody_else_is_referred_to_anybody() -> None:
    for seed, shares, demand in ((True, True, False), (True, False, True), (False, True, True)):
        plan = OfferPlan(CHUNK, Uplink(), seed=seed)
        plan.reader_joined(A, shares=shares, now_s=0.0, demand=demand)
        plan.reader_joined(B, shares=True, now_s=0.0, demand=True)
        plan.landed(ALL, 0.0, whole=True)
        plan.asked(B, ALL, 0.0)
        plan.host_holds(B, ALL, shares=True, now_s=0.0)

        assert not plan.refers(A, 0b11, 0.0)


def test_what_rotted_is_offered_to_nobody_until_it_is_here_again() -> None:
    """A whole blob went on to be offered as a whole."""
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.landed(0b1111, 0.0, whole=True)

    plan.lost(0b0110, 1.0)

    plan.reader_joined(A, shares=True, now_s=1.0)
    assert told(plan.take_orders(1.0)) == {A: 0b1001}
    plan.landed(0b0110, 2.0, whole=True)
    assert told(plan.take_orders(2.0, flush=True)) == {A: 0b0110}


def test_who_was_offered_what_rotted_is_offered_it_again() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=False)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.landed(0b11, 0.0)
    assert told(plan.take_orders(0.0)) == {A: 0b11}

    plan.lost(0b01, 1.0)
    plan.landed(0b01, 2.0)

    assert told(plan.take_orders(2.0)) == {A: 0b01}


def test_a_proxy_promises_what_is_left_after_some_rotted() -> None:
    plan = OfferPlan(CHUNK, Uplink(), seed=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.landed(0b11, 0.0, whole=True)

    plan.lost(0b01, 1.0)

    plan.reader_joined(B, shares=True, now_s=1.0)
    promised = told(plan.take_orders(1.0))
    assert promised
    assert not any(bits & 0b01 for bits in promised.values())
    plan.validate()
