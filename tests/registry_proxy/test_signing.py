"""A map as its proxy signs it, read back by a host that has the public key only."""

from __future__ import annotations

import asyncio
import os

from p2pdist.model.chunkmap import ChunkMap, chunk_hash, open_map
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import digest_of
from p2pdist.model.statements import HashBatch, Keyring, Revocation, Seal, Signer
from p2pdist.registry_proxy.core.batches import BATCH_WAIT_S
from p2pdist.registry_proxy.signing import MapSigner

CHUNK = 256 * 1024


class Published:
    """Takes what the signer publishes into a map, as the blob's inbox does."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.statements: list[HashBatch | Seal] = []
        self.map: ChunkMap | None = None
        self.changed = asyncio.Event()

    def __call__(self, statement: HashBatch | Seal, record: bytes) -> None:
        assert self.map is not None
        self.map.apply(statement, record)
        self.records.append(record)
        self.statements.append(statement)
        self.changed.set()


def signed_map(chunks: int) -> tuple[Signer, Published, MapSigner, ChunkMap]:
    signer, published = Signer.generate(), Published()
    map_signer = MapSigner(signer, published, lambda: 1_700_000_000.0)
    digest = digest_of(b"a blob of some chunks")
    chunk_map = map_signer.new_map(digest, geometry_for(chunks * CHUNK), os.urandom)
    published.map = chunk_map
    return signer, published, map_signer, chunk_map


async def test_the_first_hash_goes_out_at_once() -> None:
    _, published, map_signer, _ = signed_map(8)

    map_signer.add(0, chunk_hash(b"0"))

    assert [s.count for s in published.statements if isinstance(s, HashBatch)] == [1]


async def test_a_batch_closes_by_time() -> None:
    _, published, map_signer, _ = signed_map(8)
    map_signer.add(0, chunk_hash(b"0"))
    published.changed.clear()

    map_signer.add(1, chunk_hash(b"1"))
    map_signer.add(2, chunk_hash(b"2"))
    async with asyncio.timeout(20 * BATCH_WAIT_S + 5):
        await published.changed.wait()

    batch = published.statements[-1]
    assert isinstance(batch, HashBatch)
    assert (batch.first, batch.count) == (1, 2)


async def test_a_batch_closes_after_64_chunks() -> None:
    _, published, map_signer, _ = signed_map(200)

    for i in range(130):
        map_signer.add(i, chunk_hash(bytes([i])))

    counts = [s.count for s in published.statements if isinstance(s, HashBatch)]
    assert counts == [1, 64, 64]
    map_signer.drop()


async def test_a_sealed_map_reads_back_with_the_public_key_alone() -> None:
    signer, _, map_signer, chunk_map = signed_map(5)
    for i in range(5):
        map_signer.add(i, chunk_hash(bytes([i])))
    map_signer.flush()

    map_signer.seal(chunk_map)

    reread = open_map(Keyring([signer.public_key_bytes]), chunk_map.records)
    assert reread.sealed
    assert [reread.hash_of(i) for i in range(5)] == [chunk_hash(bytes([i])) for i in range(5)]


async def test_a_revocation_names_the_map() -> None:
    signer, _, map_signer, chunk_map = signed_map(5)

    record = map_signer.revocation(chunk_map)

    statement = Keyring([signer.public_key_bytes]).open(record)
    assert isinstance(statement, Revocation)
    assert (statement.digest, statement.map_id) == (chunk_map.digest, chunk_map.map_id)
