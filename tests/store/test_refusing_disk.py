"""Whatever the disk refuses, and to whichever operation: callers see StoreError, never OSError."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from p2pdist.errors import StoreError
from p2pdist.model.ids import MapId, TagKey, digest_of
from p2pdist.model.statements import Revocation
from p2pdist.store.blob import Blob
from p2pdist.store.ports import Part
from p2pdist.store.store import Store
from tests.store.conftest import OpenStore
from tests.store.content import SIGNER, chunk_of, hash_of, map_of, random_blob

DATA, OTHER = random_blob(3), random_blob(2, seed=2)
SMALL, LATER = b"a config", b"another config"
KEY = TagKey(b"t" * 32)
VOID = MapId(b"v" * 16)

CALLS = (
    "open", "mkdir", "replace", "unlink", "fsync", "pwrite", "write", "pread", "posix_fallocate",
    "statvfs",
)  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT)
NUMBERS = (*FULL, errno.EROFS, errno.EACCES, errno.EIO)


@dataclass
class Held:
    """A store with a blob, of which the last chunk lacks, and a small one."""

    store: Store
    blob: Blob


async def held(open_store: OpenStore) -> Held:
    store = await open_store()
    blob = await store.create(map_of(DATA))
    for i in range(2):
        assert await blob.admit(i, chunk_of(DATA, i), hash_of(DATA, i))
    await store.put_small(digest_of(SMALL), SMALL)
    await store.put_statement(KEY, b"a record")
    return Held(store, blob)


async def put_revocation(on: Held) -> None:
    void = Revocation(digest_of(OTHER), VOID, 1)
    await on.store.put_revocation(void.digest, void.map_id, SIGNER.sign(void))


async def remove_all(on: Held) -> None:
    await on.store.remove(on.blob.digest)
    await on.store.remove(digest_of(SMALL))


OPERATIONS: dict[str, Callable[[Held], Awaitable[object]]] = {
    "create": lambda on: on.store.create(map_of(OTHER)),
    "create under another map": lambda on: on.store.create(map_of(DATA, map_id=b"n" * 16)),
    "put_small": lambda on: on.store.put_small(digest_of(LATER), LATER),
    "get_small": lambda on: on.store.get_small(digest_of(SMALL)),
    "put_statement": lambda on: on.store.put_statement(TagKey(b"u" * 32), b"a record"),
    "get_statement": lambda on: on.store.get_statement(KEY),
    "put_revocation": put_revocation,
    "pin": lambda on: on.store.pin("job", [on.blob.digest], 1e12),
    "unpin": lambda on: on.store.unpin("job"),
    "remove": remove_all,
    "room": lambda on: on.store.room(),
    "prove": lambda on: on.store.prove([Part(digest_of(SMALL), 0, 4)], b"k" * 32),
    "drop_lost": lambda on: on.store.drop_lost(),
    "admit": lambda on: on.blob.admit(2, chunk_of(DATA, 2), hash_of(DATA, 2)),
    "land": lambda on: on.blob.land(2, chunk_of(DATA, 2), ()),
    "read": lambda on: on.blob.read(0, 1000),
    "add_records": lambda on: on.blob.add_records(on.blob.chunk_map.records[-1]),
    "check": lambda on: on.blob.check(0, 2),
    "scrub": lambda on: on.blob.scrub(),
    "recover": lambda on: on.blob.recover(),
    "sync": lambda on: on.blob.sync(),
    "close": lambda on: on.store.close(),
}


@contextlib.contextmanager
def refusing(call: str, number: int) -> Iterator[None]:
    """`os.CALL` fails for everybody meanwhile; a read-only disk lets files be opened to read."""
    real_open = os.open

    def refuse(*args: Any, **_: object) -> int:
        if (call, number) == ("open", errno.EROFS) and args[1] & os.O_ACCMODE == os.O_RDONLY:
            return real_open(*args)
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, call, refuse)
        yield


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_refusal_is_a_store_error_and_passes(
    open_store: OpenStore, operation: str, call: str
) -> None:
    on = await held(open_store)
    work = OPERATIONS[operation]

    errors = {}
    for number in NUMBERS:
        with refusing(call, number):
            try:
                await work(on)
            except StoreError as error:
                errors[number] = error

    assert all(error.full == (number in FULL) for number, error in errors.items())
    if operation not in ("close", "remove"):
        await work(on)  # whatever it was refused, it can be done afterwards


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "replace"])
@pytest.mark.parametrize("number", NUMBERS)
async def test_small_things_that_cannot_be_kept_are_said_and_remembered(
    open_store: OpenStore, call: str, number: int
) -> None:
    store = await open_store()

    with refusing(call, number), pytest.raises(StoreError) as caught:
        await store.put_small(digest_of(SMALL), SMALL)

    said = store.refusal
    assert said is caught.value
    assert caught.value.full == (number in FULL)
    assert await store.get_small(digest_of(SMALL)) is None

    await store.put_small(digest_of(SMALL), SMALL)
    assert store.refusal is None
    assert (await store.get_small(digest_of(SMALL))) is not None


async def test_a_revocation_that_cannot_be_kept_is_in_force(open_store: OpenStore) -> None:
    on = await held(open_store)

    with refusing("fsync", errno.ENOSPC), pytest.raises(StoreError):
        await put_revocation(on)

    assert on.store.revoked(VOID)


@pytest.mark.parametrize("call", ["open", "pwrite"])
async def test_what_lies_there_is_checked_and_read_also_on_a_read_only_disk(
    open_store: OpenStore, call: str
) -> None:
    on = await held(open_store)
    await on.store.close()
    blob = (await open_store()).get(on.blob.digest)
    assert blob is not None

    with refusing(call, errno.EROFS):
        assert blob.unchecked(0, 2)
        assert await blob.check(0, 2) == []
        assert await blob.read(0, 1000) == DATA[:1000]
        assert not blob.unchecked(0, 2)


async def test_a_sector_that_cannot_be_read_is_as_rot(open_store: OpenStore) -> None:
    on = await held(open_store)
    await on.store.close()
    blob = (await open_store()).get(on.blob.digest)
    assert blob is not None

    with refusing("pread", errno.EIO):
        assert await blob.check(0, 1) == [0]

    assert list(blob.verified) == [1]


async def test_a_store_opens_on_a_disk_that_became_full_after_a_reboot(
    open_store: OpenStore,
) -> None:
    on = await held(open_store)
    await on.store.close()

    with refusing("pwrite", errno.ENOSPC):
        again = await open_store(boot_id="another")

    blob = again.get(on.blob.digest)
    assert blob is not None
    assert list(blob.verified) == [0, 1]
