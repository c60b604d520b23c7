"""The store as a whole: who may open it, what it evicts, what it remembers."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from p2pdist.errors import ConfigError, PeerFault, StoreError
from p2pdist.model.ids import Digest, MapId, TagKey, digest_of
from p2pdist.model.statements import Revocation
from p2pdist.store.blob import create_files
from p2pdist.store.files import make_directories
from p2pdist.store.statements import Statements
from tests.store.conftest import OpenStore
from tests.store.content import CHUNK, SIGNER, chunk_of, hash_of, map_of, random_blob

MANIFEST = json.dumps({"schemaVersion": 2}).encode()


async def test_a_second_daemon_is_refused(open_store: OpenStore) -> None:
    await open_store()

    with pytest.raises(ConfigError, match="in use by another daemon"):
        await open_store()


async def test_a_directory_that_others_may_write_is_refused(
    tmp_path: Path, open_store: OpenStore
) -> None:
    (tmp_path / "store").mkdir(mode=0o700)
    (tmp_path / "store").chmod(0o770)

    with pytest.raises(ConfigError, match="chmod go-w"):
        await open_store()


async def test_a_symbolic_link_is_refused(tmp_path: Path, open_store: OpenStore) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "store").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="symbolic links are refused"):
        await open_store()


@pytest.mark.parametrize("left", [b"", bytes(2)])
async def test_a_format_that_a_power_cut_emptied_is_made_anew(
    tmp_path: Path, open_store: OpenStore, left: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await (await open_store()).close()
    path = tmp_path / "store" / "format"
    path.write_bytes(left)

    await open_store()

    assert path.read_bytes() == b"1\n"
    assert [record.getMessage() for record in caplog.records] == ["store.format_lost"]


async def test_a_directory_of_somebody_else_is_not_taken_for_a_store(
    tmp_path: Path, open_store: OpenStore
) -> None:
    await (await open_store()).close()
    (tmp_path / "store" / "format").write_bytes(b"")
    (tmp_path / "store" / "photos").mkdir()

    with pytest.raises(ConfigError, match="photos is not ours"):
        await open_store()


async def test_another_format_is_refused_plainly(tmp_path: Path, open_store: OpenStore) -> None:
    await (await open_store()).close()
    (tmp_path / "store" / "format").write_text("7\n")

    with pytest.raises(ConfigError, match="store format 7, this version knows 1"):
        await open_store()


async def test_the_directory_is_for_us_alone(tmp_path: Path, open_store: OpenStore) -> None:
    await open_store()

    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


async def test_a_foreign_name_in_the_store_is_not_followed(
    tmp_path: Path, open_store: OpenStore
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    await (await open_store()).close()
    place = tmp_path / "store" / "small" / "sha256" / "00"
    place.mkdir(parents=True)
    (place / ("00" * 32)).symlink_to(secret)

    store = await open_store()

    assert await store.get_small(Digest("sha256:" + "00" * 32)) is None
    assert secret.read_text() == "not yours"


# --- eviction -------------------------------------------------------------------------------------


async def test_the_least_recently_used_blob_goes_first(open_store: OpenStore) -> None:
    blobs = [random_blob(4, seed) for seed in range(4)]
    store = await open_store(max_bytes=int(4.2 * len(blobs[0])))
    gone: list[Digest] = []
    store.on_evict = gone.append
    for number, data in enumerate(blobs[:3]):
        (await store.create(map_of(data, map_id=bytes([number]) * 16))).used_at_s = number
    first, second, third = (digest_of(d) for d in blobs[:3])
    held = store.get(first)
    assert held is not None
    held.used_at_s = 10

    await store.create(map_of(blobs[3], map_id=b"9" * 16))

    assert gone == [second]
    assert store.get(first) is not None
    assert store.get(third) is not None


async def test_room_that_one_is_about_to_fill_is_not_given_to_another(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = random_blob(4, 1), random_blob(4, 2)
    store = await open_store(max_bytes=int(1.5 * len(one)))
    has_room, may_fill_it = threading.Event(), threading.Event()

    def create_at_leisure(*arguments: Any) -> Any:
        has_room.set()
        may_fill_it.wait(5.0)
        return create_files(*arguments)

    monkeypatch.setattr("p2pdist.store.store.create_files", create_at_leisure)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(store.create(map_of(one)))
        assert await asyncio.to_thread(has_room.wait, 5.0)

        with pytest.raises(StoreError) as caught:
            await store.create(map_of(two, map_id=b"2" * 16))
        may_fill_it.set()

    assert caught.value.full
    assert store.get(digest_of(one)) is first.result()


async def test_the_offer_is_retracted_before_the_bytes_go(open_store: OpenStore) -> None:
    one, two = random_blob(4, 1), random_blob(4, 2)
    store = await open_store(max_bytes=int(1.5 * len(one)))
    await store.create(map_of(one))
    there = []
    store.on_evict = lambda digest: there.append(store.get(digest) is not None)

    await store.create(map_of(two, map_id=b"2" * 16))

    assert there == [True]


async def test_a_blob_in_use_is_not_evicted(open_store: OpenStore) -> None:
    one, two = random_blob(4, 1), random_blob(4, 2)
    store = await open_store(max_bytes=int(1.5 * len(one)))
    blob = await store.create(map_of(one))
    blob.hold()
    told: list[Digest] = []
    store.on_evict = told.append

    with pytest.raises(StoreError) as caught:
        await store.create(map_of(two, map_id=b"2" * 16))

    assert caught.value.full
    assert told == [], "or its readers would be ended"
    assert store.get(digest_of(one)) is blob
    blob.release()


async def test_evicted_bytes_are_counted(open_store: OpenStore) -> None:
    one, two = random_blob(4, 1), random_blob(4, 2)
    store = await open_store(max_bytes=int(1.5 * len(one)))
    await store.create(map_of(one))
    await store.create(map_of(two, map_id=b"2" * 16))

    assert store.usage().evicted_bytes_total == len(one)
    assert store.usage().bytes_used == len(two)


# --- revocations ----------------------------------------------------------------------------------


async def test_a_revoked_map_makes_no_blob_also_after_a_restart(open_store: OpenStore) -> None:
    data = random_blob(3)
    chunk_map = map_of(data)
    store = await open_store()
    record = SIGNER.sign(Revocation(chunk_map.digest, chunk_map.map_id, 1))
    await store.put_revocation(chunk_map.digest, chunk_map.map_id, record)
    await store.close()

    again = await open_store()

    assert again.revoked(chunk_map.map_id)
    assert again.revocations() == [record]
    with pytest.raises(PeerFault, match="revoked"):
        await again.create(chunk_map)


async def test_a_blob_whose_map_was_revoked_is_gone_after_a_restart(
    open_store: OpenStore,
) -> None:
    data = random_blob(3)
    store = await open_store()
    blob = await store.create(map_of(data))
    await blob.admit(0, chunk_of(data, 0), hash_of(data, 0))
    record = SIGNER.sign(Revocation(blob.digest, blob.chunk_map.map_id, 1))
    await store.put_revocation(blob.digest, blob.chunk_map.map_id, record)
    await store.close()

    assert (await open_store()).blobs() == []


async def test_a_map_of_an_unknown_key_is_dropped_at_the_start(
    tmp_path: Path, open_store: OpenStore
) -> None:
    store = await open_store()
    blob = await store.create(map_of(random_blob(3)))
    await store.close()
    path = blob.path / "map"
    path.write_bytes(b"\0" * CHUNK)

    assert (await open_store()).blobs() == []


# --- small blobs and statements -------------------------------------------------------------------


async def test_a_small_blob_keeps_its_media_type(open_store: OpenStore) -> None:
    store = await open_store()
    digest = digest_of(MANIFEST)
    await store.put_small(digest, MANIFEST, "application/json")
    await store.close()

    small = await (await open_store()).get_small(digest)

    assert small is not None
    assert (small.body, small.media_type) == (MANIFEST, "application/json")


async def test_a_type_that_is_told_later_is_kept(open_store: OpenStore) -> None:
    """What came from the swarm has none until a proxy names it, maybe after a restart."""
    store = await open_store()
    digest = digest_of(MANIFEST)
    await store.put_small(digest, MANIFEST)
    await store.close()
    again = await open_store()

    await again.put_small(digest, MANIFEST, "application/json")
    await again.put_small(digest, MANIFEST, "text/html")
    await again.put_small(digest, MANIFEST)

    small = await again.get_small(digest)
    assert small is not None
    assert small.media_type == "application/json"


async def test_wrong_small_bytes_are_refused(open_store: OpenStore) -> None:
    store = await open_store()

    with pytest.raises(PeerFault, match="wrong bytes"):
        await store.put_small(digest_of(b"something else"), MANIFEST)

    assert not store.has_small(digest_of(b"something else"))


async def test_a_rotten_small_blob_is_dropped(tmp_path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    digest = digest_of(MANIFEST)
    await store.put_small(digest, MANIFEST)
    await store.close()
    (path,) = (tmp_path / "store" / "small").glob("*/*/*")
    path.write_bytes(path.read_bytes().replace(b"2", b"3"))
    again = await open_store()

    assert await again.get_small(digest) is None
    assert not again.has_small(digest)


async def test_a_statement_survives_a_restart(open_store: OpenStore) -> None:
    key = TagKey(b"k" * 32)
    store = await open_store()
    await store.put_statement(key, b"a signed record")
    await store.close()

    again = await open_store()

    assert await again.get_statement(key) == b"a signed record"
    assert again.statement_keys() == [key]


def test_statements_are_bounded_by_kind_and_the_oldest_go(tmp_path: Path) -> None:
    """Many layers take no tag away."""
    make_directories(tmp_path)
    kept = Statements(tmp_path, of_each_max=3)
    tag, *indexes = (TagKey(i.to_bytes(32)) for i in range(5))
    kept.put(tag, b"tag", index=False)
    for key in indexes:
        kept.put(key, b"index", index=True)

    again = Statements(tmp_path, of_each_max=3)
    again.load()

    for statements in (kept, again):
        assert sorted(statements.keys()) == sorted([tag, *indexes[1:]])
        assert [statements.get(key) for key in (tag, *indexes)] == [b"tag", None] + [b"index"] * 3


async def test_a_write_that_was_cut_leaves_nothing_after_a_restart(
    tmp_path: Path, open_store: OpenStore
) -> None:
    await (await open_store()).close()
    orphan = tmp_path / "store" / "statements" / ("ab" * 32 + ".1234.new")
    orphan.write_bytes(b"half a rec")

    await open_store()

    assert not orphan.exists()


async def test_removing_what_is_not_there_is_nothing(open_store: OpenStore) -> None:
    store = await open_store()

    await store.remove(digest_of(b"never heard of"))

    assert store.usage().blobs == 0
    assert not store.revoked(MapId(b"x" * 16))


# --- left-overs of a kill -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", ["revocations.0a1b2c3d.new", "statements/x.new", "small/sha256/ab/x.new"]
)
async def test_what_a_kill_left_unfinished_is_swept_at_the_start(
    tmp_path: Path, open_store: OpenStore, pattern: str
) -> None:
    await (await open_store()).close()
    left = tmp_path / "store" / pattern
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half")

    await open_store()

    assert not left.exists()


async def test_an_unfinished_replacement_of_a_map_is_swept_at_the_start(
    open_store: OpenStore,
) -> None:
    store = await open_store()
    blob = await store.create(map_of(random_blob(3)))
    left = blob.path / "map.new"
    left.write_bytes(b"half")
    await store.close()

    again = await open_store()

    assert again.get(blob.digest) is not None
    assert not left.exists()
