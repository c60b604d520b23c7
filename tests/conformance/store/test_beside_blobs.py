"""Small blobs, statements, and proofs of what lies here."""

from __future__ import annotations

import blake3
import pytest

from p2pdist.errors import PeerFault
from p2pdist.model.geometry import MANIFEST_SIZE_MAX_BYTES
from p2pdist.model.ids import Digest, TagKey, digest_of
from p2pdist.store.ports import Losses, Part, SmallBlob
from tests.conformance.store.conftest import Stores, filled
from tests.store.content import CHUNK, map_of, random_blob

SMALL = b'{"schemaVersion": 2}'
DIGEST = digest_of(SMALL)
DATA = random_blob(3)
KEY = b"k" * 32


# --- small blobs ----------------------------------------------------------------------------------


async def test_a_small_blob_comes_back_with_its_type(stores: Stores) -> None:
    store = await stores.open()
    assert await store.get_small(DIGEST) is None
    assert not store.has_small(DIGEST)

    await store.put_small(DIGEST, SMALL, "application/json")

    assert await store.get_small(DIGEST) == SmallBlob(DIGEST, "application/json", SMALL)
    assert store.has_small(DIGEST)
    assert list(store.smalls()) == [DIGEST]
    assert store.usage().smalls == 1
    assert store.usage().bytes_used >= len(SMALL)


async def test_a_type_that_is_told_later_is_kept_and_stays(stores: Stores) -> None:
    store = await stores.open()
    for media_type in ("", "application/json", "text/html", ""):
        await store.put_small(DIGEST, SMALL, media_type)

    small = await store.get_small(DIGEST)

    assert small is not None
    assert small.media_type == "application/json"


async def test_small_bytes_of_another_digest_or_too_many_are_refused(stores: Stores) -> None:
    store = await stores.open()
    large = bytes(MANIFEST_SIZE_MAX_BYTES + 1)

    with pytest.raises(PeerFault, match="wrong bytes"):
        await store.put_small(digest_of(b"something else"), SMALL)
    with pytest.raises(PeerFault, match="small blob of"):
        await store.put_small(digest_of(large), large)

    assert list(store.smalls()) == []


async def test_a_removed_small_blob_is_gone(stores: Stores) -> None:
    store = await stores.open()
    await store.put_small(DIGEST, SMALL)

    await store.remove(DIGEST)

    assert await store.get_small(DIGEST) is None
    assert store.usage().bytes_used == 0


# --- statements -----------------------------------------------------------------------------------


async def test_a_statement_comes_back_by_its_key_of_whichever_kind(stores: Stores) -> None:
    store = await stores.open()
    tag, index, other = (TagKey(bytes([i]) * 32) for i in range(3))
    await store.put_statement(tag, b"earlier")
    await store.put_statement(tag, b"a tag")
    await store.put_statement(index, b"an index", index=True)

    assert [await store.get_statement(key) for key in (tag, index, other)] == [
        b"a tag", b"an index", None,
    ]  # fmt: skip
    assert sorted(store.statement_keys()) == [tag, index]


# --- proofs ---------------------------------------------------------------------------------------


def hash_of_all(*parts: bytes) -> bytes:
    return blake3.blake3(b"".join(parts), key=KEY).digest()


async def test_a_proof_is_the_hash_of_the_parts_in_their_order(stores: Stores) -> None:
    store = await stores.open()
    await filled(store, DATA)
    await store.put_small(DIGEST, SMALL)
    layer = digest_of(DATA)
    parts = [Part(DIGEST, 2, 5), Part(layer, CHUNK - 3, 10), Part(layer, len(DATA) - 4, 100)]

    proof = await store.prove(parts, KEY)

    assert proof == hash_of_all(SMALL[2:7], DATA[CHUNK - 3 : CHUNK + 7], DATA[-4:])


async def test_there_is_no_proof_of_what_is_not_here_or_not_whole(stores: Stores) -> None:
    store = await stores.open()
    assert await store.prove([Part(DIGEST, 0, 1)], KEY) is None

    blob = await store.create(map_of(DATA))
    await blob.admit(0, DATA[:CHUNK], blob.chunk_map.hash_of(0) or b"")

    assert await store.prove([Part(blob.digest, 0, 10)], KEY) is None


async def test_a_proof_is_of_the_bytes_that_lie_there(stores: Stores) -> None:
    store = await stores.open()
    blob = await filled(store, DATA)
    stores.spoil(blob, 7)

    assert await store.prove([Part(blob.digest, 0, 10)], KEY) != hash_of_all(DATA[:10])


async def test_nothing_is_lost_where_nobody_took_anything(stores: Stores) -> None:
    store = await stores.open()
    await filled(store, DATA)
    await store.put_small(DIGEST, SMALL)
    told: list[Digest] = []
    store.on_evict = told.append

    assert await store.drop_lost() == Losses([], [], [])
    assert told == []
    assert store.usage().blobs == store.usage().smalls == 1
