"""The first of several deadlines."""

from __future__ import annotations

from p2pdist.model.deadlines import soonest


def test_those_that_there_are_not_do_not_count() -> None:
    assert soonest() is None
    assert soonest(None, None) is None
    assert soonest(None, 3.0, 0.0, None, 1.0) == 0.0
