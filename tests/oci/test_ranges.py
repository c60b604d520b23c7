from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.ranges import Full, Multi, Partial, RangeAnswer, Unsatisfiable, parse_range

ETAG = '"sha256:x"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Full()),
        ("bytes=500-1499", Partial(500, 1500)),
        ("bytes=500-", Partial(500, 2048)),
        ("bytes=-500", Partial(1548, 2048)),
        ("bytes=2000-5000", Partial(2000, 2048)),
        ("bytes=500-0", Unsatisfiable()),
        ("bytes=5000-10000", Unsatisfiable()),
        ("bytes=2048-", Unsatisfiable()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=0-1,4-5", Multi()),
        ("bytes=0-", Partial(0, 2048)),
        ("items=0-1", Full()),
        ("BYTES = 0-1", Partial(0, 2)),
        ("bytes=, 0-1 ,", Partial(0, 2)),
        ("bytes=", Full()),
        ("bytes=-", Full()),
        ("bytes=1-2x", Full()),
        ("bytes=\u0661-", Full()),
        ("bytes=0-" + "9" * 5000, Partial(0, 2048)),
        ("bytes=" + "9" * 5000 + "-", Unsatisfiable()),
        ("bytes=-" + "9" * 5000, Partial(0, 2048)),
        ("bytes=" + "0" * 5000 + "1-", Partial(1, 2048)),
    ],
)
def test_ranges_of_2048_bytes(header: str | None, expected: RangeAnswer) -> None:
    assert parse_range(header, None, ETAG, 2048) == expected


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-5", "bytes=5-9"])
def test_an_empty_blob_has_no_parts(header: str) -> None:
    assert parse_range(header, None, ETAG, 0) == Full()


@pytest.mark.parametrize(
    ("if_range", "expected"),
    [
        (ETAG, Partial(0, 1)),
        ('"other"', Full()),
        (f"W/{ETAG}", Full()),
        ("Wed, 21 Oct 2015 07:28:00 GMT", Full()),
    ],
)
def test_if_range(if_range: str, expected: RangeAnswer) -> None:
    assert parse_range("bytes=0-0", if_range, ETAG, 10) == expected


def test_if_range_comes_before_satisfiability() -> None:
    assert parse_range("bytes=99-", '"other"', ETAG, 10) == Full()


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200))
def test_a_part_is_what_a_slice_would_give(first: int, last: int, size: int) -> None:
    answer = parse_range(f"bytes={first}-{last}", None, ETAG, size)
    wanted = range(size)[first : last + 1]
    if wanted:
        assert answer == Partial(wanted.start, wanted.stop)
    else:
        assert answer == Unsatisfiable()


@given(st.text(max_size=40), st.integers(0, 1000))
def test_any_header_gives_an_answer_inside_of_the_blob(header: str, size: int) -> None:
    answer = parse_range(f"bytes={header}", None, ETAG, size)
    if isinstance(answer, Partial):
        assert 0 <= answer.start < answer.stop <= size
