from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.chunkset import ChunkSet


@st.composite
def chunk_sets(draw: st.DrawFn) -> ChunkSet:
    count = draw(st.integers(1, 300))
    return ChunkSet(count, draw(st.integers(0, (1 << count) - 1)))


@given(chunk_sets())
def test_ranges_are_ascending_disjoint_and_complete(chunks: ChunkSet) -> None:
    ranges = list(chunks.ranges())

    assert ChunkSet.from_ranges(chunks.chunk_count, ranges) == chunks
    stops = [first + count for first, count in ranges]
    assert all(stop < first for stop, (first, _) in zip(stops, ranges[1:], strict=False))


@given(chunk_sets())
def test_bytes_read_back(chunks: ChunkSet) -> None:
    assert ChunkSet.from_bytes(chunks.chunk_count, chunks.to_bytes()) == chunks


@given(chunk_sets(), st.integers(0, 300))
def test_first_missing_is_the_lowest_that_is_not_there(chunks: ChunkSet, start: int) -> None:
    start = min(start, chunks.chunk_count)
    missing = [i for i in range(start, chunks.chunk_count) if i not in chunks]

    assert chunks.first_missing(start) == (missing[0] if missing else chunks.chunk_count)


@given(chunk_sets())
def test_iteration_and_length_agree(chunks: ChunkSet) -> None:
    assert len(list(chunks)) == len(chunks)
    assert chunks.complete == (len(chunks) == chunks.chunk_count)


@pytest.mark.parametrize("ranges", [[(-1, 2)], [(0, 0)], [(3, 9)], [(0, -1)], [(11, 1)]])
def test_ranges_outside_of_the_blob_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="outside"):
        ChunkSet.from_ranges(10, ranges)


def test_bits_beyond_the_last_chunk_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond"):
        ChunkSet.from_bytes(3, b"\xff")


def test_adding_and_discarding() -> None:
    chunks = ChunkSet(4)
    chunks.add(2)
    chunks.add(3)
    chunks.discard(2)

    assert list(chunks) == [3]
