"""Row 2, its second half: what a start costs after a kill, with a store that holds much."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Final

from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import Geometry, geometry_for
from p2pdist.model.ids import Digest, MapId
from p2pdist.model.statements import BATCH_HASHES_MAX, HashBatch, MapHead, Seal
from p2pdist.store.bits import Bits, encode_bits
from p2pdist.store.blob import write_map
from p2pdist.store.files import blob_path
from p2pdist.store.ports import StoreLimits
from p2pdist.store.store import Store
from tests.faults.records import recorded
from tests.store.content import CHUNK, SIGNER, keyring

BLOBS: Final = 100
CHUNKS_EACH: Final = 100
BOOT_ID: Final = "boot"
SCAN_S_MAX: Final = 1.0  # catalogue, row 2: per 10,000 chunks


async def test_a_start_after_a_kill_scans_ten_thousand_chunks_in_a_second(tmp_path: Path) -> None:
    root = tmp_path / "store"
    limits = StoreLimits(1 << 40, reserve_free_bytes=0)
    with recorded(2, "start-up scan after a kill", "10,000 chunks") as record:
        await (await Store.open(root, limits=limits, keyring=keyring(), boot_id=BOOT_ID)).close()
        rng = Random(2)
        for _ in range(BLOBS):
            _leave_blob(root, rng)

        began_s = time.monotonic()
        store = await Store.open(root, limits=limits, keyring=keyring(), boot_id=BOOT_ID)
        took_s = time.monotonic() - began_s

        found = sum(len(blob.verified) for blob in store.blobs())
        await store.close()
        assert found == BLOBS * CHUNKS_EACH
        record.took("scan", took_s, at_most_s=SCAN_S_MAX)
        record.outcome = f"{found} verified chunks of {BLOBS} blobs known again in {took_s:.2f} s"
        print(f"row 2: {record.outcome}")


def _leave_blob(root: Path, rng: Random) -> None:
    """Write the files of a whole blob of zeros, sparse, as a killed daemon leaves them unsynced."""
    geometry = geometry_for(CHUNKS_EACH * CHUNK)
    digest = Digest(f"sha256:{rng.randbytes(32).hex()}")
    path = blob_path(root / "blobs", digest)
    path.mkdir(parents=True, mode=0o700)
    write_map(path, _sealed_map(digest, geometry, MapId(rng.randbytes(16))))
    with (path / "data").open("wb") as file:
        file.truncate(geometry.size_bytes)
    verified = ChunkSet(CHUNKS_EACH, (1 << CHUNKS_EACH) - 1)
    (path / "bits").write_bytes(encode_bits(Bits(BOOT_ID, verified, ChunkSet(CHUNKS_EACH))))


def _sealed_map(digest: Digest, geometry: Geometry, map_id: MapId) -> ChunkMap:
    head = MapHead(digest, map_id, geometry.size_bytes, geometry.chunk_size_bytes, 1)
    chunk_map = ChunkMap(head, SIGNER.sign(head))
    zeros = chunk_hash(bytes(CHUNK))
    for first in range(0, CHUNKS_EACH, BATCH_HASHES_MAX):
        batch = HashBatch(map_id, first, zeros * min(BATCH_HASHES_MAX, CHUNKS_EACH - first))
        chunk_map.apply(batch, SIGNER.sign(batch))
    seal = Seal(digest, map_id, CHUNKS_EACH, chunk_map.root())
    chunk_map.apply(seal, SIGNER.sign(seal))
    return chunk_map
