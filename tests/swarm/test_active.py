"""What a blob in motion lets out, and which of several maps it believes."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from p2pdist.errors import BlobGone, StoreError
from p2pdist.exchange.frames import Cancel, Offer, Request
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import geometry_for
from p2pdist.store.blob import Blob
from p2pdist.store.files import blob_path
from p2pdist.swarm.active import ActiveBlob
from tests.swarm.active_parts import SIGNER, FakeLink, Motion, SignedMap, in_motion, some_bytes

DATA = some_bytes(4.5)
TRUE = SignedMap(DATA, b"t")
LAST = TRUE.geometry.chunk_count - 1
LAST_AT = TRUE.geometry.offset(LAST)


async def test_the_last_chunk_waits_for_the_seal(tmp_path: Path) -> None:
    """Until then nobody knows whether the bytes have the digest: a wrong blob must end short."""
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, *range(LAST + 1))
        assert motion.active.readers.deliverable_end(0) == LAST_AT
        assert motion.active.readers.deliverable_end(LAST_AT) == LAST_AT

        await motion.hear(TRUE.seal)
        assert motion.active.readers.deliverable_end(0) == len(DATA)
        assert motion.active.readers.deliverable_end(LAST_AT) == len(DATA)


async def test_a_range_that_ends_early_waits_for_the_seal_with_all_its_bytes(
    tmp_path: Path,
) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, *range(LAST + 1))
        assert motion.active.readers.deliverable_end(0, to_end=False) == 0
        assert motion.active.readers.deliverable_end(70_000, to_end=False) == 70_000

        await motion.hear(TRUE.seal)
        assert motion.active.readers.deliverable_end(70_000, to_end=False) == len(DATA)


async def test_a_body_follows_the_frontier_of_chunks(tmp_path: Path) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, 0, 2)
        assert motion.active.readers.deliverable_end(0) == TRUE.geometry.offset(1)

        await motion.land(TRUE, 1)
        assert motion.active.readers.deliverable_end(100) == TRUE.geometry.offset(3)


async def test_chunks_without_a_hash_go_nowhere(tmp_path: Path) -> None:
    """What the map does not vouch for yet is not asked for, counted or told of."""
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, TRUE.batches[0])
        await motion.land(TRUE, 0, 1)

        assert motion.active.blob is not None
        assert motion.node.tracker.notes == [(1, False)]


# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [len(DATA) - 300_000, len(DATA) + 1, 5 << 30])
async def test_a_signed_head_stands_above_a_claim(tmp_path: Path, claim: int) -> None:
    async with in_motion(tmp_path, TRUE.digest, claim) as motion:
        unproven = motion.active.proven_size_bytes
        assert unproven is None
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        await motion.land(TRUE, *range(LAST + 1))

        assert motion.active.geometry == geometry_for(len(DATA))
        assert motion.active.proven_size_bytes == len(DATA)
        assert motion.active.readers.deliverable_end(0) == len(DATA)
        assert motion.active.complete
        assert motion.node.punished == []


async def test_a_reader_is_woken_when_the_blob_is_cut_otherwise(tmp_path: Path) -> None:
    """It waits for a chunk of the claimed cut, which will never come."""
    async with in_motion(tmp_path, TRUE.digest, 5 << 30) as motion:
        reader = motion.active.open_reader()
        motion.active.reader_at(reader, 3 << 30)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(motion.active.readers.wait_deliverable(3 << 30, 60))
            await asyncio.sleep(0)
            await motion.hear(TRUE.head)


async def test_an_open_map_of_another_size_is_only_a_rival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry of the list may have lied about its length until the proxy saw the digest."""
    monkeypatch.setattr("p2pdist.swarm.core.maps.MAP_STUCK_S", 0.05)
    wrong = SignedMap(some_bytes(7, seed=2), b"w", digest=TRUE.digest)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(wrong.head, *wrong.batches)
        await motion.land(wrong, 0, 1)
        motion.active.open_reader()
        await motion.hear(TRUE.head)
        await followed(motion, TRUE)
        await motion.hear(*TRUE.batches, TRUE.seal)
        await motion.land(TRUE, *range(LAST + 1))

        assert motion.active.readers.deliverable_end(0) == len(DATA)
        stored = motion.node.store.get(TRUE.digest)
        assert stored is not None
        assert stored.geometry == TRUE.geometry
        data = blob_path(tmp_path / "store" / "blobs", TRUE.digest) / "data"
        assert data.read_bytes() == DATA


