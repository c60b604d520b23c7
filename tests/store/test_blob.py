"""Chunks on disk: checked before they count, there again after a kill."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pdist.errors import BlobGone, StoreError
from p2pdist.model.ids import digest_of
from p2pdist.store.blob import Blob
from p2pdist.store.store import Store
from tests.store.conftest import OpenStore
from tests.store.content import CHUNK, chunk_of, hash_of, map_of, random_blob
from tests.store.writer import BLOB, store_of

DATA = random_blob(5)
WRITER = Path(__file__).with_name("writer.py")


def killed_writer(directory: Path) -> list[int]:
    """Run a writer, kill it after 40 chunks; return the chunks that it acknowledged."""
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), str(directory / "store"), str(directory / "key")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(WRITER.parents[2])},
    )
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(40)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    writer.stdout.close()
    return acknowledged


async def filled(store: Store, data: bytes = DATA) -> Blob:
    blob = await store.create(map_of(data))
    for i in blob.geometry.indexes():
        assert await blob.admit(i, chunk_of(data, i), hash_of(data, i))
    return blob


async def reopened(store: Store, open_store: OpenStore, boot_id: str = "boot") -> Blob:
    digest = store.blobs()[0].digest
    await store.close()
    blob = (await open_store(boot_id=boot_id)).get(digest)
    assert blob is not None
    return blob


async def test_a_whole_blob_reads_back(open_store: OpenStore) -> None:
    blob = await filled(await open_store())

    assert blob.complete
    assert await blob.read(0, len(DATA)) == DATA


async def test_a_wrong_chunk_is_not_written(open_store: OpenStore) -> None:
    store = await open_store()
    blob = await store.create(map_of(DATA))

    assert not await blob.admit(0, bytes(CHUNK), hash_of(DATA, 0))

    assert not blob.verified
    assert await blob.read(0, 10) == bytes(10)


async def test_a_chunk_of_a_wrong_length_is_refused(open_store: OpenStore) -> None:
    blob = await (await open_store()).create(map_of(DATA))

    assert not await blob.admit(0, DATA[:100], hash_of(DATA, 0))


async def test_without_the_seal_all_chunks_are_not_complete(open_store: OpenStore) -> None:
    store = await open_store()
    blob = await store.create(map_of(DATA, sealed=False))
    for i in blob.geometry.indexes():
        await blob.admit(i, chunk_of(DATA, i), hash_of(DATA, i))

    assert blob.verified.complete
    assert not blob.complete


async def test_landing_returns_the_hash_and_shows_the_bytes_to_observers(
    open_store: OpenStore,
) -> None:
    blob = await (await open_store()).create(map_of(DATA, sealed=False))
    seen = bytearray()

    landed = await blob.land(0, chunk_of(DATA, 0), [seen.extend])

    assert landed == hash_of(DATA, 0)
    assert seen == chunk_of(DATA, 0)
    assert 0 in blob.verified


async def test_a_clean_restart_keeps_everything(open_store: OpenStore) -> None:
    store = await open_store()
    await filled(store)

    blob = await reopened(store, open_store)

    assert blob.complete
    assert await blob.read(0, len(DATA)) == DATA


async def test_a_killed_writer_loses_nothing_that_it_acknowledged(
    tmp_path: Path, open_store: OpenStore
) -> None:
    """A real process, a real SIGKILL in the middle."""
    acknowledged = killed_writer(tmp_path)

    store = await store_of(tmp_path / "store", tmp_path / "key")
    (blob,) = store.blobs()
    assert set(acknowledged) <= set(blob.verified)
    for i in blob.verified:
        assert await blob.read(i * CHUNK, len(chunk_of(BLOB, i))) == chunk_of(BLOB, i)
    await store.close()


async def test_after_another_boot_unsynced_chunks_are_hashed_again(
    open_store: OpenStore,
) -> None:
    store = await open_store()
    blob = await filled(store)
    overwrite(blob, 2 * CHUNK, b"lost by the power cut")
    mark_unsynced(blob)

    again = await reopened(store, open_store, boot_id="another boot")

    assert sorted(again.verified) == [0, 1, 3, 4]


def mark_unsynced(blob: Blob) -> None:
    """Make the store's last sync undone, as a power cut does."""
    blob._sync = lambda: None  # type: ignore[method-assign]  # a power cut


