"""Any order of comings, goings, crashes and full disks: the store keeps to its limit and its word.

A state machine of Hypothesis on a real store; the invariants are looked at after every step.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pdist.errors import StoreError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.store.blob import Blob
from p2pdist.store.files import blob_path
from p2pdist.store.ports import StoreLimits
from p2pdist.store.store import Store
from tests.store.content import CHUNK, chunk_of, hash_of, keyring, map_of, random_blob

BLOBS = [random_blob(chunks, seed) for seed, chunks in enumerate((2, 3, 3, 4, 9))]
MAPS = [[map_of(data, sealed=sealed, map_id=bytes([i]) * 16) for sealed in (False, True)]
        for i, data in enumerate(BLOBS)]  # fmt: skip
SMALLS = [bytes([i]) * 200_000 for i in range(6)]
MAX_BYTES = 7 * CHUNK  # any two of the first four fit, and the last one never does
WHICH = st.integers(0, len(BLOBS) - 1)


T = TypeVar("T")


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp(prefix="room-"))
        self.held: list[Blob] = []
        self.retracted: list[Digest] = []
        self.free_bytes = 1 << 40
        self.boots = 0
        real = os.statvfs

        def statvfs(path: Any) -> Any:
            real(path)
            return SimpleNamespace(f_bavail=self.free_bytes, f_frsize=1)

        self.patch = mock.patch("p2pdist.store.store.os.statvfs", statvfs)
        self.patch.start()
        self.store = self.run(self.opened())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def opened(self) -> Store:
        store = await Store.open(
            self.root / "store",
            limits=StoreLimits(MAX_BYTES, reserve_free_bytes=0),
            keyring=keyring(),
            boot_id=f"boot {self.boots}",
        )
        store.on_evict = self.retracted.append
        return store

    async def create(self, which: int, sealed: bool) -> Blob | None:
        try:
            return await self.store.create(MAPS[which][sealed])
        except StoreError as error:
            if not error.full:
                raise
            return None

    @rule(which=WHICH, sealed=st.booleans())
    def one_comes(self, which: int, sealed: bool) -> None:
        self.run(self.create(which, sealed))

    @rule(whiches=st.lists(WHICH, min_size=2, max_size=6), sealed=st.booleans())
    def many_come_at_once(self, whiches: list[int], sealed: bool) -> None:
        """The same one several times, too."""

        async def together() -> None:
            await asyncio.gather(*(self.create(which, sealed) for which in whiches))

        self.run(together())

    @rule(whiches=st.sets(WHICH, max_size=3), comes=WHICH)
    def room_is_reserved_and_one_comes(self, whiches: set[int], comes: int) -> None:
        """Perhaps another one."""
        sizes = {digest_of(BLOBS[which]): len(BLOBS[which]) for which in whiches}

        async def reserved() -> None:
            async with self.store.reserve(sizes):
                self.the_limit_is_kept()
                await self.create(comes, True)
                self.store._room.validate()

        try:
            self.run(reserved())
        except StoreError as error:
            if not error.full:
                raise

    @rule(which=WHICH, other=WHICH)
    def one_comes_while_another_goes(self, which: int, other: int) -> None:
        async def together() -> None:
            await asyncio.gather(
                self.store.remove(digest_of(BLOBS[which])),
                self.create(which, True),
                self.store.remove(digest_of(BLOBS[other])),
                self.create(other, True),
            )

        if not any(
            blob.digest == digest_of(BLOBS[i]) for blob in self.held for i in (which, other)
        ):
            self.run(together())

    @rule(which=WHICH, chunk=st.integers(0, 8))
    def a_chunk_lands(self, which: int, chunk: int) -> None:
        blob = self.store.get(digest_of(BLOBS[which]))
        if blob is not None and chunk < blob.geometry.chunk_count:
            data = BLOBS[which]
            assert self.run(blob.admit(chunk, chunk_of(data, chunk), hash_of(data, chunk)))

    @rule(which=WHICH)
    def one_is_held(self, which: int) -> None:
        blob = self.store.get(digest_of(BLOBS[which]))
        if blob is not None:
            blob.hold()
            self.held.append(blob)

    @rule()
    def one_is_released(self) -> None:
        if self.held:
            self.held.pop().release()

    @rule(which=st.integers(0, len(SMALLS) - 1))
    def a_small_one_comes(self, which: int) -> None:
        body = SMALLS[which]
        try:
            self.run(self.store.put_small(digest_of(body), body))
        except StoreError as error:
            if not error.full:
                raise

    @rule(free=st.sampled_from([0, 300_000, 1_000_000, 1 << 40]))
    def others_fill_or_free_the_disk(self, free: int) -> None:
        self.free_bytes = free

    @rule(boots=st.booleans())
    def the_daemon_starts_again(self, boots: bool) -> None:
        while self.held:
            self.held.pop().release()
        self.run(self.store.close())
        self.boots += boots
        self.store = self.run(self.opened())

    # --- what always holds ----------------------------------------------------------------------

    @invariant()
    def the_limit_is_kept(self) -> None:
        assert self.store.usage().bytes_used + self.store._room.reserved_bytes <= MAX_BYTES

    @invariant()
    def nothing_stays_reserved(self) -> None:
        assert self.store._room.reserved_bytes == 0
        self.store._room.validate()

    @invariant()
    def every_blob_has_its_files_and_no_others_lie_there(self) -> None:
        root = self.root / "store" / "blobs"
        for blob in self.store.blobs():
            path = blob_path(root, blob.digest)
            assert (path / "data").stat().st_size == blob.geometry.size_bytes
            assert (path / "map").exists()
        there = {path.name for path in root.glob("*/*/*")}
        assert there == {blob.digest.partition(":")[2] for blob in self.store.blobs()}

    @invariant()
    def what_is_held_stays(self) -> None:
        for blob in self.held:
            assert self.store.get(blob.digest) is blob

    @invariant()
    def what_counts_as_verified_has_its_hash(self) -> None:
        for data in BLOBS:
            blob = self.store.get(digest_of(data))
            for chunk in blob.verified if blob is not None else ():
                assert blob is not None
                at, length = blob.geometry.offset(chunk), blob.geometry.length(chunk)
                assert self.run(blob.read(at, length)) == chunk_of(data, chunk)

    def teardown(self) -> None:
        while self.held:
            self.held.pop().release()
        self.run(self.store.close())
        self.runner.close()
        self.patch.stop()
        shutil.rmtree(self.root)


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestRoom = StoreMachine.TestCase
