"""When a proxy is asked who else reads a blob: where no tracker says so, and ever more seldom."""

from __future__ import annotations

from random import Random

from p2pdist.swarm.core.inquiry import (
    AGAIN_FIRST_S,
    AGAIN_MAX_S,
    SPREAD_S,
    TRACKER_ANSWERS_S,
    Inquiry,
)
from tests.swarm.core.hosts import link_to

PROXY = link_to("f")


def due_s(inquiry: Inquiry, *, tracker_up: bool) -> float:
    due_s = inquiry.due_s(tracker_up=tracker_up)
    assert due_s is not None
    return due_s


def test_without_a_tracker_it_is_asked_at_once() -> None:
    inquiry = Inquiry(Random(1))
    inquiry.sought(7.0)

    assert due_s(inquiry, tracker_up=False) <= 7.0


def test_a_tracker_that_answers_leaves_nothing_to_ask() -> None:
    inquiry = Inquiry(Random(1))
    inquiry.sought(7.0)
    inquiry.named()

    assert inquiry.due_s(tracker_up=True) is None


def test_a_tracker_that_does_not_answer_is_waited_for_only_so_long() -> None:
    inquiry = Inquiry(Random(1))
    inquiry.sought(7.0)
    inquiry.sought(7.5)  # asked again: it is the first answer that stays away

    assert due_s(inquiry, tracker_up=True) == 7.0 + TRACKER_ANSWERS_S


def test_when_the_tracker_dies_they_do_not_all_ask_at_once() -> None:
    asked_s = set[float]()
    for seed in range(20):
        inquiry = Inquiry(Random(seed))
        inquiry.named()
        inquiry.tracker_moved(5.0, up=False)
        asked_s.add(due_s(inquiry, tracker_up=False))

    assert len(asked_s) == 20
    assert 5.0 <= min(asked_s) < max(asked_s) <= 5.0 + SPREAD_S


def test_a_tracker_that_is_back_is_waited_for_first() -> None:
    inquiry = Inquiry(Random(1))
    inquiry.sought(1.0)
    inquiry.tracker_moved(20.0, up=True)

    assert due_s(inquiry, tracker_up=True) == 20.0 + TRACKER_ANSWERS_S
    inquiry.named()
    assert inquiry.due_s(tracker_up=True) is None


def test_who_asks_again_waits_longer_each_time() -> None:
    inquiry, now_s, pauses = Inquiry(Random(1)), 0.0, list[float]()
    for _ in range(12):
        inquiry.looked(now_s, PROXY)
        pauses.append(due_s(inquiry, tracker_up=False) - now_s)
        now_s += pauses[-1]

    assert AGAIN_FIRST_S / 2 <= pauses[0] <= AGAIN_FIRST_S
    assert pauses[3] > 2 * pauses[0]
    assert AGAIN_MAX_S / 2 <= pauses[-1] <= AGAIN_MAX_S


def test_a_proxy_that_was_not_there_before_is_asked_at_once() -> None:
    inquiry = Inquiry(Random(1))
    inquiry.looked(3.0, None)
    inquiry.linked(3.01)

    assert due_s(inquiry, tracker_up=False) == 3.01


def test_one_answer_counts_of_the_one_who_was_asked() -> None:
    inquiry = Inquiry(Random(1))
    inquiry.looked(1.0, PROXY)
    assert not inquiry.answered(link_to("e"))

    assert inquiry.answered(PROXY)
    assert not inquiry.answered(PROXY)
