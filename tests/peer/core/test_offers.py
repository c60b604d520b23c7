from __future__ import annotations

from p2pdist.model.ids import HostId
from p2pdist.peer.core.offers import GRACE_S, STRIPE_CHUNKS, OfferPlan, OfferTo

A, B, C, FAR = (HostId(x * 32) for x in "abcd")


def told(orders: list[OfferTo], host: HostId) -> int:
    bits = 0
    for order in orders:
        if order.host == host:
            assert not bits & order.bits, "offered twice"
            bits |= order.bits
    return bits


def test_a_peer_offers_everything_to_everybody() -> None:
    plan = OfferPlan(spread=False)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)

    orders = plan.landed(0b111, 0.0)

    assert told(orders, A) == told(orders, B) == 0b111


def test_a_proxy_offers_a_fresh_chunk_to_one_reader_only() -> None:
    plan = OfferPlan(spread=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)
    everything = (1 << 4 * STRIPE_CHUNKS) - 1

    orders = plan.landed(everything, 0.0)

    assert told(orders, A) & told(orders, B) == 0
    assert told(orders, A) | told(orders, B) == everything
    assert told(orders, A).bit_count() == told(orders, B).bit_count()


def test_a_proxy_of_another_datacenter_is_offered_everything_at_once() -> None:
    plan = OfferPlan(spread=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(FAR, shares=False, now_s=0.0)

    assert told(plan.landed(0b1111, 0.0), FAR) == 0b1111


def test_what_a_reader_passes_on_is_not_offered_again() -> None:
    plan = OfferPlan(spread=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)
    plan.reader_joined(C, shares=True, now_s=0.0)
    plan.landed(0b1, 0.0)
    plan.reader_holds(A, 0b1)
    plan.reader_holds(B, 0b1)

    assert plan.handle_deadline(GRACE_S) == []


def test_what_only_its_first_reader_holds_is_offered_to_all_after_the_grace() -> None:
    """Without a tracker the readers do not know of each other."""
    plan = OfferPlan(spread=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)
    assert told(plan.landed(0b1, 0.0), A) == 0b1
    plan.reader_holds(A, 0b1)

    assert told(plan.handle_deadline(GRACE_S), B) == 0b1


def test_what_nobody_passes_on_is_offered_to_all_after_the_grace() -> None:
    plan = OfferPlan(spread=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)
    early = plan.landed(0b1, 0.0)
    assert plan.next_deadline_s() == GRACE_S

    late = plan.handle_deadline(GRACE_S)

    assert told(early, A) | told(late, A) == told(early, B) | told(late, B) == 0b1


def test_a_late_reader_is_offered_only_what_no_other_reader_holds() -> None:
    plan = OfferPlan(spread=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.landed(0b1111, 0.0)
    plan.reader_holds(A, 0b0011)
    plan.handle_deadline(GRACE_S)

    orders = plan.reader_joined(B, shares=True, now_s=GRACE_S + 1)

    assert told(orders, B) == 0b1100


def test_chunks_of_a_reader_that_left_go_to_the_others() -> None:
    plan = OfferPlan(spread=True)
    plan.reader_joined(A, shares=True, now_s=0.0)
    plan.reader_joined(B, shares=True, now_s=0.0)
    everything = (1 << 2 * STRIPE_CHUNKS) - 1
    early = plan.landed(everything, 0.0)

    late = plan.reader_left(A, 0.1)

    assert told(early, B) | told(late, B) == everything


def test_nothing_is_offered_of_a_dropped_map() -> None:
    plan = OfferPlan(spread=False)
    plan.landed(0b1, 0.0)

    plan.dropped()

    assert plan.reader_joined(A, shares=True, now_s=0.0) == []
