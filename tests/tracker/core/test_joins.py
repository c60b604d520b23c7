"""Tokens at a tracker: each once, only its own, and never more tries than it has time for."""

from __future__ import annotations

import pytest

from p2pdist.model.joining import Token
from p2pdist.tracker.core import joins
from p2pdist.tracker.core.joins import (
    CONNECTIONS_AT_ONCE,
    CONNECTIONS_MAX,
    CONNECTIONS_OF_ONE_MAX,
    JoinDesk,
)

NAME = "tracker-1:5201"


def token(number: int = 1, *, tracker: str = NAME, ends_s: int = 100) -> Token:
    return Token(tracker, bytes(32), number.to_bytes(16), "peer", "", ends_s)


def test_a_token_is_spent_once() -> None:
    desk = JoinDesk(NAME, 0.0)
    assert desk.spend(token(), 1.0) == ""
    assert "used before" in desk.spend(token(), 2.0)
    assert desk.spend(token(2), 2.0) == ""


def test_a_token_for_another_tracker_and_one_that_has_ended_are_refused_unspent() -> None:
    desk = JoinDesk(NAME, 0.0)
    assert "for the tracker other:1" in desk.spend(token(tracker="other:1"), 1.0)
    assert "has ended" in desk.spend(token(), 100.0)
    assert desk.spend(token(), 99.0) == ""


def test_what_was_spent_before_a_start_stays_so_until_it_ends_anyhow() -> None:
    desk = JoinDesk(NAME, 0.0)
    desk.restore([(token().id, 100)])
    assert "used before" in desk.spend(token(), 99.0)
    assert desk.forget(99.0) == []
    assert desk.forget(100.0) == [token().id]
    assert "has ended" in desk.spend(token(), 100.0)


def test_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joins, "SPENT_MAX", 3)
    desk = JoinDesk(NAME, 0.0)
    assert [desk.spend(token(n), 1.0) for n in range(3)] == ["", "", ""]
    assert "too many" in desk.spend(token(4), 1.0)
    assert desk.spend(token(5, ends_s=300), 200.0) == ""


def test_connections_have_limits() -> None:
    desk = JoinDesk(NAME, 0.0)
    took = [desk.arrive("10.0.0.1", 0.0) for _ in range(CONNECTIONS_OF_ONE_MAX + 1)]
    assert took == [True] * CONNECTIONS_OF_ONE_MAX + [False]
    desk.leave("10.0.0.1")
    assert desk.arrive("10.0.0.1", 0.0)

    desk = JoinDesk(NAME, 0.0)
    assert sum(desk.arrive(f"10.0.1.{n}", 0.0) for n in range(200)) == CONNECTIONS_AT_ONCE
    assert sum(desk.arrive(f"10.0.2.{n}", 60.0) for n in range(200)) == (
        CONNECTIONS_MAX - CONNECTIONS_AT_ONCE
    )
