from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.geometry import (
    BLOB_SIZE_MAX_BYTES,
    CHUNK_COUNT_GOAL,
    CHUNK_SIZE_MAX_BYTES,
    geometry_for,
)

MIB = 1 << 20


@given(st.integers(1, 1 << 38))
def test_chunks_cover_the_blob_without_gap_or_overlap(size: int) -> None:
    geometry = geometry_for(size)
    last = geometry.chunk_count - 1

    assert geometry.offset(last) + geometry.length(last) == size
    assert geometry.chunk_at(geometry.offset(last)) == last
    assert 0 < geometry.length(last) <= geometry.chunk_size_bytes


@given(st.integers(0, BLOB_SIZE_MAX_BYTES))
def test_chunks_are_few_or_as_large_as_allowed(size: int) -> None:
    geometry = geometry_for(size)

    assert (
        geometry.chunk_count <= CHUNK_COUNT_GOAL
        or geometry.chunk_size_bytes == CHUNK_SIZE_MAX_BYTES
    )


@pytest.mark.parametrize(
    ("size", "chunk_size"),
    [(1, MIB // 4), (1024 * MIB, MIB // 4), (1024 * MIB + 1, MIB // 2), (1 << 40, 4 * MIB)],
)
def test_the_chunk_size_doubles_with_the_blob(size: int, chunk_size: int) -> None:
    assert geometry_for(size).chunk_size_bytes == chunk_size


def test_a_blob_of_one_chunk_is_single() -> None:
    assert geometry_for(MIB // 4).single
    assert not geometry_for(MIB // 4 + 1).single


def test_an_empty_blob_has_no_chunk() -> None:
    assert geometry_for(0).chunk_count == 0


@pytest.mark.parametrize("size", [-1, BLOB_SIZE_MAX_BYTES + 1])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        geometry_for(size)
