"""At whom to look when there is something to plan."""

from __future__ import annotations

from p2pdist.model.ids import HostId
from p2pdist.swarm.core.attention import TURN, Attention

HOSTS = [HostId(f"{i:032x}") for i in range(4 * TURN)]


def among(hosts: list[HostId]) -> Attention:
    """As it is once all of them were looked at."""
    attention = Attention()
    for host in hosts:
        attention.came(host)
    attention.call_all()
    attention.take()
    return attention


def test_who_was_heard_of_is_looked_at_first_and_others_in_turn() -> None:
    attention = among(HOSTS)
    attention.call(HOSTS[-1])

    assert list(attention.take()) == [HOSTS[-1], *HOSTS[:TURN]]
    assert list(attention.take()) == HOSTS[TURN : 2 * TURN]


def test_all_have_their_turn() -> None:
    attention = among(HOSTS)

    looked = {host for _ in range(4) for host in attention.take()}

    assert looked == set(HOSTS)


def test_what_changed_for_all_has_all_looked_at_once() -> None:
    attention = among(HOSTS)
    attention.call_all()

    assert len(list(attention.take())) == len(HOSTS)
    assert len(list(attention.take())) == TURN


def test_one_that_leaves_is_not_looked_at_and_all_others_may_be_asked_instead() -> None:
    attention = among(HOSTS)
    attention.call(HOSTS[0])
    attention.left(HOSTS[0])
    attention.call(HOSTS[0])

    assert set(attention.take()) == set(HOSTS[1:])
    attention.validate(HOSTS[1:])
