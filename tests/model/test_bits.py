"""Sets as bits of long integers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model import bits as model

sets = st.sets(st.integers(0, 3000), max_size=60) | st.builds(
    lambda first, count: set(range(first, first + count)),
    st.integers(0, 3000),
    st.integers(0, 1500),
)


def as_bits(indexes: set[int]) -> int:
    return sum(1 << i for i in indexes)


@given(sets, sets)
def test_they_are_what_the_sets_are(one: set[int], other: set[int]) -> None:
    bits = as_bits(one)

    assert model.without(bits, as_bits(other)) == as_bits(one - other)
    assert list(model.indexes(bits)) == sorted(one)
    assert model.count_of(bits) == len(one)
    if one:
        assert model.lowest(bits) == min(one)


@given(sets)
def test_ranges_are_as_long_as_they_can_be(one: set[int]) -> None:
    found = list(model.ranges(as_bits(one)))

    assert {i for first, count in found for i in range(first, first + count)} == one
    assert all(first + count < after for (first, count), (after, _) in pairwise(found))


@given(sets, st.integers(0, 4000))
def test_gaps_and_runs_are_found_from_anywhere(one: set[int], start: int) -> None:
    gap = next(i for i in range(start, 10_000) if i not in one)

    assert model.first_missing(as_bits(one), start) == gap
    assert model.run_length(as_bits(one), start, 700) == min(gap - start, 700)
    assert model.span(start, gap) == as_bits(set(range(start, gap)))
