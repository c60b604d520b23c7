"""Statements about one blob come from several hosts, in no order between them."""

from __future__ import annotations

import asyncio

from p2pdist.exchange.frames import MapRecord
from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.statements import HashBatch, MapHead, Seal, Signer
from p2pdist.process.clock import unix_s
from p2pdist.process.identity import read_secret, read_signer
from tests.fakes.cluster import Lab
from tests.fakes.evil import evil_peer
from tests.fakes.pulling import random_bytes

LAYER = random_bytes(3 << 20, 5)
DIGEST = digest_of(LAYER)


def true_map(signer: Signer) -> tuple[bytes, list[bytes], bytes]:
    """The head, the hashes one by one, and the seal of the map of LAYER."""
    geometry = geometry_for(len(LAYER))
    size = geometry.chunk_size_bytes
    head = MapHead(DIGEST, MapId(b"t" * 16), len(LAYER), size, int(unix_s()))
    record = signer.sign(head)
    chunk_map = ChunkMap(head, record)
    for i in geometry.indexes():
        batch = HashBatch(head.map_id, i, chunk_hash(LAYER[i * size : (i + 1) * size]))
        chunk_map.apply(batch, signer.sign(batch))
    seal = Seal(DIGEST, head.map_id, geometry.chunk_count, chunk_map.root())
    return record, chunk_map.records[1:], signer.sign(seal)


async def test_a_host_that_heard_the_seal_before_the_hashes_tells_it_on(lab: Lab) -> None:
    """Hosts used to ban each other for it: the hashes come through the busy link of the proxy."""
    peer = await lab.peer("quick")
    node = peer.running.node
    node.activate(DIGEST, len(LAYER))
    head, hashes, seal = true_map(read_signer(lab.keys.key_file))
    secret = read_secret(lab.keys.secret_file)
    async with (
        evil_peer(peer.running.exchange_address, secret, node.keyring, DIGEST) as teller,
        asyncio.timeout(10),
    ):
        await teller.linked.wait()
        assert teller.link is not None
        teller.offers = False
        for record in (head, seal, *hashes):
            teller.link.send(MapRecord(record))
        while seal not in teller.records:  # noqa: ASYNC110  # told on once it is taken in
            await asyncio.sleep(0.01)

    assert node.counters.rejected.total() == 0
    stored = peer.running.store.get(DIGEST)
    assert stored is not None
    assert stored.chunk_map.sealed
