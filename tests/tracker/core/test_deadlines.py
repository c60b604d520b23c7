from __future__ import annotations

from p2pdist.tracker.core.deadlines import Deadlines


def test_keys_fall_due_in_the_order_of_their_last_touch() -> None:
    deadlines: Deadlines[str] = Deadlines(10.0)
    deadlines.touch("a", 0.0)
    deadlines.touch("b", 1.0)
    deadlines.touch("a", 2.0)

    assert deadlines.next_s() == 11.0
    assert deadlines.pop_due(11.5) == ["b"]
    assert deadlines.pop_due(12.0) == ["a"]
    assert deadlines.next_s() is None


def test_a_dropped_key_never_falls_due() -> None:
    deadlines: Deadlines[str] = Deadlines(1.0)
    deadlines.touch("a", 0.0)

    deadlines.drop("a")

    assert deadlines.pop_due(5.0) == []
    assert "a" not in deadlines
