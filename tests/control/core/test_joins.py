from __future__ import annotations

import pytest

from p2pdist.control.core import joins as module
from p2pdist.control.core.joins import Joins
from p2pdist.model.control import Delta, Handout
from tests.tracker.hosts import key


def joined(*names: str, member: bool = True) -> Joins:
    joins = Joins()
    for seq, name in enumerate(names, 1):
        joins.join(seq, key(name), member=member, exclude=())
    joins.validate()
    return joins


def test_a_member_that_asks_again_stays_one_and_asks_under_the_newer_number() -> None:
    joins = joined("a")

    again = joins.join(2, key("a"), member=False, exclude=["somebody"])

    assert (again.seq, again.member, again.exclude) == (2, True, ["somebody"])
    assert joins.joins() == [again]


def test_who_only_asked_is_forgotten_with_the_answer() -> None:
    joins = joined("a", member=False)
    joins.join(2, key("a"), member=False, exclude=())

    joins.answered(Handout(1, key("a"), []))
    assert len(joins) == 1, "that was the answer to the older question"
    joins.answered(Handout(2, key("a"), []))
    joins.answered(Handout(2, key("a"), []))

    assert not joins.joins()


def test_a_member_outlives_its_answers() -> None:
    joins = joined("a")

    joins.answered(Handout(1, key("a"), []))

    assert len(joins) == 1


def test_what_is_held_is_kept_of_the_swarms_that_the_host_is_in() -> None:
    joins = joined("a", "b")
    joins.note(Delta(key("a"), 1, False))
    joins.note(Delta(key("a"), 2, False))
    joins.note(Delta(key("elsewhere"), 3, False))
    joins.join(3, key("a"), member=True, exclude=())

    assert joins.held() == [Delta(key("a"), 2, False)]
    assert joins.leave(key("a"))
    assert not joins.leave(key("a"))
    assert joins.held() == []


def test_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOINS_MAX", 2)

    joins = joined("a", "b", "c")

    assert [join.key for join in joins.joins()] == [key("b"), key("c")]
