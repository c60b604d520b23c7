from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.bits import indexes as each
from p2pdist.swarm.core.tally import Tally

SETS = st.lists(st.integers(0, (1 << 70) - 1), max_size=20)


def counted(sets: list[int]) -> Counter[int]:
    return Counter(chunk for bits in sets for chunk in each(bits))


@given(SETS, st.integers(1, 25))
def test_at_least_agrees_with_counting_one_by_one(sets: list[int], count: int) -> None:
    tally = Tally()
    for bits in sets:
        tally.add(bits)

    assert set(each(tally.at_least(count))) == {c for c, n in counted(sets).items() if n >= count}


@given(SETS, st.integers(0, (1 << 70) - 1))
def test_the_fewest_are_those_with_the_lowest_count(sets: list[int], among: int) -> None:
    tally = Tally()
    for bits in sets:
        tally.add(bits)

    counts = {chunk: counted(sets)[chunk] for chunk in each(among)}
    lowest = min(counts.values(), default=0)
    assert set(each(tally.fewest(among))) == {c for c, n in counts.items() if n == lowest}


@given(SETS, st.data())
def test_what_is_taken_out_counts_no_more(sets: list[int], data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(sets), max_size=len(sets)))
    tally = Tally()
    for bits in sets:
        tally.add(bits)
    for bits, keep in zip(sets, kept, strict=True):
        if not keep:
            tally.remove(bits)

    left = counted([bits for bits, keep in zip(sets, kept, strict=True) if keep])
    for count in range(1, 22):
        assert set(each(tally.at_least(count))) == {c for c, n in left.items() if n >= count}


def test_taking_out_what_is_not_in_is_a_fault_of_ours() -> None:
    tally = Tally()
    tally.add(0b01)

    with pytest.raises(AssertionError):
        tally.remove(0b11)
