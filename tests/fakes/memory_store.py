"""A store without a file: everything lies in memory and is gone with it.

Held to the same contract as the one on disk (`tests/conformance/store`). What decides about room is
the same core; nothing here waits, so each method is one step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import blake3

from p2pdist.errors import BlobGone, PeerFault, StoreError
from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import MANIFEST_SIZE_MAX_BYTES
from p2pdist.model.ids import Digest, MapId, TagKey, digest_algorithm, digest_of
from p2pdist.model.statements import Keyring
from p2pdist.process.clock import unix_s
from p2pdist.store.core.room import Promise, Rank, Room, Tenant
from p2pdist.store.ports import Data, Losses, Part, Resorted, SmallBlob, StoreLimits, StoreUsage
from p2pdist.store.revocations import REVOCATIONS_MAX
from p2pdist.store.statements import STATEMENTS_MAX

FREE: Final = 1 << 62
"""Memory has no end."""


class MemoryData:
    """What was opened stays readable, as an unlinked file does."""

    fileno = None

    def __init__(self, data: bytearray) -> None:
        self._data = data

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(memoryview(self._data)[offset : offset + length])

    def close(self) -> None: ...


class MemoryBlob:
    def __init__(self, chunk_map: ChunkMap, clock: Callable[[], float]) -> None:
        self.chunk_map = chunk_map
        self.geometry = chunk_map.geometry
        self.verified = ChunkSet(self.geometry.chunk_count)
        self.data = bytearray(self.geometry.size_bytes)
        self.removed = False
        self.holds = 0
        self.used_at_s = clock()
        self._clock = clock
        self._doubtful = ChunkSet(self.geometry.chunk_count)

    @property
    def digest(self) -> Digest:
        return self.chunk_map.digest

    @property
    def complete(self) -> bool:
        return self.chunk_map.sealed and self.verified.complete

    @property
    def synced(self) -> bool:
        return self.verified.complete

    def open_data(self) -> MemoryData:
        self._check_here()
        return MemoryData(self.data)

    def hold(self) -> None:
        self.holds += 1
        self.used_at_s = self._clock()

    def release(self) -> None:
        assert self.holds > 0
        self.holds -= 1
        self.used_at_s = self._clock()

    async def admit(self, chunk: int, data: Data, expected_hash: bytes) -> bool:
        return (await self.admit_many([(chunk, data, expected_hash)]))[0]

    async def admit_many(self, chunks: Sequence[tuple[int, Data, bytes]]) -> list[bool]:
        self._check_here()
        good = []
        for chunk, data, expected in chunks:
            right = len(data) == self.geometry.length(chunk) and chunk_hash(data) == expected
            good.append(right)
            if right:
                self._keep(chunk, data)
        return good

    async def land(
        self, chunk: int, data: Data, observers: Sequence[Callable[[Data], None]]
    ) -> bytes:
        self._check_here()
        for see in observers:
            see(data)
        self._keep(chunk, data)
        return chunk_hash(data)

    async def read(self, offset: int, length: int) -> bytes:
        self._check_here()
        return bytes(memoryview(self.data)[offset : offset + length])

    def unchecked(self, first: int, stop: int) -> bool:
        return False  # all that lies here came to this process

    async def check(self, first: int, stop: int) -> list[int]:
        return []

    async def scrub(self, first: int = 0, stop: int | None = None) -> list[int]:
        end = self.geometry.chunk_count if stop is None else stop
        lost = [i for i in range(first, end) if i in self.verified and not self._right(i)]
        for chunk in lost:
            self.verified.discard(chunk)
        return lost

    async def reclaim(self) -> None:
        for chunk in ChunkSet(
            self.geometry.chunk_count, self._doubtful.bits & self.chunk_map.known.bits
        ):
            self._doubtful.discard(chunk)
            if self._right(chunk):
                self.verified.add(chunk)

    async def add_records(self, *records: bytes) -> None:
        self._check_here()

    async def replace_map(self, chunk_map: ChunkMap) -> None:
        assert (chunk_map.digest, chunk_map.geometry) == (self.digest, self.geometry)
        self._check_here()
        for chunk in list(self.verified):
            known = chunk_map.hash_of(chunk)
            if known is None or known != self.chunk_map.hash_of(chunk):
                self.verified.discard(chunk)
                self._doubtful.add(chunk)
        self.chunk_map = chunk_map

    async def sync(self) -> None: ...

    def take_up(self, aside: MemoryBlob) -> None:
        """Its bytes, as long as nothing says that they are wrong."""
        self.data[:] = aside.data  # who reads from there goes on
        self._doubtful = ChunkSet.full(self.geometry.chunk_count)

    def _keep(self, chunk: int, data: Data) -> None:
        at = self.geometry.offset(chunk)
        self.data[at : at + len(data)] = data
        self._doubtful.discard(chunk)
        self.verified.add(chunk)

    def _right(self, chunk: int) -> bool:
        at, length = self.geometry.offset(chunk), self.geometry.length(chunk)
        return chunk_hash(self.data[at : at + length]) == self.chunk_map.hash_of(chunk)

    def _check_here(self) -> None:
        if self.removed:
            raise BlobGone(f"{self.digest} is not here any more")


class MemoryStore:
    """Open with `MemoryStore.open`, which takes what a daemon gives any store (`OpenStore`)."""

    has_files: Final = False

    def __init__(
        self,
        limits: StoreLimits,
        clock: Callable[[], float] = unix_s,
        keyring: Keyring | None = None,
    ) -> None:
        """`keyring`: None: all is believed."""
        self._keyring = keyring
        self._aside: dict[Digest, MemoryBlob] = {}
        self.on_evict: Callable[[Digest], None] | None = None
        self.on_pressure: Callable[[], None] | None = None
        self.refusal: StoreError | None = None
        self._limits = limits
        self._clock = clock
        self._room = Room(
            limits.max_bytes,
            high_watermark=limits.high_watermark,
            low_watermark=limits.low_watermark,
        )
        self._blobs: dict[Digest, MemoryBlob] = {}
        self._smalls: dict[Digest, tuple[SmallBlob, float]] = {}
        self._statements: dict[bool, OrderedDict[TagKey, bytes]]
        self._statements = {index: OrderedDict() for index in (False, True)}
        self._revocations: OrderedDict[MapId, bytes] = OrderedDict()
        self._pins: dict[str, tuple[float, list[Digest]]] = {}
        self._evicted_bytes = 0

    @classmethod
    async def open(
        cls, root: Path, *, limits: StoreLimits, keyring: Keyring, boot_id: str
    ) -> MemoryStore:
        return cls(limits, keyring=keyring)

    async def close(self) -> None:
        for blob in self._blobs.values():
            blob.removed = True
        self._blobs.clear()

    # --- blobs ----------------------------------------------------------------------------------

    def get(self, digest: Digest) -> MemoryBlob | None:
        return self._blobs.get(digest)

    def blobs(self) -> list[MemoryBlob]:
        return list(self._blobs.values())

    async def create(self, chunk_map: ChunkMap) -> MemoryBlob:
        digest = chunk_map.digest
        if self.revoked(chunk_map.map_id):
            raise PeerFault("a revoked chunk map", reason="map")
        blob = self._blobs.get(digest)
        if blob is not None and blob.geometry != chunk_map.geometry:
            await self.remove(digest)
            blob = None
        if blob is None:
            self._room.claim(digest)
            self._keep_room(chunk_map.geometry.size_bytes)
            blob = self._blobs[digest] = MemoryBlob(chunk_map, self._clock)
            aside = self._aside.pop(digest, None)
            if aside is not None and aside.geometry == blob.geometry:
                blob.take_up(aside)
        elif blob.chunk_map.map_id != chunk_map.map_id:
            await blob.replace_map(chunk_map)
        return blob

    async def remove(self, digest: Digest) -> None:
        self._remove(digest)

    def _remove(self, digest: Digest) -> None:
        blob = self._blobs.pop(digest, None)
        if blob is not None:
            blob.removed = True
        self._smalls.pop(digest, None)

    def aside(self, digest: Digest) -> int | None:
        kept = self._aside.get(digest)
        return None if kept is None else kept.geometry.size_bytes

    async def keys_changed(self, moves: Callable[[Digest], bool]) -> Resorted:
        back, later = list[Digest](), list[Digest]()
        for digest, blob in list(self._aside.items()):
            if self._believed(blob):
                self._blobs[digest] = self._aside.pop(digest)
                back.append(digest)
        for digest, blob in list(self._blobs.items()):
            if self._believed(blob):
                continue
            if moves(digest):
                later.append(digest)
                continue
            if self.on_evict is not None:
                self.on_evict(digest)
            self._aside[digest] = self._blobs.pop(digest)
        return Resorted(back, later)

    def _believed(self, blob: MemoryBlob) -> bool:
        return self._keyring is None or blob.chunk_map.signed_by(self._keyring.knows)

    # --- room -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def reserve(self, sizes: Mapping[Digest, int]) -> AsyncIterator[None]:
        promise = Promise()
        try:
            coming = {digest: size for digest, size in sizes.items() if digest not in self._blobs}
            lacking = self._room.share(promise, coming)
            self._make_room(sum(lacking.values()))
            self._room.promise(promise, lacking)
            yield
        finally:
            self._room.withdraw(promise)

    def _keep_room(self, nbytes: int) -> None:
        try:
            self._make_room(nbytes)
        except StoreError as error:
            self.refusal = error
            raise
        self.refusal = None

    def _make_room(self, nbytes: int) -> None:
        if self._room.ample(nbytes, used=self._used(), free=FREE):
            return
        if self.on_pressure is not None:
            self.on_pressure()
        leaving = self._room.plan(nbytes, used=self._used(), free=FREE, tenants=self._tenants())
        for tenant in leaving:
            if self.on_evict is not None:
                self.on_evict(tenant.digest)
            self._remove(tenant.digest)
            self._evicted_bytes += tenant.nbytes

    def _tenants(self) -> Iterator[Tenant]:
        for blob in self._blobs.values():
            if not blob.holds and not self._pinned(blob.digest):
                rank = Rank.BLOB if blob.chunk_map.sealed else Rank.UNPROVEN
                yield Tenant(blob.digest, blob.geometry.size_bytes, rank, blob.used_at_s)
        for small, used_at_s in self._smalls.values():
            if not self._pinned(small.digest):
                yield Tenant(small.digest, len(small.body), Rank.SMALL, used_at_s)

    def _used(self) -> int:
        smalls = sum(len(small.body) for small, _ in self._smalls.values())
        blobs = (*self._blobs.values(), *self._aside.values())
        return smalls + sum(blob.geometry.size_bytes for blob in blobs)

    async def room(self) -> int:
        spare = sum(
            blob.geometry.size_bytes
            for blob in self._blobs.values()
            if not self._pinned(blob.digest)
        )
        return self._limits.max_bytes - self._used() - self._room.reserved_bytes + spare

    def usage(self) -> StoreUsage:
        return StoreUsage(
            self._used(),
            self._limits.max_bytes,
            len(self._blobs),
            len(self._smalls),
            self._evicted_bytes,
            open_files=0,
            aside_bytes=sum(blob.geometry.size_bytes for blob in self._aside.values()),
        )

    # --- pins and proofs ------------------------------------------------------------------------

    async def pin(self, job: str, digests: Sequence[Digest], until_unix_s: float) -> None:
        self._pins[job] = until_unix_s, list(digests)

    async def unpin(self, job: str) -> None:
        self._pins.pop(job, None)

    def _pinned(self, digest: Digest) -> bool:
        now_unix_s = self._clock()
        return any(
            until > now_unix_s and digest in digests for until, digests in self._pins.values()
        )

    def pinned_bytes(self) -> int:
        return sum(b.geometry.size_bytes for b in self._blobs.values() if self._pinned(b.digest))

    async def prove(self, parts: Sequence[Part], key: bytes) -> bytes | None:
        hasher = blake3.blake3(key=key)
        for part in parts:
            blob, small = self._blobs.get(part.digest), self._smalls.get(part.digest)
            if blob is not None and blob.complete:
                body = bytes(blob.data)
            elif blob is None and small is not None:
                body = small[0].body
            else:
                return None
            hasher.update(body[part.offset : part.offset + part.length])
        return hasher.digest()

    async def drop_lost(self) -> Losses:
        return Losses([], [], [])

    # --- small blobs, statements, revocations ---------------------------------------------------

    async def put_small(self, digest: Digest, body: bytes, media_type: str = "") -> None:
        if len(body) > MANIFEST_SIZE_MAX_BYTES:
            raise PeerFault(f"small blob of {len(body)} bytes", reason="length")
        if digest_of(body, digest_algorithm(digest)) != digest:
            raise PeerFault("a small blob with wrong bytes", reason="hash")
        known = self._smalls.get(digest)
        if known is None:
            self._keep_room(len(body))
        elif known[0].media_type:
            return
        self._smalls[digest] = SmallBlob(digest, media_type, body), self._clock()

    async def get_small(self, digest: Digest) -> SmallBlob | None:
        if digest not in self._smalls:
            return None
        small, _ = self._smalls[digest]
        self._smalls[digest] = small, self._clock()
        return small

    def has_small(self, digest: Digest) -> bool:
        return digest in self._smalls

    def smalls(self) -> Iterator[Digest]:
        return iter(list(self._smalls))

    async def put_statement(self, key: TagKey, record: bytes, *, index: bool = False) -> None:
        kept = self._statements[index]
        kept[key] = record
        kept.move_to_end(key)
        if len(kept) > STATEMENTS_MAX:
            kept.popitem(last=False)

    async def get_statement(self, key: TagKey) -> bytes | None:
        return self._statements[False].get(key) or self._statements[True].get(key)

    def statement_keys(self) -> list[TagKey]:
        return [key for kept in self._statements.values() for key in kept]

    async def put_revocation(self, digest: Digest, map_id: MapId, record: bytes) -> None:
        self._revocations[map_id] = record
        if len(self._revocations) > REVOCATIONS_MAX:
            self._revocations.popitem(last=False)

    def revoked(self, map_id: MapId) -> bool:
        return map_id in self._revocations

    def revocations(self) -> list[bytes]:
        return list(self._revocations.values())
