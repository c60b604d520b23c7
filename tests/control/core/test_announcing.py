from __future__ import annotations

from random import Random

from p2pdist.control.core.announcing import (
    INVENTORY_SPREAD_INTERVALS,
    PROMPT_S,
    Announcing,
    announcements,
)
from p2pdist.model.control import DELTAS_MAX, Announce, Delta
from tests.tracker.hosts import key

INTERVAL_S = 10.0


def announcing(*, returning: bool = False, seed: int = 1) -> Announcing:
    """With a connection that has begun at 0 s."""
    made = Announcing(Random(seed))
    made.up(INTERVAL_S, 0.0, returning=returning)
    made.validate()
    return made


def some(count: int) -> list[Delta]:
    return [Delta(key(str(number)), 1, True) for number in range(count)]


def test_progress_waits_for_the_interval_and_only_the_newest_goes_out() -> None:
    made = announcing()
    for held_chunks in range(1, 500):
        made.note(Delta(key(), held_chunks, False), 0.1)

    assert made.changes(0.9 * INTERVAL_S - 0.001) == []
    assert made.changes(1.1 * INTERVAL_S) == [Announce([Delta(key(), 499, False)])]
    assert made.changes(9 * INTERVAL_S) == []


def test_a_complete_blob_and_a_retraction_do_not_wait_but_for_each_other() -> None:
    for delta in (Delta(key("a"), 8, True), Delta(key("a"), 0, False)):
        made = announcing()
        made.note(Delta(key("b"), 3, False), 0.1)
        made.note(delta, 0.2)
        made.note(Delta(key("c"), 8, True), 0.2 + PROMPT_S / 2)

        assert made.changes(0.2 + PROMPT_S / 2) == []
        assert made.next_deadline_s() == 0.0, "the inventory"
        assert made.inventory_due(0.2)
        assert made.next_deadline_s() == 0.2 + PROMPT_S
        (announce,) = made.changes(0.2 + PROMPT_S)
        assert [change.key for change in announce.deltas] == [key("b"), key("a"), key("c")]
        next_s = made.next_deadline_s()
        assert next_s is not None
        assert next_s > 0.9 * INTERVAL_S


def test_the_first_connection_gives_the_inventory_at_once_and_later_ones_spread_it() -> None:
    assert announcing().inventory_due(0.0)
    spread_s = INVENTORY_SPREAD_INTERVALS * INTERVAL_S

    counts = [
        sum(
            announcing(returning=True, seed=seed).inventory_due(share * spread_s)
            for seed in range(200)
        )
        for share in (0.0, 0.5, 1.0)
    ]

    assert counts[0] == 0
    assert 60 < counts[1] < 140
    assert counts[2] == 200


def test_the_inventory_goes_batch_by_batch() -> None:
    made, held = announcing(), some(2 * DELTAS_MAX + 1)
    assert made.inventory_due(0.0)
    assert not made.inventory_due(99.0)

    sent = [made.inventory(held)]
    while made.has_batch:
        made.validate()
        batch = made.next_batch()
        assert batch is not None
        sent.append(batch)

    assert [announce.full for announce in sent] == [True, False, False]
    assert [delta for announce in sent for delta in announce.deltas] == held
    assert made.next_batch() is None


def test_nothing_is_kept_over_a_lost_connection() -> None:
    made = announcing()
    assert made.inventory_due(0.0)
    made.inventory(some(DELTAS_MAX + 1))
    made.note(Delta(key(), 8, True), 0.1)

    made.down()
    made.note(Delta(key(), 0, False), 0.1)
    made.validate()

    assert made.next_deadline_s() is None
    assert made.changes(99.0) == []
    assert made.next_batch() is None


def test_an_announcement_is_cut_at_what_a_message_may_carry() -> None:
    assert announcements([]) == []
    lengths = [len(announce.deltas) for announce in announcements(some(DELTAS_MAX + 1))]
    assert lengths == [DELTAS_MAX, 1]