async def test_no_head_of_another_size_stands_against_a_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.swarm.core.maps.MAP_STUCK_S", 0.0)
    wrong = SignedMap(some_bytes(7, seed=2), b"w", digest=TRUE.digest)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        motion.active.open_reader()
        await motion.hear(wrong.head, *wrong.batches)
        motion.tick()
        await motion.active.settle()

        assert motion.active.map is not None
        assert motion.active.map.map_id == TRUE.head.map_id


# --- maps -------------------------------------------------------------------------------------


async def test_a_map_that_stands_still_gives_way_to_another_of_the_same_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.swarm.core.maps.MAP_STUCK_S", math.inf)
    other = SignedMap(DATA, b"o")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches[:2])
        await motion.land(TRUE, 0)
        motion.active.open_reader()
        await motion.hear(other.head)
        motion.tick()
        assert motion.active.map is not None
        assert motion.active.map.map_id == TRUE.head.map_id

        monkeypatch.setattr("p2pdist.swarm.core.maps.MAP_STUCK_S", 0.0)
        await followed(motion, other)


async def test_a_revoked_map_is_not_taken_up_again(tmp_path: Path) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.node.store.put_revocation(TRUE.digest, TRUE.head.map_id, b"record")
        await motion.hear(TRUE.head, *TRUE.batches)

        assert motion.active.map is None


async def test_a_revoked_map_is_not_followed_where_another_one_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.swarm.core.maps.MAP_STUCK_S", 0.0)
    void, other = SignedMap(DATA, b"v"), SignedMap(DATA, b"o")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.node.store.put_revocation(TRUE.digest, void.head.map_id, b"record")
        await motion.hear(TRUE.head, *TRUE.batches[:2])
        motion.active.open_reader()
        await motion.hear(void.head)
        motion.tick()
        await motion.hear(other.head)
        await followed(motion, other)

        assert motion.node.core.blob_of_map(void.head.map_id) is None


async def test_a_revoked_map_lets_nothing_more_out(tmp_path: Path) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, 0, 1)
        await motion.hear(TRUE.revocation)

        assert motion.active.failure is not None
        assert motion.active.readers.deliverable_end(0) == 0
        assert motion.node.tracker.notes[-1] == (0, False)
        assert motion.node.core.revocations == 1


async def test_another_maps_revocation_changes_nothing(tmp_path: Path) -> None:
    other = SignedMap(DATA, b"o")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, 0)
        await motion.hear(other.revocation)

        assert motion.active.failure is None
        assert motion.active.readers.deliverable_end(0) == TRUE.geometry.offset(1)


async def test_the_hashes_of_another_map_are_not_taken_for_ours(tmp_path: Path) -> None:
    other = SignedMap(DATA, b"o")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *other.batches, other.seal)

        assert motion.active.map is not None
        assert not motion.active.map.known
        assert not motion.active.map.sealed


