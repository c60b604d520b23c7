"""Chunks come, are checked, are read, and rot."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from p2pdist.errors import BlobGone, PeerFault, StoreError
from p2pdist.model.chunkmap import ChunkMap, open_map
from p2pdist.model.ids import Digest, MapId, digest_of
from p2pdist.model.statements import MapHead, Revocation
from p2pdist.store.ports import StoredBlob
from tests.conformance.store.conftest import Stores, filled
from tests.store.content import CHUNK, SIGNER, chunk_of, hash_of, keyring, map_of, random_blob

DATA = random_blob(5)
OTHER_MAP = b"n" * 16


async def tell(blob: StoredBlob, records: Sequence[bytes]) -> None:
    """Have its map take in statements, and keep them."""
    for record in records:
        blob.chunk_map.apply(keyring().open(record), record)
        await blob.add_records(record)


def claim_of(digest: Digest, size_bytes: int) -> ChunkMap:
    """A map that has no hashes yet."""
    head = MapHead(digest, MapId(b"c" * 16), size_bytes, CHUNK, 1)
    return ChunkMap(head, SIGNER.sign(head))


async def test_a_whole_blob_reads_back(stores: Stores) -> None:
    store = await stores.open()
    blob = await filled(store, DATA)

    assert blob.complete
    assert await blob.read(0, len(DATA)) == DATA
    assert await blob.read(CHUNK - 5, 10) == DATA[CHUNK - 5 : CHUNK + 5]
    assert store.get(digest_of(DATA)) is blob
    assert list(store.blobs()) == [blob]


async def test_what_has_another_hash_or_length_is_not_kept(stores: Stores) -> None:
    blob = await (await stores.open()).create(map_of(DATA))

    assert not await blob.admit(0, bytes(CHUNK), hash_of(DATA, 0))
    assert not await blob.admit(0, DATA[:100], hash_of(DATA, 0))

    assert not blob.verified
    assert await blob.read(0, 10) == bytes(10)


async def test_of_several_chunks_the_good_ones_count(stores: Stores) -> None:
    blob = await (await stores.open()).create(map_of(DATA))
    wrong, right = (1, bytes(CHUNK), hash_of(DATA, 1)), (4, chunk_of(DATA, 4), hash_of(DATA, 4))

    assert await blob.admit_many([wrong, right]) == [False, True]

    assert list(blob.verified) == [4]


async def test_landing_returns_the_hash_and_shows_the_bytes(stores: Stores) -> None:
    blob = await (await stores.open()).create(map_of(DATA, sealed=False))
    seen = bytearray()

    assert await blob.land(0, chunk_of(DATA, 0), [seen.extend]) == hash_of(DATA, 0)

    assert seen == chunk_of(DATA, 0)
    assert list(blob.verified) == [0]


async def test_what_came_is_no_more_looked_at(stores: Stores) -> None:
    """Buffers of the exchange are used again."""
    blob = await (await stores.open()).create(map_of(DATA))
    buffer = bytearray(chunk_of(DATA, 0))
    assert await blob.admit(0, buffer, hash_of(DATA, 0))
    buffer[:] = bytes(len(buffer))

    assert await blob.read(0, CHUNK) == chunk_of(DATA, 0)


async def test_a_blob_is_complete_once_its_map_is_sealed(stores: Stores) -> None:
    blob = await (await stores.open()).create(map_of(DATA, sealed=False))
    for i in blob.geometry.indexes():
        await blob.admit(i, chunk_of(DATA, i), hash_of(DATA, i))
    open_map_is_enough = blob.complete
    assert blob.verified.complete

    await tell(blob, map_of(DATA).records[-1:])

    assert not open_map_is_enough
    assert blob.complete
    assert blob.synced


async def test_opened_data_stays_readable_whatever_becomes_of_the_blob(stores: Stores) -> None:
    store = await stores.open()
    blob = await filled(store, DATA)
    data = blob.open_data()

    await store.remove(blob.digest)

    assert (data.fileno is not None) == store.has_files
    assert await data.read(CHUNK, len(DATA)) == DATA[CHUNK:]
    data.close()
    data.close()


async def test_a_removed_blob_is_gone_for_whoever_still_has_it(stores: Stores) -> None:
    store = await stores.open()
    blob = await filled(store, DATA)

    await store.remove(blob.digest)

    assert store.get(blob.digest) is None
    assert store.usage().bytes_used == 0
    with pytest.raises(BlobGone):
        blob.open_data()
    with pytest.raises(StoreError):
        await blob.read(0, 1)
    with pytest.raises(StoreError):
        await blob.admit(0, chunk_of(DATA, 0), hash_of(DATA, 0))


async def test_removing_what_is_not_there_is_nothing(stores: Stores) -> None:
    await (await stores.open()).remove(digest_of(b"never heard of"))


async def test_scrubbing_finds_one_flipped_bit(stores: Stores) -> None:
    blob = await filled(await stores.open(), DATA)
    stores.spoil(blob, 3 * CHUNK + 5)

    assert await blob.scrub(0, 3) == []
    assert await blob.scrub() == [3]

    assert list(blob.verified) == [0, 1, 2, 4]
    assert not blob.complete
    assert await blob.admit(3, chunk_of(DATA, 3), hash_of(DATA, 3))
    assert blob.complete


async def test_what_came_to_this_process_is_not_hashed_again(stores: Stores) -> None:
    blob = await filled(await stores.open(), DATA)

    assert not blob.unchecked(0, 5)
    assert await blob.check(0, 5) == []


# --- maps -----------------------------------------------------------------------------------------


async def test_creating_again_returns_the_same_blob(stores: Stores) -> None:
    store = await stores.open()
    blob = await filled(store, DATA)

    assert await store.create(map_of(DATA)) is blob
    assert await store.create(map_of(DATA, map_id=OTHER_MAP)) is blob

    assert blob.chunk_map.map_id == OTHER_MAP
    assert blob.complete


async def test_under_another_map_what_it_does_not_confirm_waits_for_its_hash(
    stores: Stores,
) -> None:
    blob = await filled(await stores.open(), DATA)
    head, *batches = map_of(DATA, sealed=False, map_id=OTHER_MAP).records

    await blob.replace_map(open_map(keyring(), [head]))
    assert not blob.verified

    await tell(blob, batches[:2])
    await blob.reclaim()
    assert list(blob.verified) == [0, 1]


async def test_under_another_map_what_is_not_so_does_not_come_back(stores: Stores) -> None:
    blob = await filled(await stores.open(), DATA)
    head, *batches = map_of(DATA, sealed=False, map_id=OTHER_MAP).records
    await blob.replace_map(open_map(keyring(), [head]))
    stores.spoil(blob, CHUNK)

    await tell(blob, batches)
    await blob.reclaim()

    assert list(blob.verified) == [0, 2, 3, 4]


async def test_a_map_of_another_size_makes_another_blob(stores: Stores) -> None:
    store = await stores.open()
    blob = await filled(store, DATA)

    other = await store.create(claim_of(blob.digest, 3 * CHUNK))

    assert other is not blob
    assert store.get(blob.digest) is other
    assert store.usage().bytes_used == 3 * CHUNK
    with pytest.raises(BlobGone):
        blob.open_data()


async def test_a_revoked_map_makes_no_blob(stores: Stores) -> None:
    store = await stores.open()
    chunk_map = map_of(DATA)
    record = SIGNER.sign(Revocation(chunk_map.digest, chunk_map.map_id, 1))

    await store.put_revocation(chunk_map.digest, chunk_map.map_id, record)

    assert store.revoked(chunk_map.map_id)
    assert not store.revoked(MapId(OTHER_MAP))
    assert store.revocations() == [record]
    with pytest.raises(PeerFault, match="revoked"):
        await store.create(chunk_map)
    assert store.get(chunk_map.digest) is None
