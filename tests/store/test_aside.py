"""What cannot be believed or read is kept, and counts again under the next map."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from p2pdist.errors import StoreError
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.statements import HashBatch, Keyring, Revocation, Signer
from p2pdist.store.files import blob_path
from p2pdist.store.ports import StoreLimits
from p2pdist.store.store import Store
from tests.store.content import CHUNK, SIGNER, chunk_of, hash_of, keyring, map_of, random_blob

DATA = random_blob(5)
DIGEST = digest_of(DATA)
COUNT = 5
STRANGER = Signer.generate()


async def opened(
    root: Path, keys: Keyring | None = None, *, max_bytes: int = 1 << 30, boot_id: str = "boot"
) -> Store:
    limits = StoreLimits(max_bytes, reserve_free_bytes=0)
    ring = keyring() if keys is None else keys
    return await Store.open(root, limits=limits, keyring=ring, boot_id=boot_id)


async def fill(store: Store, data: bytes, *, chunks: int | None = None) -> None:
    blob = await store.create(map_of(data))
    for i in range(blob.geometry.chunk_count if chunks is None else chunks):
        assert await blob.admit(i, chunk_of(data, i), hash_of(data, i))


async def left_by_an_earlier_run(root: Path, *, chunks: int | None = None) -> None:
    store = await opened(root)
    await fill(store, DATA, chunks=chunks)
    await store.close()


def other_keys() -> Keyring:
    return Keyring([STRANGER.public_key_bytes])


def data_file(root: Path) -> Path:
    return blob_path(root / "blobs", DIGEST) / "data"


def restated(data: bytes = DATA) -> tuple[ChunkMap, list[HashBatch]]:
    """A fresh map of `data` by the other key, before its hashes are heard."""
    whole = map_of(data, map_id=b"n" * 16)
    head = whole.head
    batches = [HashBatch(head.map_id, i, hash_of(data, i)) for i in range(COUNT)]
    return ChunkMap(head, STRANGER.sign(head)), batches


async def test_one_start_with_another_key_costs_nothing(tmp_path: Path) -> None:
    """It used to cost the whole store: a mistyped template, a whole fleet."""
    await left_by_an_earlier_run(tmp_path / "s")
    wrong = await opened(tmp_path / "s", other_keys())
    assert wrong.get(DIGEST) is None
    assert wrong.aside(DIGEST) == len(DATA)
    assert wrong.usage().aside_bytes == len(DATA)
    await wrong.close()

    right = await opened(tmp_path / "s")
    blob = right.get(DIGEST)
    assert blob is not None
    assert blob.complete
    assert right.usage().aside_bytes == 0
    await right.close()


async def test_under_the_next_map_every_chunk_counts_that_has_its_hash(tmp_path: Path) -> None:
    await left_by_an_earlier_run(tmp_path / "s", chunks=3)  # the rest are holes
    store = await opened(tmp_path / "s", other_keys())
    fresh, batches = restated()
    blob = await store.create(fresh)
    assert not blob.verified
    assert len(blob.doubtful) == COUNT

    for batch in batches[1:]:
        fresh.apply(batch, STRANGER.sign(batch))
        await blob.reclaim()

    assert list(blob.verified) == [1, 2]
    assert list(blob.doubtful) == [0]  # its hash was not heard yet
    assert await blob.read(CHUNK, CHUNK) == chunk_of(DATA, 1)
    await store.close()


async def test_what_was_taken_up_again_survives_the_next_start(tmp_path: Path) -> None:
    await left_by_an_earlier_run(tmp_path / "s")
    store = await opened(tmp_path / "s", other_keys())
    fresh, batches = restated()
    blob = await store.create(fresh)
    for batch in batches:
        record = STRANGER.sign(batch)
        fresh.apply(batch, record)
        await blob.add_records(record)
    await blob.reclaim()
    await store.close()

    again = await opened(tmp_path / "s", other_keys())
    kept = again.get(DIGEST)
    assert kept is not None
    assert kept.verified.complete
    await again.close()


async def test_chunks_that_came_anew_are_doubtful_no_more(tmp_path: Path) -> None:
    await left_by_an_earlier_run(tmp_path / "s", chunks=0)
    store = await opened(tmp_path / "s", other_keys())
    fresh, batches = restated()
    blob = await store.create(fresh)
    for batch in batches:
        fresh.apply(batch, STRANGER.sign(batch))
    assert await blob.admit(2, chunk_of(DATA, 2), hash_of(DATA, 2))
    assert 2 not in blob.doubtful
    await blob.reclaim()

    assert list(blob.verified) == [2]
    await store.close()


async def test_data_of_another_length_counts_for_nothing(tmp_path: Path) -> None:
    await left_by_an_earlier_run(tmp_path / "s")
    os.truncate(data_file(tmp_path / "s"), 100)
    store = await opened(tmp_path / "s", other_keys())
    blob = await store.create(restated()[0])

    assert not blob.doubtful
    assert data_file(tmp_path / "s").stat().st_size == len(DATA)
    await store.close()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
async def test_a_disk_that_refuses_at_the_start_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    await left_by_an_earlier_run(tmp_path / "s")
    real = os.open

    def refusing(path: str | Path, *args: int) -> int:
        if str(path).endswith("/data"):
            raise OSError(number, os.strerror(number))
        return real(path, *args)

    with monkeypatch.context() as refused:
        refused.setattr(os, "open", refusing)
        store = await opened(tmp_path / "s")
        assert store.aside(DIGEST) == len(DATA)
        with pytest.raises(StoreError):
            await store.create(map_of(DATA))
        assert store.aside(DIGEST) == len(DATA)
        await store.close()

    again = await opened(tmp_path / "s")
    blob = again.get(DIGEST)
    assert blob is not None
    assert blob.complete
    await again.close()


@pytest.mark.parametrize("damage", [b"", bytes(200)])
async def test_a_torn_map_costs_only_the_map(tmp_path: Path, damage: bytes) -> None:
    await left_by_an_earlier_run(tmp_path / "s")
    data_file(tmp_path / "s").with_name("map").write_bytes(damage)
    store = await opened(tmp_path / "s")
    assert store.aside(DIGEST) == len(DATA)
    blob = await store.create(map_of(DATA))
    await blob.reclaim()

    assert blob.complete
    await store.close()


async def test_a_directory_without_data_is_cleared_away(tmp_path: Path) -> None:
    await left_by_an_earlier_run(tmp_path / "s")
    data_file(tmp_path / "s").unlink()
    store = await opened(tmp_path / "s")

    assert store.aside(DIGEST) is None
    assert not data_file(tmp_path / "s").parent.exists()
    await store.close()


async def test_what_needs_room_takes_theirs_first_and_no_more_than_it_needs(
    tmp_path: Path,
) -> None:
    others = [random_blob(5, seed=seed) for seed in (2, 3)]
    store = await opened(tmp_path / "s")
    for data in (DATA, *others):
        await fill(store, data)
    await store.close()
    size = len(DATA)
    store = await opened(tmp_path / "s", other_keys(), max_bytes=int(3.3 * size))
    digests = [digest_of(data) for data in (DATA, *others)]
    wanted = random_blob(5, seed=4)
    await store.create(map_of(wanted))

    left = [digest for digest in digests if store.aside(digest) is not None]
    assert len(left) == 1  # below the low watermark of 2.64 blobs
    assert store.usage().bytes_used == 2 * size
    assert sum(blob_path(tmp_path / "s" / "blobs", d).exists() for d in digests) == 1
    await store.close()


async def test_taking_up_what_lies_here_needs_no_other_room(tmp_path: Path) -> None:
    await left_by_an_earlier_run(tmp_path / "s")
    store = await opened(tmp_path / "s", other_keys(), max_bytes=len(DATA))

    await store.create(restated()[0])

    assert store.usage().bytes_used == len(DATA)
    await store.close()


async def test_a_change_of_maps_makes_chunks_doubtful_not_void(tmp_path: Path) -> None:
    """Another proxy's map is followed: the bytes are the same."""
    store = await opened(tmp_path / "s")
    await fill(store, DATA)
    blob = store.get(DIGEST)
    assert blob is not None
    fresh, batches = restated()
    await blob.replace_map(fresh)
    assert not blob.verified
    for batch in batches:
        fresh.apply(batch, STRANGER.sign(batch))
    await blob.reclaim()

    assert blob.verified == ChunkSet.full(COUNT)
    await store.close()


