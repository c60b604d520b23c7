"""Opens layers of an image: by the index that a proxy signed, or by one made here of all bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import zstandard

from p2pdist.model.ids import Digest
from p2pdist.streaming.building import GROWTH_FREE_BYTES, GROWTH_MAX, IndexBuilder
from p2pdist.streaming.core.index import LayerIndex, decode_index
from p2pdist.streaming.core.tar import UnfitLayer
from p2pdist.streaming.unzstd import MAGIC_BYTES, is_zstd

READ_BYTES: Final = 1 << 20


def believed_index(
    body: bytes, *, layer: Digest, size_bytes: int, diff_id: Digest
) -> LayerIndex | None:
    """Return an index if it is of this layer, and of the archive that the image's config names."""
    try:
        index = decode_index(body)
    except UnfitLayer:
        return None
    same = index.blob == layer and index.diff_id == diff_id
    return index if same and index.blob_bytes == size_bytes else None


def index_of_file(path: Path, *, layer: Digest, diff_id: Digest) -> tuple[LayerIndex, Path]:
    """Read all of a layer at `path` and return its index, and where the bytes lie that it is of.

    Blocking. What is compressed with zstd is unpacked first, and the file replaced. Raises
    UnfitLayer, OSError.
    """
    path = _without_zstd(path)
    builder = IndexBuilder(layer)
    try:
        with path.open("rb") as file:
            while data := file.read(READ_BYTES):
                builder.feed(data)
        index = builder.finish()
    finally:
        builder.close()
    if index.diff_id != diff_id:
        raise UnfitLayer("it is not the archive that the config names")
    return index, path


def _without_zstd(path: Path) -> Path:
    """zstd mostly has no places to begin at: such a layer is unpacked as a whole."""
    with path.open("rb") as file:
        if not is_zstd(file.read(MAGIC_BYTES)):
            return path
        file.seek(0)
        plain = path.with_suffix(".tar")
        limit = GROWTH_FREE_BYTES + GROWTH_MAX * os.fstat(file.fileno()).st_size
        with plain.open("xb") as out, _zstd_errors():
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while data := reader.read(READ_BYTES):
                out.write(data)
                if out.tell() > limit:
                    raise UnfitLayer(f"it inflates to more than {limit} bytes")
    path.unlink()
    return plain


class _zstd_errors:  # a context
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, zstandard.ZstdError):
            raise UnfitLayer(f"its zstd is broken: {error}") from None