async def test_what_was_asked_for_under_a_map_that_is_left_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chunks would be held against the other map, and an honest neighbour be punished."""
    monkeypatch.setattr("p2pdist.swarm.core.maps.MAP_STUCK_S", 0.05)
    other, link = SignedMap(DATA, b"o"), FakeLink()
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        motion.active.attach(link.real)
        offer = Offer(TRUE.digest, TRUE.head.map_id, ((0, 2),))
        motion.active.hear(link.real, offer)
        await asyncio.sleep(0)
        (asked,) = [frame for frame in link.sent if isinstance(frame, Request)]
        assert len(motion.node.core.requests) == 1

        await motion.hear(other.head)
        await followed(motion, other)
        assert Cancel(asked.request_id) in link.sent
        assert link.forgotten == [asked.request_id]
        assert len(motion.node.core.requests) == 0


@pytest.mark.parametrize("end", ["fail", "end"])
async def test_a_blob_that_ends_takes_its_requests_back(tmp_path: Path, end: str) -> None:
    link = FakeLink()
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        motion.active.attach(link.real)
        motion.active.hear(link.real, Offer(TRUE.digest, TRUE.head.map_id, ((0, 2),)))
        await asyncio.sleep(0)
        assert len(motion.node.core.requests) == 1

        if end == "fail":
            motion.active.fail("as a test")
        else:
            motion.active.end()
        assert len(motion.node.core.requests) == 0
        assert link.forgotten


async def test_a_rival_that_was_revoked_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.swarm.core.maps.MAP_STUCK_S", -1.0)
    other = SignedMap(DATA, b"o")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.hear(other.head, other.revocation)
        motion.tick()

        assert not [t for t in asyncio.all_tasks() if "switch" in t.get_name()]


async def followed(motion: Motion, signed: SignedMap) -> None:
    async with asyncio.timeout(10):
        while motion.active.map is None or motion.active.map.map_id != signed.head.map_id:
            motion.tick()
            await asyncio.sleep(0.01)


async def test_a_blob_that_ends_while_its_map_is_taken_up_is_held_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing could ever evict it."""
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        store, created, ended = motion.node.store, asyncio.Event(), asyncio.Event()
        create = store.create

        async def slowly(chunk_map: ChunkMap) -> Blob:
            blob = await create(chunk_map)
            created.set()
            await ended.wait()
            return blob

        monkeypatch.setattr(store, "create", slowly)
        taking_up = motion.node.tasks.start(motion.active.adopt(TRUE.whole), name="take up")
        await created.wait()
        motion.active.end()
        ended.set()
        await taking_up

        stored = store.get(TRUE.digest)
        assert stored is not None
        assert not stored.in_use


@pytest.mark.parametrize("refuses", [False, True])
async def test_what_the_disk_says_to_a_motion_that_ended_is_nothing_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, refuses: bool
) -> None:
    """A blob that is gone from under the one that ended would be removed from under the other."""
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head)
        assert motion.active.blob is not None
        writing, goes_on = asyncio.Event(), asyncio.Event()

        async def add_records(*records: bytes) -> None:
            writing.set()
            await goes_on.wait()
            if refuses:
                raise BlobGone("it is not here any more")

        monkeypatch.setattr(motion.active.blob, "add_records", add_records)
        motion.active.hear(None, TRUE.batches[0], SIGNER.sign(TRUE.batches[0]))
        async with asyncio.timeout(10):
            await writing.wait()
        motion.active.end()
        motion.node.active = second = ActiveBlob(motion.node, TRUE.digest, len(DATA))
        goes_on.set()
        keep = [t for t in asyncio.all_tasks() if ": keep " in t.get_name()]
        assert keep
        await asyncio.gather(*keep)

        assert second.store_error is None
        assert motion.active.store_error is None
        assert motion.node.store.get(TRUE.digest) is not None
        second.end()


async def test_a_sync_that_fails_is_said_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        assert motion.active.blob is not None

        async def fails() -> None:
            raise StoreError("the disk is read-only")

        await motion.hear(TRUE.seal)
        monkeypatch.setattr(motion.active.blob, "sync", fails)
        await motion.land(TRUE, *range(LAST + 1))
        syncs = [t for t in asyncio.all_tasks() if ": sync " in t.get_name()]
        await asyncio.gather(*syncs)

        assert syncs
        assert "sync.failed" in caplog.messages
