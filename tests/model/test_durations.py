from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.durations import DURATION_BOUNDS_S, bucket_of


def test_bounds_grow() -> None:
    assert list(DURATION_BOUNDS_S) == sorted(set(DURATION_BOUNDS_S))


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0, 0), (0.005, 0), (0.0051, 1), (600, 13), (601, 14)]
)
def test_an_upper_end_belongs_to_its_bucket(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket


@given(st.floats(0, 1e6))
def test_every_duration_lies_within_its_bucket(seconds: float) -> None:
    ends = (-1.0, *DURATION_BOUNDS_S, float("inf"))
    bucket = bucket_of(seconds)

    assert ends[bucket] < seconds <= ends[bucket + 1]
