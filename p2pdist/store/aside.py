"""Blobs of an earlier run whose map does not hold here: kept, because nothing says they are wrong.

A mistyped key, a rotation, another owner or a disk that refuses for a moment would otherwise cost
the whole store. The data counts again under the next map of its digest, chunk by chunk as the
hashes become known; what needs room may take theirs first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.process.files import OPEN_FLAGS
from p2pdist.store.blob import write_map


@dataclass(frozen=True, slots=True)
class Aside:
    path: Path
    size_bytes: int
    why: str


def look_aside(path: Path, why: str) -> Aside | None:
    """What is worth keeping at `path`; None: no data. Blocking."""
    try:
        return Aside(path, os.lstat(path / "data").st_size, why)
    except FileNotFoundError:
        return None
    except OSError:
        return Aside(path, 0, why)  # whoever may look into it knows


def reopen_files(path: Path, chunk_map: ChunkMap) -> ChunkSet:
    """Put the data at `path` under `chunk_map`; return the chunks that may be there.

    None may be if it has another length. Blocking; raises OSError.
    """
    size, count = chunk_map.geometry.size_bytes, chunk_map.geometry.chunk_count
    fd = os.open(path / "data", os.O_RDWR | OPEN_FLAGS)
    try:
        same = os.fstat(fd).st_size == size
        if not same:
            os.ftruncate(fd, size)
            os.posix_fallocate(fd, 0, size)
        (path / "bits").unlink(missing_ok=True)  # they speak of the old map
        write_map(path, chunk_map)
    finally:
        os.close(fd)
    return ChunkSet.full(count) if same else ChunkSet(count)
