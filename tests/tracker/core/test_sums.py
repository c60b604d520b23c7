from __future__ import annotations

import math

from p2pdist.tracker.core.sums import NAMES_MAX, Sums


def test_numbers_of_hosts_add_up_and_leave_with_them() -> None:
    sums = Sums()
    first = sums.replace({}, {"bytes": 5.0})
    sums.replace({}, {"bytes": 7.0})

    assert sums.totals == {"bytes": 12.0}
    sums.replace(first, {})
    assert sums.totals == {"bytes": 7.0}


def test_numbers_that_would_spoil_a_sum_are_left_out() -> None:
    sums = Sums()

    taken = sums.replace({}, {"a": math.nan, "b": math.inf, "c": 1e300, "D{}": 1.0, "e": 2.0})

    assert taken == {"e": 2.0}
    assert sums.totals == {"e": 2.0}


def test_the_number_of_names_is_bounded() -> None:
    sums = Sums()

    sums.replace({}, {f"n{i}": 1.0 for i in range(NAMES_MAX + 5)})

    assert len(sums.totals) == NAMES_MAX
