"""Other keys are believed while a store is open: what it would find at the next start holds now."""

from __future__ import annotations

from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.ids import Digest, MapId, digest_of
from p2pdist.model.statements import HashBatch, MapHead, Signer
from p2pdist.store.ports import Resorted
from tests.conformance.store.conftest import Stores, filled
from tests.store.content import SIGNER, chunk_of, hash_of, map_of, random_blob

DATA = random_blob(4)
DIGEST = digest_of(DATA)
OTHER = Signer.generate()
OLD, NEW = SIGNER.public_key_bytes, OTHER.public_key_bytes


def at_rest(digest: Digest) -> bool:
    return False


def in_motion(digest: Digest) -> bool:
    return True


def restated() -> tuple[ChunkMap, HashBatch]:
    """A fresh map by the other key, and what it is to say."""
    old = map_of(DATA).head
    head = MapHead(DIGEST, MapId(b"n" * 16), old.size_bytes, old.chunk_size_bytes, 2)
    hashes = b"".join(hash_of(DATA, i) for i in range(4))
    return ChunkMap(head, OTHER.sign(head)), HashBatch(head.map_id, 0, hashes)


async def test_what_a_dropped_key_signed_is_put_aside_and_read_on(stores: Stores) -> None:
    store = await stores.open()
    blob = await filled(store, DATA)
    told = list[tuple[Digest, bool]]()
    store.on_evict = lambda digest: told.append((digest, store.get(digest) is blob))
    early = blob.open_data()
    stores.keyring.replace([NEW])

    assert await store.keys_changed(at_rest) == Resorted([], [])

    assert told == [(DIGEST, True)]
    assert store.get(DIGEST) is None
    assert store.aside(DIGEST) == len(DATA)
    assert store.usage().aside_bytes == len(DATA)
    late = blob.open_data()
    for data in (early, late):
        assert await data.read(0, len(DATA)) == DATA
        data.close()


async def test_it_counts_again_under_another_map_without_a_byte_of_it_coming(
    stores: Stores,
) -> None:
    store = await stores.open()
    await filled(store, DATA)
    stores.keyring.replace([NEW])
    await store.keys_changed(at_rest)
    fresh, said = restated()

    blob = await store.create(fresh)
    assert not blob.verified
    fresh.apply(said, record := OTHER.sign(said))
    await blob.add_records(record)
    await blob.reclaim()

    assert blob.verified.complete
    assert store.aside(DIGEST) is None
    data = blob.open_data()
    assert await data.read(0, len(DATA)) == DATA
    data.close()


async def test_it_counts_again_as_it_was_when_its_key_is_believed_again(stores: Stores) -> None:
    store = await stores.open()
    await filled(store, DATA)
    stores.keyring.replace([NEW])
    await store.keys_changed(at_rest)
    stores.keyring.replace([NEW, OLD])

    assert await store.keys_changed(at_rest) == Resorted([DIGEST], [])

    blob = store.get(DIGEST)
    assert blob is not None
    assert blob.complete
    assert store.aside(DIGEST) is None
    assert store.usage().bytes_used == len(DATA)


async def test_what_is_in_motion_waits_for_its_end(stores: Stores) -> None:
    store = await stores.open()
    blob = await store.create(map_of(DATA))
    assert await blob.admit(0, chunk_of(DATA, 0), hash_of(DATA, 0))
    stores.keyring.replace([NEW])

    assert await store.keys_changed(in_motion) == Resorted([], [DIGEST])
    assert store.get(DIGEST) is blob
    assert await blob.admit(1, chunk_of(DATA, 1), hash_of(DATA, 1))
    assert await store.keys_changed(at_rest) == Resorted([], [])

    assert store.get(DIGEST) is None
    assert store.aside(DIGEST) == len(DATA)


async def test_a_key_more_changes_nothing(stores: Stores) -> None:
    store = await stores.open()
    blob = await filled(store, DATA)
    store.on_evict = None
    stores.keyring.replace([OLD, NEW])

    assert await store.keys_changed(at_rest) == Resorted([], [])
    assert store.get(DIGEST) is blob
