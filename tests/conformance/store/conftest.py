"""The `bench` fixture: the same statements for every store (`p2pdist.store.ports`).

To put another store to the test, write a `Bench` and add it to `BENCHES`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Protocol

import pytest

from p2pdist.model.statements import Keyring
from p2pdist.store.blob import Blob
from p2pdist.store.ports import BlobStore, StoredBlob, StoreLimits
from p2pdist.store.store import Store
from tests.fakes.memory_store import MemoryBlob, MemoryStore
from tests.store.content import chunk_of, hash_of, keyring, map_of


class Clock:
    """Wall-clock seconds; each look is later than the one before."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s


class Bench(Protocol):
    """Makes a store, and does to it what nobody asks a store to do."""

    clock: Clock

    keyring: Keyring

    async def open(self, root: Path, limits: StoreLimits) -> BlobStore: ...

    def spoil(self, blob: StoredBlob, offset: int) -> None:
        """Change the byte at `offset` where it lies."""


class LocalBench:
    def __init__(self) -> None:
        self.clock, self.keyring = Clock(), keyring()

    async def open(self, root: Path, limits: StoreLimits) -> BlobStore:
        return await Store.open(
            root, limits=limits, keyring=self.keyring, boot_id="boot", clock=self.clock
        )

    def spoil(self, blob: StoredBlob, offset: int) -> None:
        assert isinstance(blob, Blob)
        with (blob.path / "data").open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1]))


class MemoryBench:
    def __init__(self) -> None:
        self.clock, self.keyring = Clock(), keyring()

    async def open(self, root: Path, limits: StoreLimits) -> BlobStore:
        return MemoryStore(limits, self.clock, self.keyring)

    def spoil(self, blob: StoredBlob, offset: int) -> None:
        assert isinstance(blob, MemoryBlob)
        blob.data[offset] ^= 1


BENCHES: Final[dict[str, type[LocalBench] | type[MemoryBench]]] = {
    "local": LocalBench,
    "memory": MemoryBench,
}


class Stores:
    """What a test asks for: stores of one kind, closed at its end."""

    def __init__(self, bench: Bench, directory: Path, stack: AsyncExitStack) -> None:
        self.clock, self.keyring = bench.clock, bench.keyring
        self.spoil = bench.spoil
        self._bench = bench
        self._directory = directory
        self._stack = stack

    async def open(self, max_bytes: int = 1 << 30) -> BlobStore:
        limits = StoreLimits(max_bytes, reserve_free_bytes=0)
        store = await self._bench.open(self._directory / "store", limits)
        self._stack.push_async_callback(store.close)
        return store


@pytest.fixture(params=BENCHES)
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as stack:
        yield Stores(BENCHES[request.param](), tmp_path, stack)


async def filled(store: BlobStore, data: bytes, map_id: bytes = b"m" * 16) -> StoredBlob:
    """A whole blob of it."""
    blob = await store.create(map_of(data, map_id=map_id))
    indexes = blob.geometry.indexes()
    good = await blob.admit_many([(i, chunk_of(data, i), hash_of(data, i)) for i in indexes])
    assert all(good)
    return blob
