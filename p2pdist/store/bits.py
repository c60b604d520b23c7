"""The file that says which chunks of a blob are verified: small, footed, rewritten as a whole."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import xxhash

from p2pdist.model.chunkset import ChunkSet

FORMAT: Final = 1
_MAGIC: Final = b"p2pdbits"
_HEAD: Final = struct.Struct("<8sHI36s")
_FOOT_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Bits:
    """`synced` chunks were flushed to the disk itself; the others only survive this boot."""

    boot_id: str
    verified: ChunkSet
    synced: ChunkSet


def encode_bits(bits: Bits) -> bytes:
    """One block for one `pwrite`, which a kill cannot cut in two; the footer finds torn ones."""
    boot = bits.boot_id.encode("ascii").ljust(36, b"\0")
    head = _HEAD.pack(_MAGIC, FORMAT, bits.verified.chunk_count, boot)
    body = head + bits.verified.to_bytes() + bits.synced.to_bytes()
    return body + xxhash.xxh3_64_digest(body)


def decode_bits(data: bytes, chunk_count: int) -> Bits:
    """Inverse of `encode_bits`; raise ValueError for a torn, foreign or damaged block."""
    body, foot = data[:-_FOOT_BYTES], data[-_FOOT_BYTES:]
    width = (chunk_count + 7) // 8
    if len(body) != _HEAD.size + 2 * width or xxhash.xxh3_64_digest(body) != foot:
        raise ValueError("torn or damaged bits file")
    magic, version, count, boot = _HEAD.unpack_from(body)
    if magic != _MAGIC or version != FORMAT or count != chunk_count:
        raise ValueError("bits file of another blob or format")
    verified = ChunkSet.from_bytes(chunk_count, body[_HEAD.size : _HEAD.size + width])
    synced = ChunkSet.from_bytes(chunk_count, body[_HEAD.size + width :])
    return Bits(boot.rstrip(b"\0").decode("ascii"), verified, synced)
