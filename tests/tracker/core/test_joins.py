"""Tokens at a tracker: each as often as it says, only its own, no more tries than it can take."""

from __future__ import annotations

import pytest

from p2pdist.model.ids import HostId
from p2pdist.model.joining import Token
from p2pdist.tracker.core import joins
from p2pdist.tracker.core.joins import (
    CONNECTIONS_AT_ONCE,
    CONNECTIONS_MAX,
    CONNECTIONS_OF_ONE_MAX,
    JoinDesk,
    Use,
)

NAME = "tracker-1:5201"


def token(
    number: int = 1, *, tracker: str = NAME, ends_s: int = 100, uses: int = 1, host_id: str = ""
) -> Token:
    return Token(tracker, bytes(32), number.to_bytes(16), "peer", host_id, ends_s, uses)


def key(number: int) -> bytes:
    return number.to_bytes(32)


def host(number: int) -> HostId:
    return HostId(number.to_bytes(16).hex())


def used(desk: JoinDesk, of: Token, number: int, unix_s: float = 1.0) -> HostId | str:
    """Who the host with this key is, or why it does not get in."""
    use = desk.use(of, key(number), host(number), unix_s)
    return use if isinstance(use, str) else use.host_id


def test_a_token_is_used_once() -> None:
    desk = JoinDesk(NAME, 0.0)
    assert used(desk, token(), 1) == host(1)
    assert "used before" in used(desk, token(), 2)
    assert used(desk, token(2), 2) == host(2)


def test_a_token_of_several_uses_lets_so_many_hosts_in() -> None:
    desk = JoinDesk(NAME, 0.0)
    many = token(uses=3)
    assert [used(desk, many, n) for n in range(3)] == [host(n) for n in range(3)]
    assert used(desk, many, 4) == "the token was used before, by 3 hosts: it is good for no more"
    assert desk.used(many) == 3


def test_who_asks_again_is_the_same_host_and_takes_no_further_use() -> None:
    desk = JoinDesk(NAME, 0.0)
    many = token(uses=2)
    desk.use(many, key(1), host(1), 1.0)
    again = desk.use(many, key(1), host(9), 2.0)
    assert again == Use(many.id, key(1), host(1), 100)
    assert used(desk, many, 2) == host(2)
    assert "used before" in used(desk, many, 3)
    assert used(desk, many, 1) == host(1), "also when it is used up"
    assert "has ended" in used(desk, many, 1, 100.0)
    assert used(desk, token(2), 1) == host(1), "another token is another question"


def test_a_host_id_is_the_tokens_or_a_fresh_one() -> None:
    desk = JoinDesk(NAME, 0.0)
    assert used(desk, token(host_id="a" * 32), 1) == "a" * 32


def test_a_token_for_another_tracker_and_one_that_has_ended_are_refused_unused() -> None:
    desk = JoinDesk(NAME, 0.0)
    assert "for the tracker other:1" in used(desk, token(tracker="other:1"), 1)
    assert "has ended" in used(desk, token(), 1, 100.0)
    assert used(desk, token(), 1, 99.0) == host(1)


def test_what_was_used_before_a_start_stays_so_until_it_ends_anyhow() -> None:
    desk = JoinDesk(NAME, 0.0)
    many = token(2, uses=2, ends_s=90)
    desk.restore([Use(token().id, b"", HostId(""), 100), Use(many.id, key(1), host(1), 90)])
    assert "used before" in used(desk, token(), 1, 89.0)
    assert used(desk, many, 1, 89.0) == host(1)
    assert used(desk, many, 2, 89.0) == host(2)
    assert "used before" in used(desk, many, 3, 89.0)
    assert desk.forget(89.0) == []
    assert desk.forget(90.0) == [many.id]
    assert desk.forget(100.0) == [token().id]
    assert "has ended" in used(desk, token(), 1, 100.0)


def test_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joins, "USES_KEPT_MAX", 3)
    desk = JoinDesk(NAME, 0.0)
    many = token(uses=2)
    assert [used(desk, many, n) for n in range(2)] == [host(0), host(1)]
    assert used(desk, token(2), 1) == host(1)
    assert "too many" in used(desk, token(4), 1)
    assert used(desk, many, 1) == host(1), "no further one"
    assert used(desk, token(5, ends_s=300), 7, 200.0) == host(7)
    assert [used(desk, token(n, ends_s=300), 7, 200.0) for n in (6, 7)] == [host(7)] * 2
    assert "too many" in used(desk, token(8, ends_s=300), 7, 200.0)


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
