"""Whose certificate a tracker signs anew: who shows one of ours, in time, one by one, so many."""

from __future__ import annotations

from p2pdist.model.ids import HostId
from p2pdist.tracker.core.renewals import (
    BUSY_RETRY_S,
    HOST_PAUSE_S,
    SIGNED_AT_ONCE,
    SIGNED_PER_S,
    Refusal,
    RenewalDesk,
    Shown,
)

DAY_S = 86400.0
DUE_S = 20 * DAY_S


def shown(number: int = 1) -> Shown:
    return Shown(HostId(f"{number:032x}"), 0.0, 30 * DAY_S)


def ask(
    desk: RenewalDesk, number: int = 1, *, now_s: float = 0.0, unix_s: float = DUE_S
) -> Refusal | None:
    return desk.ask(shown(number), now_s=now_s, unix_s=unix_s)


def reason(refusal: Refusal | None) -> str:
    assert refusal is not None
    return refusal.reason


def test_one_at_a_time_and_then_a_pause() -> None:
    desk = RenewalDesk(0.0)
    assert ask(desk) is None
    assert "just now" in reason(ask(desk))
    assert ask(desk, 2) is None
    assert desk.signing == 2

    desk.done(shown(), signed=True, now_s=1.0)
    assert "just now" in reason(ask(desk, now_s=2.0))
    assert ask(desk, now_s=2.0 + HOST_PAUSE_S) is None


def test_one_that_came_to_nothing_may_be_tried_again() -> None:
    desk = RenewalDesk(0.0)
    assert ask(desk) is None
    desk.done(shown(), signed=False, now_s=1.0)
    assert ask(desk, now_s=1.0) is None


def test_neither_too_early_nor_too_late() -> None:
    desk = RenewalDesk(0.0)
    early = ask(desk, unix_s=10 * DAY_S)
    assert early is not None
    assert early.retry_s == 5 * DAY_S
    assert "has ended" in reason(ask(desk, unix_s=30 * DAY_S))
    assert desk.signing == 0


def test_so_many_a_second_and_the_rest_later() -> None:
    desk = RenewalDesk(0.0)
    refused = [refusal for n in range(1000) if (refusal := ask(desk, n)) is not None]
    assert 1000 - len(refused) == SIGNED_AT_ONCE
    assert {refusal.retry_s for refusal in refused} == {BUSY_RETRY_S}
    later = [n for n in range(1000, 2000) if ask(desk, n, now_s=1.0) is None]
    assert SIGNED_PER_S - 1 <= len(later) <= SIGNED_PER_S + 1


def test_a_short_life_has_a_short_pause() -> None:
    desk, brief = RenewalDesk(0.0), Shown(HostId("a" * 32), 0.0, 100.0)
    assert desk.ask(brief, now_s=0.0, unix_s=60.0) is None
    desk.done(brief, signed=True, now_s=0.0)
    assert desk.ask(brief, now_s=4.0, unix_s=60.0) is not None
    assert desk.ask(brief, now_s=6.0, unix_s=60.0) is None
