"""Blobs whose map does not hold here, or no more: kept, because nothing says they are wrong.

A mistyped key, a rotation, another owner or a disk that refuses for a moment would otherwise cost
the whole store. The data counts again under the next map of its digest, chunk by chunk as the
hashes become known; what needs room may take theirs first.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.statements import Keyring
from p2pdist.process.files import OPEN_FLAGS
from p2pdist.store.blob import Blob, write_map

LOOKED_AT_ONCE: Final = 64
"""Maps, without a pause: one of 1 GiB has 65 records at least, which take some 10 us."""
NOT_BELIEVED: Final = "its map was signed by a key that is not believed any more"


@dataclass(frozen=True, slots=True)
class Aside:
    path: Path
    size_bytes: int
    why: str


async def not_signed_by(keyring: Keyring, blobs: Sequence[Blob]) -> AsyncIterator[Blob]:
    """Those whose map does not hold, as far as it was signed by keys that are not believed."""
    for number, blob in enumerate(blobs):
        if number % LOOKED_AT_ONCE == 0:
            await asyncio.sleep(0)
        if not blob.chunk_map.signed_by(keyring.knows):
            yield blob


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
