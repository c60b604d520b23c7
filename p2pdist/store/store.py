"""All blobs of one daemon on one disk: create, find, evict, recover."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from p2pdist.errors import PeerFault, StoreError
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.ids import Digest, MapId, TagKey, parse_exchanged
from p2pdist.model.statements import Keyring
from p2pdist.process import logs
from p2pdist.process.clock import unix_s
from p2pdist.store.aside import NOT_BELIEVED, Aside, look_aside, not_signed_by, reopen_files
from p2pdist.store.bits import Bits
from p2pdist.store.blob import Blob, create_files, load_files
from p2pdist.store.core.room import Promise, Rank, Room, Tenant
from p2pdist.store.disk import Disk
from p2pdist.store.files import blob_directories, blob_path, claim, make_directories
from p2pdist.store.holdings import Gone, keyed_hash, missing_blobs
from p2pdist.store.pins import Pins
from p2pdist.store.ports import Losses, Part, Resorted, SmallBlob, StoreLimits, StoreUsage
from p2pdist.store.revocations import Revocations
from p2pdist.store.smalls import SmallFiles
from p2pdist.store.statements import Statements

log = logging.getLogger(__name__)

UNTOLD: Final = 1 << 62
"""Free bytes of a disk that is not asked: it says so itself when it has none."""


class Store:
    """Open with `Store.open`; one daemon at a time."""

    on_evict: Callable[[Digest], None] | None = None
    """Called before the bytes of a blob go, so that its offer goes first."""
    has_files: Final = True
    on_pressure: Callable[[], None] | None = None
    """Called when room is needed: let go of the blobs that are held for convenience."""

    def __init__(
        self,
        root: Path,
        lock_fd: int,
        *,
        limits: StoreLimits,
        keyring: Keyring,
        boot_id: str,
        clock: Callable[[], float],
    ) -> None:
        self._root = root
        self._lock_fd = lock_fd
        self._limits = limits
        self._keyring = keyring
        self._boot_id = boot_id
        self._clock = clock
        self._disk = Disk()
        self._blobs: dict[Digest, Blob] = {}
        self._aside: dict[Digest, Aside] = {}
        self._room = Room(
            limits.max_bytes,
            high_watermark=limits.high_watermark,
            low_watermark=limits.low_watermark,
        )
        self._planning = asyncio.Lock()  # one at a time finds out who has to go
        self._locks: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()
        """Held while the files of a digest come or go."""
        self._smalls = SmallFiles(root / "small", clock)
        self._statements = Statements(root)
        self._revocations = Revocations(root / "revocations")
        self._pins = Pins(root / "pins")
        self._evicted_bytes = 0

    @classmethod
    async def open(
        cls,
        root: Path,
        *,
        limits: StoreLimits,
        keyring: Keyring,
        boot_id: str,
        clock: Callable[[], float] = unix_s,
    ) -> Store:
        """Open or make the store at `root` and recover what lies there.

        Raises ConfigError for a directory that others may write, that another daemon has, or that
        has a format of another version.
        """
        lock_fd = await asyncio.to_thread(claim, root)
        options: dict[str, Any] = {"limits": limits, "keyring": keyring, "boot_id": boot_id}
        store = cls(root, lock_fd, clock=clock, **options)
        try:
            await store._recover()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        for blob in self._blobs.values():
            with contextlib.suppress(StoreError):
                await blob.sync()
            blob.close()
        self._blobs.clear()
        self._disk.files.let_go()
        self._disk.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    # --- blobs ----------------------------------------------------------------------------------

    def get(self, digest: Digest) -> Blob | None:
        return self._blobs.get(digest)

    def blobs(self) -> list[Blob]:
        return list(self._blobs.values())

    async def create(self, chunk_map: ChunkMap) -> Blob:
        """Return the blob of a digest, made with room for all its bytes if it is new.

        What lay here under a map of another size goes: the caller decides which of them is right.
        Raises PeerFault for a revoked map, StoreError (`full`) when there is no room, even after
        eviction.
        """
        digest = chunk_map.digest
        if self.revoked(chunk_map.map_id):
            raise PeerFault("a revoked chunk map", reason="map")
        async with self._lock_of(digest):
            existing = self._blobs.get(digest)
            if existing is not None and existing.geometry != chunk_map.geometry:
                await self._remove(digest)
                existing = None
            if existing is None:
                return await self._create(chunk_map)
            if existing.chunk_map.map_id != chunk_map.map_id:
                await existing.replace_map(chunk_map)
            return existing

    def _lock_of(self, digest: Digest) -> asyncio.Lock:
        lock = self._locks.get(digest)
        if lock is None:
            lock = self._locks[digest] = asyncio.Lock()
        return lock

    async def _create(self, chunk_map: ChunkMap) -> Blob:
        digest, path = chunk_map.digest, blob_path(self._root / "blobs", chunk_map.digest)
        if (aside := self._aside.pop(digest, None)) is not None:
            return await self._reopen(aside, chunk_map)
        async with self._reserved(chunk_map.geometry.size_bytes, of=digest):
            try:
                what = f"make room for {digest}"
                bits = await self._disk.keep(what, create_files, path, chunk_map, self._boot_id)
            except StoreError:
                await self._disk.run("clear away", shutil.rmtree, path, True)
                raise
            blob = Blob(path, chunk_map, bits, self._disk, self._clock)
            self._blobs[digest] = blob
            return blob

    async def _reopen(self, aside: Aside, chunk_map: ChunkMap) -> Blob:
        """Take up again, under another map, what was kept aside."""
        digest = chunk_map.digest
        try:
            size = chunk_map.geometry.size_bytes
            async with self._reserved(size, lies_here=aside.size_bytes):
                what = f"take {digest} up again"
                doubtful = await self._disk.keep(what, reopen_files, aside.path, chunk_map)
                count = chunk_map.geometry.chunk_count
                bits = Bits(self._boot_id, ChunkSet(count), ChunkSet(count))
                blob = Blob(aside.path, chunk_map, bits, self._disk, self._clock, doubtful=doubtful)
                self._blobs[digest] = blob
        except StoreError:
            self._aside[digest] = aside
            raise
        await blob.reclaim()
        return blob

    def aside(self, digest: Digest) -> int | None:
        """Bytes that lie here of a blob whose map does not hold (`aside`); None: there is none."""
        kept = self._aside.get(digest)
        return None if kept is None else kept.size_bytes

    async def keys_changed(self, moves: Callable[[Digest], bool]) -> Resorted:
        """See `ports.BlobStore`."""
        await self._disk.run("sort the revocations", self._revocations.sort, self._keyring)
        back, later = list[Digest](), list[Digest]()
        for digest, aside in list(self._aside.items()):
            async with self._lock_of(digest):
                if self._aside.get(digest) is aside:
                    await self._recover_blob(aside.path)
                    back += [digest] if digest in self._blobs else []
        async for blob in not_signed_by(self._keyring, self.blobs()):
            if moves(blob.digest):
                later.append(blob.digest)
            else:
                await self._put_aside(blob, blob.digest)
        return Resorted(back, later)

    async def _put_aside(self, blob: Blob, digest: Digest) -> None:
        with contextlib.suppress(StoreError):  # what is not synced is hashed again one day
            await blob.sync()
        async with self._lock_of(digest):
            if self._blobs.get(digest) is blob:
                if self.on_evict is not None:
                    self.on_evict(digest)
                del self._blobs[digest]
                self._aside[digest] = Aside(blob.path, blob.bytes_on_disk, NOT_BELIEVED)
                await self._disk.run("leave a blob", blob.leave)

    async def remove(self, digest: Digest) -> None:
        """Drop a blob or a small one; who reads it keeps the open file."""
        async with self._lock_of(digest):
            await self._remove(digest)

    async def _remove(self, digest: Digest) -> None:
        blob = self._blobs.pop(digest, None)
        if blob is not None:
            await self._disk.run("remove", blob.remove)
        await self._disk.run("remove", self._smalls.remove, digest)

    # --- room -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def reserve(self, sizes: Mapping[Digest, int]) -> AsyncIterator[None]:
        """See `ports.BlobStore`."""
        promise = Promise()
        try:
            async with self._planning:
                coming = {digest: size for digest, size in sizes.items() if self._is_new(digest)}
                lacking = self._room.share(promise, coming)
                await self._make_room(sum(lacking.values()), lies_here=0)
                new = {digest: size for digest, size in lacking.items() if self._is_new(digest)}
                self._room.promise(promise, new)
            yield
        finally:
            self._room.withdraw(promise)

    def _is_new(self, digest: Digest) -> bool:
        """Nothing of it is here or comes in just now."""
        lock = self._locks.get(digest)
        comes = lock is not None and lock.locked()
        return digest not in self._blobs and digest not in self._aside and not comes

    @asynccontextmanager
    async def _reserved(
        self, nbytes: int, *, of: Digest | None = None, lies_here: int = 0
    ) -> AsyncIterator[None]:
        """Room for `nbytes` as long as the block lasts, by the end of which they are in use.

        `of`: the blob that they are, which takes what was reserved for it. `lies_here` of them are
        on the disk already, though not counted. Evicts what has to go; raises StoreError (`full`)
        where that would not be enough, and evicts nothing then.
        """
        async with self._planning:
            if of is not None:
                self._room.claim(of)
            try:
                await self._make_room(nbytes, lies_here)
            except StoreError as error:
                self._disk.refusal = error
                raise
            self._room.reserve(nbytes)
        try:
            yield
        finally:
            self._room.release(nbytes)

    async def _make_room(self, nbytes: int, lies_here: int) -> None:
        free = await self._free() + lies_here
        if self._room.ample(nbytes, used=self._used(), free=free):
            return
        if self.on_pressure is not None:
            self.on_pressure()
        leaving = self._room.plan(nbytes, used=self._used(), free=free, tenants=self._tenants())
        for tenant in leaving:
            await self._evict(tenant)
        free = await self._free() + lies_here
        if not self._room.fits(nbytes, used=self._used(), free=free):
            # Meanwhile some of them came into use.
            raise StoreError(f"no room for {nbytes} bytes", full=True)

    def _tenants(self) -> Iterator[Tenant]:
        """What may go."""
        now_unix_s = self._clock()
        for digest, aside in self._aside.items():
            yield Tenant(digest, aside.size_bytes, Rank.ASIDE, 0.0)
        for blob in self._blobs.values():
            if not blob.in_use and not self._pins.pinned(blob.digest, now_unix_s):
                rank = Rank.BLOB if blob.chunk_map.sealed else Rank.UNPROVEN
                yield Tenant(blob.digest, blob.bytes_on_disk, rank, blob.used_at_s)
        for digest, nbytes, used_at_s in self._smalls.listed():
            if not self._pins.pinned(digest, now_unix_s):
                yield Tenant(digest, nbytes, Rank.SMALL, used_at_s)

    async def _evict(self, tenant: Tenant) -> None:
        lock = self._lock_of(tenant.digest)
        if lock.locked():
            return  # it is being taken up
        async with lock:
            if self._aside.pop(tenant.digest, None) is not None:
                path = blob_path(self._root / "blobs", tenant.digest)
                await self._disk.run("remove", shutil.rmtree, path, True)
            else:
                if self.on_evict is not None:
                    self.on_evict(tenant.digest)
                blob = self._blobs.get(tenant.digest)
                if blob is not None and blob.in_use:
                    return
                await self._remove(tenant.digest)
            self._evicted_bytes += tenant.nbytes

    # --- pins and proofs ------------------------------------------------------------------------

    async def pin(self, job: str, digests: Sequence[Digest], until_unix_s: float) -> None:
        """Keep blobs from eviction until then, also over restarts; a job's later pins replace its
        earlier ones. Raises StoreError."""
        self._pins.expire(self._clock())
        self._pins.put(job, digests, until_unix_s)
        await self._disk.keep("save the pins", self._pins.save)

    async def unpin(self, job: str) -> None:
        """Raises StoreError."""
        self._pins.drop(job)
        await self._disk.keep("save the pins", self._pins.save)

    def pinned_bytes(self) -> int:
        """Of the blobs that lie here."""
        held = map(self._blobs.get, self._pins.digests(self._clock()))
        return sum(blob.bytes_on_disk for blob in held if blob is not None)

    async def room(self) -> int:
        """Bytes that blobs to come may take, when all that may be evicted is. Raises
        StoreError."""
        free = await self._free()
        now_unix_s = self._clock()
        spare = sum(aside.size_bytes for aside in self._aside.values()) + sum(
            blob.bytes_on_disk
            for blob in self._blobs.values()
            if not self._pins.pinned(blob.digest, now_unix_s)
        )
        taken = self._used() + self._room.reserved_bytes
        return min(self._limits.max_bytes - taken, free - self._room.reserved_bytes) + spare

    async def prove(self, parts: Sequence[Part], key: bytes) -> bytes | None:
        """Hash parts of what lies here, from the disk (`holdings`); None: some of it is gone."""
        try:
            work = (keyed_hash, parts, key, self._blobs, self._smalls)
            return await self._disk.run("prove", *work)
        except (Gone, StoreError):
            return None

    async def drop_lost(self) -> Losses:
        """Forget what was taken away from below, and return it; `on_evict` hears of the blobs.

        Raises StoreError where the disk does not say what is there.
        """
        look = self._disk.run
        blobs = await look("look", missing_blobs, list(self._blobs.values()))
        smalls = await look("look", self._smalls.missing)
        statements = await look("look", self._statements.drop_missing)
        for digest in blobs:
            if self.on_evict is not None:
                self.on_evict(digest)
        for digest in (*blobs, *smalls):
            await self.remove(digest)
        if blobs or smalls:
            with contextlib.suppress(StoreError):  # what is kept next makes its own
                await self._disk.keep("make directories", make_directories, self._root)
        return Losses(blobs, smalls, statements)

    def _used(self) -> int:
        blobs = sum(b.bytes_on_disk for b in self._blobs.values())
        aside = sum(a.size_bytes for a in self._aside.values())
        return blobs + aside + self._smalls.bytes_used

    async def _free(self) -> int:
        status = await self._disk.run("see what is free", os.statvfs, self._root)
        return status.f_bavail * status.f_frsize - self._limits.reserve_free_bytes

    @property
    def refusal(self) -> StoreError | None:
        """Why the disk did not take what was last to be kept on it; None since it took
        something."""
        return self._disk.refusal

    def usage(self) -> StoreUsage:
        return StoreUsage(
            self._used(),
            self._limits.max_bytes,
            len(self._blobs),
            len(self._smalls),
            self._evicted_bytes,
            self._disk.files.open_count,
            sum(aside.size_bytes for aside in self._aside.values()),
        )

    # --- small blobs, statements, revocations ---------------------------------------------------

    async def put_small(self, digest: Digest, body: bytes, media_type: str = "") -> None:
        """Keep a whole small blob or manifest; raise PeerFault when it has another digest and
        StoreError when it cannot be kept."""
        nbytes = 0 if self.has_small(digest) else len(body)
        ample = self._room.ample(nbytes, used=self._used(), free=UNTOLD)
        async with nullcontext() if ample else self._reserved(nbytes):
            await self._disk.keep("keep a small blob", self._smalls.put, digest, body, media_type)

    async def get_small(self, digest: Digest) -> SmallBlob | None:
        cached = self._smalls.cached(digest)
        return cached or await self._disk.run("read a small blob", self._smalls.get, digest)

    def has_small(self, digest: Digest) -> bool:
        return digest in self._smalls

    def smalls(self) -> Iterator[Digest]:
        return iter(self._smalls.digests())

    async def put_statement(self, key: TagKey, record: bytes, *, index: bool = False) -> None:
        """`index`: it says which index a layer has, else what a tag stands for. Raises
        StoreError."""
        await self._disk.keep("keep a statement", self._statements.put, key, record, index)

    async def get_statement(self, key: TagKey) -> bytes | None:
        return await self._disk.run("read a statement", self._statements.get, key)

    def statement_keys(self) -> list[TagKey]:
        return self._statements.keys()

    async def put_revocation(self, digest: Digest, map_id: MapId, record: bytes) -> None:
        """Remember that a map is void; `digest` is the blob's, for the log only.

        In force at once; raises StoreError where a restart would forget it.
        """
        self._revocations.note(map_id, record)
        await self._disk.keep("save the revocations", self._revocations.save)

    def revoked(self, map_id: MapId) -> bool:
        return map_id in self._revocations

    def revocations(self) -> list[bytes]:
        return self._revocations.records()

    # --- recovery -------------------------------------------------------------------------------

    async def _recover(self) -> None:
        read = self._disk.run
        await read("read the revocations", self._revocations.load, self._keyring)
        await read("read the small blobs", self._smalls.load)
        await read("read the pins", self._pins.load)
        await read("read the statements", self._statements.load)
        for path in await read("read the blobs", blob_directories, self._root / "blobs"):
            await self._recover_blob(path)
        for why, number in Counter(aside.why for aside in self._aside.values()).most_common(3):
            logs.event(log, logging.WARNING, "store.kept_aside", blobs=number, error=why)

    async def _recover_blob(self, path: Path) -> None:
        """Take in a blob of an earlier run; what cannot be believed or read is kept aside."""
        digest = parse_exchanged(f"{path.parent.parent.name}:{path.name}")
        try:
            chunk_map, bits, rehash = await self._disk.run(
                "read a blob", load_files, path, self._keyring, self._boot_id
            )
        except (PeerFault, ValueError, StoreError) as error:
            aside = await self._disk.run("look", look_aside, path, str(error))
            if aside is not None:
                self._aside[digest] = aside
                return
            self._aside.pop(digest, None)
            await self._disk.run("clear away", shutil.rmtree, path, True)
            return
        self._aside.pop(digest, None)  # where it was until another key was believed
        blob = Blob(path, chunk_map, bits, self._disk, self._clock)
        if self.revoked(chunk_map.map_id):
            await self._disk.run("remove", blob.remove)
            return
        blob.used_at_s = 0.0
        with contextlib.suppress(OSError):
            blob.used_at_s = (path / "bits").stat().st_mtime
        self._blobs[digest] = blob
        if rehash:
            with contextlib.suppress(StoreError):  # then before it goes out
                await blob.recover()
