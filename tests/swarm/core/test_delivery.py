"""What may go out of a blob that still arrives, whatever is there of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import geometry_for
from p2pdist.swarm.core.delivery import deliverable_end

GEOMETRY = geometry_for(3 * (1 << 20) + 17)
COUNT = GEOMETRY.chunk_count
LAST_AT = GEOMETRY.offset(COUNT - 1)


@given(
    st.integers(0, (1 << COUNT) - 1),
    st.integers(0, GEOMETRY.size_bytes - 1),
    st.booleans(),
    st.booleans(),
)
def test_only_verified_bytes_go_out_and_never_a_whole_look_of_what_is_not_sealed(
    bits: int, offset: int, sealed: bool, to_end: bool
) -> None:
    verified = ChunkSet(COUNT, bits)
    end = deliverable_end(GEOMETRY, verified, offset, sealed=sealed, to_end=to_end)

    assert offset <= end <= GEOMETRY.size_bytes
    if end > offset:
        first, last = GEOMETRY.chunk_at(offset), GEOMETRY.chunk_at(end - 1)
        assert all(chunk in verified for chunk in range(first, last + 1))
    if not sealed:
        assert end == offset or (to_end and end <= LAST_AT)


def test_a_sealed_blob_goes_out_up_to_its_first_gap() -> None:
    verified = ChunkSet(COUNT, 0b1011)
    assert deliverable_end(GEOMETRY, verified, 100, sealed=True, to_end=False) == GEOMETRY.offset(2)


def test_a_whole_sealed_blob_goes_out_whole() -> None:
    verified = ChunkSet(COUNT, (1 << COUNT) - 1)
    end = deliverable_end(GEOMETRY, verified, 0, sealed=True, to_end=True)
    assert end == GEOMETRY.size_bytes
