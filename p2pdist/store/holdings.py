"""What really lies on the disk, whatever memory says: proofs, and what vanished from below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import blake3

from p2pdist.model.ids import Digest
from p2pdist.store.ports import Part

if TYPE_CHECKING:
    from p2pdist.store.blob import Blob
    from p2pdist.store.smalls import SmallFiles


class Gone(LookupError):
    """Some of the bytes are not here (any more)."""


def keyed_hash(
    parts: Sequence[Part], key: bytes, blobs: dict[Digest, Blob], smalls: SmallFiles
) -> bytes:
    """Blocking. Hash the bytes of all parts, one behind the other, from the disk (BLAKE3, keyed
    with 32 bytes); raise Gone where one is not here."""
    hasher = blake3.blake3(key=key)
    for part in parts:
        hasher.update(_read(part, blobs, smalls))
    return hasher.digest()


def missing_blobs(blobs: Iterable[Blob]) -> list[Digest]:
    """Blocking."""
    return [blob.digest for blob in blobs if not blob.lies_there()]


def _read(part: Part, blobs: dict[Digest, Blob], smalls: SmallFiles) -> bytes:
    blob = blobs.get(part.digest)
    if blob is None:
        body = smalls.from_disk(part.digest)
        if body is None:
            raise Gone(part.digest)
        return body[part.offset : part.offset + part.length]
    length = max(0, min(part.length, blob.geometry.size_bytes - part.offset))
    if not blob.complete or not blob.lies_there():
        raise Gone(part.digest)
    data = blob.read_now(part.offset, length)
    if len(data) != length:
        raise Gone(part.digest)
    return data
