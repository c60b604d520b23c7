from __future__ import annotations

from p2pdist.model.seldom import EVERY_S, KEYS_MAX, Seldom


def test_what_goes_on_is_said_once_a_minute_with_how_often() -> None:
    seldom: Seldom[str] = Seldom()

    said = [seldom.happened("down", at_s) for at_s in (0.0, 1.0, 2.0, EVERY_S, EVERY_S + 1)]

    assert said == [1, 0, 0, 3, 0]


def test_one_thing_does_not_silence_another() -> None:
    seldom: Seldom[str] = Seldom()

    assert [seldom.happened(key, 0.0) for key in ("down", "denied", "down")] == [1, 1, 0]


def test_keys_that_others_make_up_are_bounded() -> None:
    seldom: Seldom[int] = Seldom()

    for key in range(KEYS_MAX + 1):
        seldom.happened(key, 0.0)

    assert seldom.happened(0, 0.0) == 1
