"""The limit is kept, what is reserved is there, and what is in use or pinned stays."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from p2pdist.errors import StoreError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.store.ports import BlobStore
from tests.conformance.store.conftest import Stores, filled
from tests.store.content import map_of, random_blob

BLOBS = [random_blob(4, seed) for seed in range(4)]
SIZE = len(BLOBS[0])
DIGESTS = [digest_of(data) for data in BLOBS]


async def one_comes(store: BlobStore, which: int, *, sealed: bool = True) -> None:
    await store.create(map_of(BLOBS[which], sealed=sealed, map_id=bytes([which]) * 16))


def here(store: BlobStore) -> list[int]:
    return [which for which, digest in enumerate(DIGESTS) if store.get(digest) is not None]


async def refused(store: BlobStore, which: int) -> None:
    with pytest.raises(StoreError) as caught:
        await one_comes(store, which)
    assert caught.value.full


# --- who goes -------------------------------------------------------------------------------------


async def test_the_least_recently_used_blob_goes_first_and_is_counted(stores: Stores) -> None:
    store = await stores.open(int(4.2 * SIZE))
    for which in range(3):
        await one_comes(store, which)
    first = store.get(DIGESTS[0])
    assert first is not None
    first.hold()
    first.release()

    await one_comes(store, 3)

    assert here(store) == [0, 2, 3]
    usage = store.usage()
    assert (usage.evicted_bytes_total, usage.bytes_used, usage.blobs) == (SIZE, 3 * SIZE, 3)
    assert usage.bytes_max == int(4.2 * SIZE)


async def test_an_open_blob_that_nobody_holds_goes_before_a_whole_one(stores: Stores) -> None:
    store = await stores.open(int(2.5 * SIZE))
    await one_comes(store, 0)
    await one_comes(store, 1, sealed=False)

    await one_comes(store, 2)

    assert here(store) == [0, 2]


async def test_the_offer_is_retracted_before_the_bytes_go(stores: Stores) -> None:
    store = await stores.open(int(1.5 * SIZE))
    await one_comes(store, 0)
    there: list[tuple[Digest, bool]] = []
    store.on_evict = lambda digest: there.append((digest, store.get(digest) is not None))

    await one_comes(store, 1)

    assert there == [(DIGESTS[0], True)]


async def test_nobody_goes_for_what_would_not_fit_all_the_same(stores: Stores) -> None:
    store = await stores.open(int(1.5 * SIZE))
    await one_comes(store, 0)
    large = random_blob(7, 9)

    with pytest.raises(StoreError) as caught:
        await store.create(map_of(large))

    assert caught.value.full
    assert here(store) == [0]
    assert store.refusal is not None
    assert store.refusal.full


async def test_a_refusal_is_forgotten_once_something_is_kept(stores: Stores) -> None:
    store = await stores.open(int(1.5 * SIZE))
    with pytest.raises(StoreError):
        await store.create(map_of(random_blob(7, 9)))

    await one_comes(store, 0)

    assert store.refusal is None


async def test_what_is_held_stays_until_it_is_released_as_often(stores: Stores) -> None:
    store = await stores.open(int(1.5 * SIZE))
    await one_comes(store, 0)
    blob = store.get(DIGESTS[0])
    assert blob is not None
    blob.hold()
    blob.hold()
    blob.release()

    await refused(store, 1)
    assert here(store) == [0]

    blob.release()
    await one_comes(store, 1)
    assert here(store) == [1]


async def test_what_is_held_for_convenience_is_let_go_when_room_is_needed(stores: Stores) -> None:
    store = await stores.open(int(1.5 * SIZE))
    await one_comes(store, 0)
    blob = store.get(DIGESTS[0])
    assert blob is not None
    blob.hold()
    store.on_pressure = blob.release

    await one_comes(store, 1)

    assert here(store) == [1]


async def test_many_that_come_at_once_do_not_each_find_the_same_room(stores: Stores) -> None:
    store = await stores.open(int(2.5 * SIZE))

    tries = [one_comes(store, which) for which in range(4)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)

    assert all(isinstance(error, StoreError) and error.full for error in outcomes if error)
    assert here(store)
    assert store.usage().bytes_used <= store.usage().bytes_max


async def test_what_is_pinned_stays_until_its_last_job_is_over(stores: Stores) -> None:
    store = await stores.open(int(1.5 * SIZE))
    await store.pin("a", [DIGESTS[0]], stores.clock() + 10)
    await store.pin("b", [DIGESTS[0]], stores.clock() + 10)
    await one_comes(store, 0)
    assert store.pinned_bytes() == SIZE

    await store.unpin("a")
    await refused(store, 1)
    await store.unpin("b")

    assert store.pinned_bytes() == 0
    await one_comes(store, 1)
    assert here(store) == [1]


async def test_later_pins_of_a_job_replace_earlier_ones_and_run_out(stores: Stores) -> None:
    store = await stores.open(int(2.5 * SIZE))
    await one_comes(store, 0)
    await one_comes(store, 1)
    await store.pin("job", [DIGESTS[0]], stores.clock() + 10)
    await store.pin("job", [DIGESTS[1]], stores.clock() + 10)

    await one_comes(store, 2)
    assert here(store) == [1, 2]

    stores.clock.now_s += 60
    await one_comes(store, 3)
    assert here(store) == [2, 3]


# --- what is reserved -----------------------------------------------------------------------------


async def test_reserved_room_is_there_for_nobody_else(stores: Stores) -> None:
    store = await stores.open(int(2.5 * SIZE))
    await store.pin("job", DIGESTS[:2], stores.clock() + 10)

    async with store.reserve({DIGESTS[0]: SIZE, DIGESTS[1]: SIZE}):
        assert await store.room() == int(2.5 * SIZE) - 2 * SIZE
        await refused(store, 2)
        await one_comes(store, 0)
        await refused(store, 2)
        await one_comes(store, 1)

    assert here(store) == [0, 1]
    assert store.usage().evicted_bytes_total == 0


async def test_what_did_not_come_is_free_when_the_block_ends(stores: Stores) -> None:
    store = await stores.open(int(2.5 * SIZE))

    with suppress(ConnectionError):
        async with store.reserve({DIGESTS[0]: SIZE, DIGESTS[1]: SIZE}):
            await one_comes(store, 0)
            raise ConnectionError

    assert await store.room() == int(2.5 * SIZE)
    await one_comes(store, 2)
    assert here(store) == [0, 2]


async def test_to_reserve_makes_the_room(stores: Stores) -> None:
    store = await stores.open(int(2.5 * SIZE))
    await one_comes(store, 0)
    await one_comes(store, 1)

    async with store.reserve({DIGESTS[2]: SIZE}):
        assert here(store) == [1]


async def test_what_cannot_be_reserved_changes_nothing(stores: Stores) -> None:
    """Neither does the store count as one that refuses: nothing was to be kept."""
    store = await stores.open(int(2.5 * SIZE))
    await one_comes(store, 0)

    with pytest.raises(StoreError) as caught:
        async with store.reserve({DIGESTS[1]: SIZE, DIGESTS[2]: 2 * SIZE}):
            pytest.fail("there was no room")

    assert caught.value.full
    assert here(store) == [0]
    assert store.refusal is None
    assert await store.room() == int(2.5 * SIZE)


async def test_what_is_here_costs_nothing(stores: Stores) -> None:
    store = await stores.open(int(2.5 * SIZE))
    await filled(store, BLOBS[0])

    async with store.reserve({DIGESTS[0]: SIZE, DIGESTS[1]: SIZE}):
        assert here(store) == [0]
        await one_comes(store, 1)
        assert here(store) == [0, 1]


async def test_two_who_reserve_for_one_blob_take_its_room_once(stores: Stores) -> None:
    store = await stores.open(int(1.5 * SIZE))

    async with store.reserve({DIGESTS[0]: SIZE}):
        async with store.reserve({DIGESTS[0]: SIZE}):
            assert await store.room() == int(1.5 * SIZE) - SIZE
        assert await store.room() == int(1.5 * SIZE) - SIZE
        await one_comes(store, 0)

    assert here(store) == [0]


async def test_room_that_two_reserved_is_kept_for_the_last_of_them(stores: Stores) -> None:
    store = await stores.open(int(1.5 * SIZE))

    async with AsyncExitStack() as second:
        async with store.reserve({DIGESTS[0]: SIZE}):
            await second.enter_async_context(store.reserve({DIGESTS[0]: SIZE}))
        await refused(store, 1)

    await one_comes(store, 1)


async def test_a_blob_that_is_larger_than_was_said_finds_its_room_or_is_refused(
    stores: Stores,
) -> None:
    store = await stores.open(int(1.5 * SIZE))

    async with store.reserve({DIGESTS[0]: 10}):
        await one_comes(store, 0)
    async with store.reserve({digest_of(large := random_blob(7, 9)): 10}):
        with pytest.raises(StoreError) as caught:
            await store.create(map_of(large))

    assert caught.value.full
    assert here(store) == [0]
    assert await store.room() == int(1.5 * SIZE)