async def test_revocations_of_a_key_that_is_not_believed_now_are_not_forgotten(
    tmp_path: Path,
) -> None:
    revoked = map_of(DATA).map_id
    store = await opened(tmp_path / "s")
    await store.put_revocation(DIGEST, revoked, SIGNER.sign(Revocation(DIGEST, revoked, 1)))
    await store.close()
    wrong = await opened(tmp_path / "s", other_keys())
    other = Revocation(DIGEST, restated()[0].map_id, 1)
    assert not wrong.revoked(revoked)
    await wrong.put_revocation(DIGEST, other.map_id, STRANGER.sign(other))
    await wrong.close()

    right = await opened(tmp_path / "s")
    assert right.revoked(revoked)
    await right.close()


async def test_a_small_blob_that_cannot_be_read_now_is_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"a manifest"
    store = await opened(tmp_path / "s")
    await store.put_small(digest_of(body), body)
    await store.close()
    store = await opened(tmp_path / "s")

    def refusing(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as refused:
        refused.setattr(os, "open", refusing)
        assert await store.get_small(digest_of(body)) is None
    found = await store.get_small(digest_of(body))
    assert found is not None
    assert found.body == body
    await store.close()


async def test_revocations_are_in_force_by_the_keys_that_are_believed_now(tmp_path: Path) -> None:
    keys = keyring()
    store = await opened(tmp_path, keys)
    theirs, ours = (Revocation(DIGEST, MapId(by * 16), 1) for by in (b"t", b"o"))
    await store.put_revocation(DIGEST, ours.map_id, SIGNER.sign(ours))

    keys.replace([STRANGER.public_key_bytes])
    await store.keys_changed(lambda _: False)
    assert not store.revoked(ours.map_id)
    await store.put_revocation(DIGEST, theirs.map_id, STRANGER.sign(theirs))
    keys.replace([SIGNER.public_key_bytes])
    await store.keys_changed(lambda _: False)

    assert store.revoked(ours.map_id)
    assert not store.revoked(theirs.map_id)
    await store.put_revocation(DIGEST, ours.map_id, SIGNER.sign(ours))  # which writes all of them
    await store.close()
    again = await opened(tmp_path, Keyring([SIGNER.public_key_bytes, STRANGER.public_key_bytes]))
    assert again.revoked(ours.map_id)
    assert again.revoked(theirs.map_id)
    await again.close()


async def test_what_is_aside_for_another_reason_stays_so(tmp_path: Path) -> None:
    await left_by_an_earlier_run(tmp_path)
    (blob_path(tmp_path / "blobs", DIGEST) / "map").write_bytes(b"torn")
    keys = keyring()
    store = await opened(tmp_path, keys)
    keys.replace([SIGNER.public_key_bytes, STRANGER.public_key_bytes])

    found = await store.keys_changed(lambda _: False)

    assert (found.back, found.later) == ([], [])
    assert store.aside(DIGEST) == len(DATA)
    await store.close()