async def test_a_torn_bits_file_makes_every_chunk_be_looked_at(open_store: OpenStore) -> None:
    store = await open_store()
    blob = await store.create(map_of(DATA))
    await blob.admit(1, chunk_of(DATA, 1), hash_of(DATA, 1))
    await store.close()
    bits = blob.path / "bits"
    bits.write_bytes(bits.read_bytes()[:-3])

    again = (await open_store()).get(blob.digest)

    assert again is not None
    assert list(again.verified) == [1]


@pytest.mark.parametrize("size", [0, CHUNK + 7, len(DATA) + 1000])
async def test_a_data_file_of_another_length_is_looked_at(open_store: OpenStore, size: int) -> None:
    store = await open_store()
    blob = await filled(store)
    await store.close()
    os.truncate(blob.path / "data", size)

    again = (await open_store()).get(blob.digest)

    assert again is not None
    whole = [i for i in range(5) if (i + 1) * CHUNK <= size or size > len(DATA)]
    assert list(again.verified) == whole


async def test_scrubbing_finds_one_flipped_bit(open_store: OpenStore) -> None:
    blob = await filled(await open_store())
    overwrite(blob, 3 * CHUNK + 5, bytes([DATA[3 * CHUNK + 5] ^ 4]))

    assert await blob.scrub() == [3]
    assert 3 not in blob.verified


async def test_a_map_file_with_a_torn_tail_keeps_what_is_whole(open_store: OpenStore) -> None:
    store = await open_store()
    blob = await filled(store)
    await store.close()
    kept = (blob.path / "map").read_bytes()
    (blob.path / "map").write_bytes(kept[:-20])

    again = (await open_store()).get(blob.digest)

    assert again is not None
    assert not again.chunk_map.sealed
    assert again.verified.complete


async def test_another_map_keeps_the_chunks_that_it_confirms(open_store: OpenStore) -> None:
    store = await open_store()
    blob = await filled(store)

    await blob.replace_map(map_of(DATA, map_id=b"n" * 16))

    assert blob.complete
    assert (await reopened(store, open_store)).chunk_map.map_id == b"n" * 16


async def test_a_full_disk_is_told_and_marks_nothing(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await (await open_store()).create(map_of(DATA))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StoreError) as caught:
            await blob.admit(0, chunk_of(DATA, 0), hash_of(DATA, 0))

    assert caught.value.full
    assert not blob.verified
    assert await blob.admit(0, chunk_of(DATA, 0), hash_of(DATA, 0))


