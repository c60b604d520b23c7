from __future__ import annotations

from p2pdist.control.core.questions import Questions


def questions(*until_s: float) -> Questions[str]:
    """Numbered from 1 on."""
    asked = Questions[str]()
    for seq, end_s in enumerate(until_s, 1):
        asked.ask(seq, f"question {seq}", end_s)
    asked.validate()
    return asked


def test_each_ends_when_its_own_time_is_over() -> None:
    asked = questions(3.0, 1.0, 2.0)

    ended = {now_s: asked.pop_due(now_s) for now_s in (0.9, 1.0, 2.5, 3.0, 9.0)}

    assert ended == {0.9: [], 1.0: [2], 2.5: [3], 3.0: [1], 9.0: []}
    asked.validate()
    assert not asked


def test_an_answered_one_ends_once_and_keeps_nobody_awake_for_long() -> None:
    asked = questions(1.0, 5.0)

    assert asked.pop(1) == ("question 1",)
    assert asked.pop(1) is None
    assert 1 not in asked
    assert asked.pop_due(1.0) == []
    assert asked.next_deadline_s() == 5.0


def test_all_end_together_and_nothing_is_due_then() -> None:
    asked = questions(1.0, 2.0)

    assert asked.pop_all() == [1, 2]
    assert asked.next_deadline_s() is None
    assert asked.pop_due(9.0) == []
