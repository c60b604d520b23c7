from __future__ import annotations

from p2pdist.model.ids import HostId
from p2pdist.swarm.core.relays import SHOWN_S, RelayPlan, RelayTo

A, B = HostId("a" * 32), HostId("b" * 32)


class Holdings:
    """What readers offered."""

    def __init__(self) -> None:
        self.bits: dict[HostId, int] = {}

    def any_of(self, host: HostId, bits: int) -> bool:
        return bool(self.bits.get(host, 0) & bits)


def plan_of(*readers: HostId, authority: bool = False) -> tuple[RelayPlan, Holdings]:
    holdings = Holdings()
    plan = RelayPlan(authority=authority, holds_any=holdings.any_of)
    for reader in readers:
        plan.joined(reader)
    return plan, holdings


def test_who_may_hear_of_it_from_us_alone_is_told_at_once() -> None:
    plan, _ = plan_of(A)

    assert plan.relay(b"hashes", 0b1, 0.0) == [RelayTo(A, b"hashes")]
    assert plan.next_deadline_s() is None


def test_who_hears_of_the_map_elsewhere_has_time_to_show_that_it_knows() -> None:
    plan, holdings = plan_of(A, B)
    plan.heard_from(A)
    assert plan.relay(b"hashes", 0b11, 1.0) == [RelayTo(B, b"hashes")]
    holdings.bits[A] = 0b10

    assert plan.next_deadline_s() == 1.0 + SHOWN_S
    assert plan.handle_deadline(1.0 + SHOWN_S) == []
    assert plan.next_deadline_s() is None


def test_who_does_not_show_it_is_told_after_all() -> None:
    plan, holdings = plan_of(A)
    plan.heard_from(A)
    plan.relay(b"one", 0b01, 1.0)
    plan.relay(b"two", 0b10, 1.1)
    holdings.bits[A] = 0b10

    assert plan.handle_deadline(1.0 + SHOWN_S) == [RelayTo(A, b"one")]
    assert plan.handle_deadline(1.1 + SHOWN_S) == []


def test_an_authority_tells_everybody_at_once() -> None:
    plan, _ = plan_of(A, authority=True)
    plan.heard_from(A)

    assert plan.relay(b"hashes", 0b1, 0.0) == [RelayTo(A, b"hashes")]
    assert plan.next_deadline_s() is None


def test_nothing_is_told_to_who_left_nor_of_a_map_that_is_gone() -> None:
    plan, _ = plan_of(A, B)
    plan.heard_from(A)
    plan.heard_from(B)
    plan.relay(b"old", 0b1, 0.0)
    plan.dropped()
    plan.relay(b"hashes", 0b1, 0.0)
    plan.left(A)

    assert plan.handle_deadline(SHOWN_S) == [RelayTo(B, b"hashes")]
