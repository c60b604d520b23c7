"""Admits chunks for as long as it lives and says so: a process for the kill tests."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.statements import HashBatch, Keyring, MapHead, Signer
from p2pdist.store.ports import StoreLimits
from p2pdist.store.store import Store

CHUNK = 256 * 1024
BLOB = Random(11).randbytes(200 * CHUNK)


def signer_of(key_path: Path) -> Signer:
    """One key for the writer and for whoever reads after it."""
    if not key_path.exists():
        key_path.write_bytes(Ed25519PrivateKey.generate().private_bytes_raw())
    return Signer(Ed25519PrivateKey.from_private_bytes(key_path.read_bytes()))


async def store_of(root: Path, key_path: Path) -> Store:
    keyring = Keyring([signer_of(key_path).public_key_bytes])
    limits = StoreLimits(1 << 30, reserve_free_bytes=0)
    return await Store.open(root, limits=limits, keyring=keyring, boot_id="boot")


async def main(root: Path, key_path: Path) -> None:
    signer = signer_of(key_path)
    store = await store_of(root, key_path)
    geometry = geometry_for(len(BLOB))
    head = MapHead(digest_of(BLOB), MapId(b"w" * 16), len(BLOB), CHUNK, 1)
    chunk_map = ChunkMap(head, signer.sign(head))
    blob = await store.create(chunk_map)
    for i in geometry.indexes():
        data = BLOB[i * CHUNK : (i + 1) * CHUNK]
        batch = HashBatch(head.map_id, i, chunk_hash(data))
        record = signer.sign(batch)
        chunk_map.apply(batch, record)
        await blob.add_records(record)
        assert await blob.admit(i, data, chunk_hash(data))
        print(i, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
