from __future__ import annotations

from p2pdist.model.ids import digest_of
from p2pdist.registry_proxy.core.pauses import FIRST_S, MAX_S, Pauses

ONE, OTHER = digest_of(b"one"), digest_of(b"other")


def test_what_was_wrong_is_left_alone_for_a_while_each_time_longer() -> None:
    pauses, now_s, lasted = Pauses(), 100.0, []
    for _ in range(8):
        pauses.disproved(ONE, now_s)
        pause_s = FIRST_S
        while not pauses.over(ONE, now_s + pause_s):
            pause_s *= 2
        lasted.append(min(pause_s, MAX_S))
        assert not pauses.over(ONE, now_s + lasted[-1] - 0.01)
        assert pauses.over(ONE, now_s + lasted[-1])
        now_s += lasted[-1]

    assert lasted == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_nothing_else_waits() -> None:
    pauses = Pauses()
    pauses.disproved(ONE, 0.0)

    assert pauses.over(OTHER, 0.0)


def test_what_was_right_in_the_end_starts_anew() -> None:
    pauses = Pauses()
    pauses.disproved(ONE, 0.0)
    pauses.disproved(ONE, 0.0)
    pauses.proved(ONE)
    assert pauses.over(ONE, 0.0)
    pauses.disproved(ONE, 0.0)

    assert pauses.over(ONE, FIRST_S)
