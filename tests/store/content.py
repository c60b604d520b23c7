"""Blobs of several chunks with their signed maps, for store tests."""

from __future__ import annotations

from random import Random

from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.statements import HashBatch, Keyring, MapHead, Seal, Signer

CHUNK = 256 * 1024
SIGNER = Signer.generate()


def keyring() -> Keyring:
    return Keyring([SIGNER.public_key_bytes])


def random_blob(chunks: int, seed: int = 1) -> bytes:
    """The last chunk is short."""
    return Random(seed).randbytes(chunks * CHUNK - 1000)


def map_of(data: bytes, *, sealed: bool = True, map_id: bytes = b"m" * 16) -> ChunkMap:
    geometry = geometry_for(len(data))
    head = MapHead(digest_of(data), MapId(map_id), len(data), geometry.chunk_size_bytes, 1)
    chunk_map = ChunkMap(head, SIGNER.sign(head))
    for i in geometry.indexes():
        batch = HashBatch(head.map_id, i, chunk_hash(chunk_of(data, i)))
        chunk_map.apply(batch, SIGNER.sign(batch))
    if sealed:
        seal = Seal(head.digest, head.map_id, geometry.chunk_count, chunk_map.root())
        chunk_map.apply(seal, SIGNER.sign(seal))
    return chunk_map


def chunk_of(data: bytes, chunk: int) -> bytes:
    return data[chunk * CHUNK : (chunk + 1) * CHUNK]


def hash_of(data: bytes, chunk: int) -> bytes:
    return chunk_hash(chunk_of(data, chunk))