async def test_a_chunk_whose_mark_is_refused_does_not_count(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be offered, and be gone after a restart."""
    blob = await (await open_store()).create(map_of(DATA))
    write, written = os.pwrite, list[int]()

    def full_after_the_chunk(fd: int, data: bytes, offset: int) -> int:
        written.append(len(data))
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full_after_the_chunk)
        with pytest.raises(StoreError):
            await blob.admit(0, chunk_of(DATA, 0), hash_of(DATA, 0))

    assert written[0] == CHUNK
    assert not blob.verified


async def test_a_removed_blob_stays_readable_for_who_has_it_open(open_store: OpenStore) -> None:
    store = await open_store()
    before = open_descriptors()
    blob = await filled(store)
    data = blob.open_data()

    await store.remove(blob.digest)

    assert store.get(blob.digest) is None
    assert not blob.path.exists()
    assert os.pread(data.fileno, len(DATA), 0) == DATA
    data.close()
    assert open_descriptors() == before
    with pytest.raises(BlobGone):
        blob.open_data()


async def test_without_descriptors_a_blob_that_was_begun_goes_on(open_store: OpenStore) -> None:
    """Room is made for others, and not by what it cannot have again."""
    store = await open_store()
    blob = await store.create(map_of(DATA, sealed=False))
    blob.hold()
    seal = map_of(DATA).records[-1]
    head, *_ = blob.chunk_map.records
    assert await blob.admit(0, chunk_of(DATA, 0), hash_of(DATA, 0))
    await blob.add_records(head)

    with no_descriptors():
        with pytest.raises(StoreError):
            await filled(store, random_blob(6))
        for i in blob.geometry.indexes():
            assert await blob.admit(i, chunk_of(DATA, i), hash_of(DATA, i))
        await blob.add_records(seal)

    assert blob.verified.complete
    blob.release()


async def test_a_whole_blob_keeps_one_descriptor(open_store: OpenStore) -> None:
    store = await open_store()
    before = open_descriptors()
    blob = await filled(store)

    assert blob.complete
    assert open_descriptors() == before + 1


@pytest.mark.parametrize("boot_id", ["boot", "another"])
async def test_a_start_opens_no_more_than_what_it_hashes(
    open_store: OpenStore, boot_id: str
) -> None:
    store = await open_store()
    before = open_descriptors()
    mark_unsynced(await filled(store))
    await store.close()

    again = await open_store(boot_id=boot_id)

    assert len(again.blobs()) == 1
    assert open_descriptors() == before + (boot_id == "another")


async def test_a_blob_in_motion_opens_each_of_its_files_once(open_store: OpenStore) -> None:
    store = await open_store()
    blob = await store.create(map_of(DATA, sealed=False))
    for i in blob.geometry.indexes():
        assert await blob.admit(i, chunk_of(DATA, i), hash_of(DATA, i))
        await blob.add_records(blob.chunk_map.records[0])
        await blob.read(0, 1)
        blob.open_data().close()

    assert store._disk.files.opened_total == len(("data", "bits", "map"))


async def test_many_blobs_cost_few_descriptors(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.store.disk.open_files_allowed", lambda: 4)
    store = await open_store()
    before = open_descriptors()
    bodies = [bytes([i]) + DATA[1:] for i in range(12)]
    for body in bodies:
        blob = await store.create(map_of(body))
        for i in blob.geometry.indexes():
            assert await blob.admit(i, chunk_of(body, i), hash_of(body, i))

    assert open_descriptors() <= before + 4
    for body in bodies:
        whole = store.get(digest_of(body))
        assert whole is not None
        assert await whole.read(0, len(body)) == body
    assert open_descriptors() <= before + 4
    await store.close()
    assert len((await open_store(boot_id="another")).blobs()) == len(bodies)
    assert open_descriptors() <= before + 4


async def test_without_descriptors_a_blob_is_refused_and_not_taken_for_rot(
    open_store: OpenStore,
) -> None:
    store = await open_store()
    await filled(store)
    await store.close()
    store = await open_store()
    (blob,) = store.blobs()

    with no_descriptors():
        for refused in (blob.read(0, 1), blob.scrub(), blob.check(0, 5)):
            with pytest.raises(StoreError) as caught:
                await refused
            assert caught.value.no_descriptors
        with pytest.raises(StoreError) as caught:
            blob.open_data()
        assert caught.value.no_descriptors

    assert blob.verified.complete
    assert await blob.check(0, 5) == []


async def test_a_file_that_took_the_place_of_a_blob_is_not_believed(open_store: OpenStore) -> None:
    """What was hashed in this process was another file, and is closed by now."""
    store = await open_store()
    blob = await filled(store)
    await blob.sync()
    store._disk.files.let_go()
    data = blob.path / "data"
    another = data.with_name("another")
    another.write_bytes(bytes(len(DATA)))
    another.replace(data)

    with pytest.raises(BlobGone):
        blob.open_data()
    assert (await store.drop_lost()).blobs == [blob.digest]


async def test_what_could_not_be_synced_is_hashed_before_it_goes_out(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed write-back the kernel may forget the bytes that it still showed."""
    store = await open_store()
    blob = await store.create(map_of(DATA))
    for i in blob.geometry.indexes():
        assert await blob.admit(i, chunk_of(DATA, i), hash_of(DATA, i))
    assert not blob.unchecked(0, 5)

    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(StoreError):
            await blob.sync()

    assert blob.unchecked(0, 5)
    overwrite(blob, 2 * CHUNK, b"what the disk had before")
    assert await blob.check(0, 5) == [2]


def overwrite(blob: Blob, offset: int, data: bytes) -> None:
    """From below."""
    with (blob.path / "data").open("r+b") as file:
        file.seek(offset)
        file.write(data)


async def test_a_seal_is_kept_also_where_the_blob_cannot_be_synced(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    blob = await filled(store)

    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    await blob.add_records(blob.chunk_map.records[-1])
    monkeypatch.undo()

    assert not blob.synced
    assert (await reopened(store, open_store)).complete


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
