"""Which bytes of a blob may go out while it still arrives."""

from __future__ import annotations

from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import Geometry


def deliverable_end(
    geometry: Geometry, verified: ChunkSet, offset: int, *, sealed: bool, to_end: bool
) -> int:
    """The end of the bytes that may go out from `offset` on; `offset` itself if none may.

    The last chunk waits for the seal, so that a wrong blob never looks complete; so does all
    of a body that is not read `to_end`, which would look complete without that chunk.
    """
    stop = verified.first_missing(geometry.chunk_at(offset))
    if not sealed:
        stop = min(stop, geometry.chunk_count - 1) if to_end else 0
    return max(offset, min(stop * geometry.chunk_size_bytes, geometry.size_bytes))
