"""With which peers a blob is exchanged once there are more than enough."""

from __future__ import annotations

from p2pdist.model.ids import HostId
from p2pdist.model.members import Distance
from p2pdist.swarm.core.circle import CIRCLE_MAX, IDLE_S, Admission, Circle


def host(n: int) -> HostId:
    return HostId(f"{n:032x}")


def full(now_s: float = 0.0, *, far: int = -1) -> Circle:
    circle = Circle()
    for n in range(CIRCLE_MAX):
        circle.admit(host(n), Distance.DC if n == far else Distance.RACK, now_s)
    return circle


def test_all_are_admitted_while_there_is_room_and_a_member_always() -> None:
    circle = full()

    assert len(circle) == CIRCLE_MAX
    assert circle.admit(host(3), Distance.RACK, 1.0) == Admission(True)


def test_a_newcomer_is_turned_away_while_all_are_of_use() -> None:
    circle = full()

    assert circle.admit(host(99), Distance.RACK, IDLE_S - 0.1) == Admission(False)
    assert len(circle) == CIRCLE_MAX


def test_the_farthest_of_those_that_are_of_no_use_makes_room() -> None:
    circle = full(far=7)
    circle.used(host(0), 5.0)

    assert circle.admit(host(99), Distance.DC, IDLE_S) == Admission(True, host(7))
    assert len(circle) == CIRCLE_MAX


def test_who_gave_or_took_something_lately_stays() -> None:
    circle = full()
    for n in range(CIRCLE_MAX):
        if n != 20:
            circle.used(host(n), IDLE_S)

    assert circle.admit(host(99), Distance.DC, IDLE_S + 1) == Admission(True, host(20))
    assert circle.admit(host(98), Distance.DC, IDLE_S + 1) == Admission(False)


def test_a_member_that_leaves_makes_room() -> None:
    circle = full()
    circle.left(host(1))

    assert circle.admit(host(99), Distance.DC, 0.1) == Admission(True)
