"""One blob of several chunks on disk: preallocated data, signed map, verified bits.

Order is everything: data is written first, its bit after; so whatever survives, a set bit means
verified bytes. No fsync per chunk: page cache outlives the process, and after another boot what
was not synced is hashed again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from p2pdist.errors import BlobGone, PeerFault, StoreError
from p2pdist.model.chunkmap import ChunkMap, chunk_hash, open_map
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import Digest
from p2pdist.model.statements import Keyring
from p2pdist.process import failpoints as fail
from p2pdist.process.files import OPEN_FLAGS, pread_all, pwrite_all, read_file, write_all
from p2pdist.store.bits import Bits, decode_bits, encode_bits
from p2pdist.store.disk import Disk
from p2pdist.store.file_data import FileData
from p2pdist.store.open_files import StoredFile
from p2pdist.store.ports import Data
from p2pdist.store.records import decode_records, encode_record

# The map of a 1 TiB blob: 262,144 hashes of 32 bytes in 4,096 records with their frames.
MAP_FILE_BYTES_MAX: Final = 16 << 20


class Blob:
    """Made by the store. `verified` is true of the disk at any moment."""

    def __init__(
        self,
        path: Path,
        chunk_map: ChunkMap,
        bits: Bits,
        disk: Disk,
        now_s: Callable[[], float],
        *,
        doubtful: ChunkSet | None = None,
    ) -> None:
        """`doubtful`: chunks whose bytes may lie here from an earlier map (`reclaim`)."""
        self.path = path
        self.chunk_map = chunk_map
        self.geometry: Geometry = chunk_map.geometry
        self.pins = 0
        self.used_at_s = now_s()
        self._boot_id = bits.boot_id
        self._verified = bits.verified
        self._checked = ChunkSet(chunk_map.geometry.chunk_count)  # hashed in this process
        self._synced = bits.synced
        self._doubtful = ChunkSet(chunk_map.geometry.chunk_count) if doubtful is None else doubtful
        self._disk = disk
        self._now_s = now_s
        self._lock = threading.Lock()  # bits and map file: one writer at a time
        self._files = disk.files
        self._data = StoredFile(path / "data", os.O_RDWR, self._doubt_what_is_not_synced)
        self._bits_file = StoredFile(path / "bits", os.O_WRONLY | os.O_CREAT)
        self._map_file = _map_file(path)
        self._holds = 0
        self._removed = False
        self._left = False
        """Another one has its place: what lies there is not for this one to change."""

    @property
    def _all_files(self) -> tuple[StoredFile, ...]:
        return self._data, self._bits_file, self._map_file

    def _keep_files(self, *, kept: bool) -> None:
        """Those of a whole blob are held many times a second, and not kept."""
        if self._data.kept != kept:
            self._files.keep(self._all_files, kept=kept)

    # --- state ----------------------------------------------------------------------------------

    @property
    def digest(self) -> Digest:
        return self.chunk_map.digest

    @property
    def verified(self) -> ChunkSet:
        return self._verified

    @property
    def complete(self) -> bool:
        """All chunks are here and the map is sealed."""
        return self.chunk_map.sealed and self._verified.complete

    @property
    def synced(self) -> bool:
        """All chunks are known to be on the disk itself."""
        return self._synced.complete

    def open_data(self) -> FileData:
        """The data, for the event loop: opened if it is not, which takes some 10 us, and readable
        until it is given back, whatever becomes of the blob. Raises StoreError."""
        try:
            return FileData(self._files.borrow(self._data, may_flush=False), self._disk)
        except FileNotFoundError as error:
            raise BlobGone(f"{self.digest} is not here any more: {error.strerror}") from error
        except OSError as error:
            raise self._disk.refused(f"open {self.digest}", error) from error

    def read_now(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes as they lie on the disk. Blocking; raises OSError."""
        with self._files.borrow(self._data) as fd:
            return pread_all(fd, length, offset)

    def lies_there(self) -> bool:
        """The file that was written still has its name, and all its bytes. Blocking."""
        try:
            status = os.lstat(self._data.path)
        except OSError:
            return False
        same = self._data.inode in (None, status.st_ino)
        return same and status.st_size == self.geometry.size_bytes

    @property
    def in_use(self) -> bool:
        return self._holds > 0 or self.pins > 0

    @property
    def bytes_on_disk(self) -> int:
        """The whole size: data files are preallocated."""
        return self.geometry.size_bytes

    def hold(self) -> None:
        """Keep the blob from eviction until `release`, and its files open while it is fetched."""
        self._holds += 1
        self.used_at_s = self._now_s()
        if self._holds == 1 and not self.complete:
            self._keep_files(kept=True)

    def release(self) -> None:
        assert self._holds > 0
        self._holds -= 1
        self.used_at_s = self._now_s()
        if not self._holds:
            self._keep_files(kept=False)

    # --- chunks ---------------------------------------------------------------------------------

    async def admit(self, chunk: int, data: Data, expected_hash: bytes) -> bool:
        """Check, write and mark a chunk that somebody sent; False, and nothing is written, when
        its hash is another one. Raises StoreError."""
        return (await self.admit_many([(chunk, data, expected_hash)]))[0]

    async def admit_many(self, chunks: Sequence[tuple[int, Data, bytes]]) -> list[bool]:
        """Do the same for several chunks in one thread hop: a hop costs more than a hash (1.1
        CPU-s/GB were measured with one for each 256 KiB). Raises StoreError."""
        return await self._disk.run("write chunks", self._admit_many, chunks)

    async def land(
        self, chunk: int, data: Data, observers: Sequence[Callable[[Data], None]]
    ) -> bytes:
        """Write and mark a chunk from upstream; return its hash. `observers` see the bytes too, in
        the same pass. Raises StoreError."""
        return await self._disk.run("write a chunk", self._land, chunk, data, observers)

    def unchecked(self, first: int, stop: int) -> bool:
        """Some chunk of `first` to `stop` was not hashed since this process started."""
        asked = ((1 << (stop - first)) - 1) << first
        return bool(self._verified.bits & ~self._checked.bits & asked)

    async def check(self, first: int, stop: int) -> list[int]:
        """Hash those chunks; drop and return what rotted, or cannot be read, since it was written.

        Raises StoreError.
        """
        asked = ((1 << (stop - first)) - 1) << first
        doubtful = self._verified.bits & ~self._checked.bits & asked
        return await self._rehashed(list(ChunkSet(self.geometry.chunk_count, doubtful)))

    @property
    def doubtful(self) -> ChunkSet:
        """Chunks whose bytes may lie here, and that no hash was compared with yet."""
        return self._doubtful

    async def reclaim(self) -> None:
        """Mark the doubtful chunks that have the hash which the map gives them by now; those that
        have not are doubtful no more. Raises StoreError."""
        known = self._doubtful.bits & self.chunk_map.known.bits
        if known:
            chunks = list(ChunkSet(self.geometry.chunk_count, known))
            await self._disk.run("hash what lies here", self._reclaim, chunks)

    def _reclaim(self, chunks: list[int]) -> None:
        right = []
        with self._files.borrow(self._data) as fd:
            for chunk in chunks:
                try:
                    data = pread_all(fd, self.geometry.length(chunk), self.geometry.offset(chunk))
                except OSError:  # fetched like any other
                    continue
                if chunk_hash(data) == self.chunk_map.hash_of(chunk):
                    right.append(chunk)
        with self._lock:
            for chunk in chunks:
                self._doubtful.discard(chunk)
        self._mark(right)

    async def read(self, offset: int, length: int) -> bytes:
        """Raises StoreError."""
        return await self._disk.run("read", self.read_now, offset, length)

    def _admit_many(self, chunks: Sequence[tuple[int, Data, bytes]]) -> list[bool]:
        good, kept = [], []
        for chunk, data, expected_hash in chunks:
            right = len(data) == self.geometry.length(chunk) and chunk_hash(data) == expected_hash
            good.append(right)
            if right:
                kept.append((chunk, data))
        self._write(kept)
        self._mark([chunk for chunk, _ in kept])
        return good

    def _land(self, chunk: int, data: Data, observers: Sequence[Callable[[Data], None]]) -> bytes:
        for see in observers:
            see(data)
        fresh_hash = chunk_hash(data)
        self._write([(chunk, data)])
        self._mark([chunk])
        return fresh_hash

    def _write(self, chunks: Sequence[tuple[int, Data]]) -> None:
        if not chunks:
            return
        if self._removed or self._left:
            raise StoreError(f"{self.digest} was removed")
        with self._files.borrow(self._data) as fd:
            if self._data.read_only:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            try:
                for chunk, data in chunks:
                    fail.point("store.before_chunk")
                    pwrite_all(fd, data, self.geometry.offset(chunk))
                    self._doubtful.discard(chunk)
            finally:
                self._data.dirty = True

    def _mark(self, chunks: Sequence[int]) -> None:
        """Set the bits of chunks whose bytes are written; if that fails none of them counts."""
        if not chunks:
            return
        with self._lock:
            fresh = [chunk for chunk in chunks if chunk not in self._verified]
            try:
                for chunk in fresh:
                    self._verified.add(chunk)
                    self._checked.add(chunk)
                self._write_bits()
                self._close_if_complete()
            except OSError:
                for chunk in fresh:
                    self._verified.discard(chunk)
                raise

    def _write_bits(self) -> None:
        if self._left:
            return
        data = encode_bits(Bits(self._boot_id, self._verified, self._synced))
        fail.point("store.before_bits")
        with self._files.borrow(self._bits_file) as fd:
            pwrite_all(fd, data, 0)
        fail.point("store.after_bits")

    # --- map ------------------------------------------------------------------------------------

    async def add_records(self, *records: bytes) -> None:
        """Keep statements that `chunk_map` took in, in one write. A sealed, whole blob is synced,
        if it can be: what was not is hashed again after another boot. Raises StoreError."""
        await self._disk.run("write the chunk map", self._append_records, records)
        if self.complete:
            with contextlib.suppress(StoreError):
                await self.sync()

    def _append_records(self, records: Sequence[bytes]) -> None:
        with self._lock, self._files.borrow(self._map_file) as fd:
            write_all(fd, b"".join(map(encode_record, records)))

    async def replace_map(self, chunk_map: ChunkMap) -> None:
        """Work under another map of the same bytes; chunks with the same hash stay, the others are
        doubtful. Raises StoreError."""
        assert chunk_map.geometry == self.geometry
        assert chunk_map.digest == self.digest
        await self._disk.run("write the chunk map", self._replace_map, chunk_map)

    def _replace_map(self, chunk_map: ChunkMap) -> None:
        old = self.chunk_map
        with self._lock:
            for chunk in list(self._verified):
                if chunk_map.hash_of(chunk) is None or chunk_map.hash_of(chunk) != old.hash_of(
                    chunk
                ):
                    self._verified.discard(chunk)
                    self._synced.discard(chunk)
                    self._checked.discard(chunk)
                    self._doubtful.add(chunk)
            self._write_bits()
            self._files.end(self._map_file)  # another file takes its name
            fresh = _map_file(self.path)
            fresh.kept = self._map_file.kept
            self._map_file = fresh
            write_map(self.path, chunk_map)
            self.chunk_map = chunk_map

    # --- upkeep ---------------------------------------------------------------------------------

    async def scrub(self, first: int = 0, stop: int | None = None) -> list[int]:
        """Hash verified chunks of `first` to `stop` again; drop and return those that rotted."""
        end = self.geometry.chunk_count if stop is None else stop
        return await self._rehashed([i for i in range(first, end) if i in self._verified])

    async def recover(self) -> list[int]:
        """After another boot: hash again what was not synced; return what was lost."""
        doubtful = [chunk for chunk in self._verified if chunk not in self._synced]
        return await self._rehashed(doubtful)

    async def _rehashed(self, chunks: list[int]) -> list[int]:
        return await self._disk.run("hash chunks again", self._rehash, chunks)

    def _rehash(self, chunks: list[int]) -> list[int]:
        if not chunks:
            return []
        with self._files.borrow(self._data) as fd:  # one that cannot be opened is not rot
            lost = [chunk for chunk in chunks if not self._right(fd, chunk)]
        with self._lock:
            lost = [chunk for chunk in lost if chunk in self._verified]  # not found by another
            for chunk in chunks:
                self._checked.add(chunk)
            for chunk in lost:
                self._verified.discard(chunk)
                self._synced.discard(chunk)
                self._checked.discard(chunk)
            # A full or read-only disk keeps the old bits, and the next run hashes all this again.
            with contextlib.suppress(OSError):
                self._write_bits()
            self._close_kept()  # after another boot this is done for every blob
        return lost

    def _right(self, fd: int, chunk: int) -> bool:
        length = self.geometry.length(chunk)
        try:
            data = pread_all(fd, length, self.geometry.offset(chunk))
        except OSError:  # a bad sector: fetched anew like rot
            return False
        return len(data) == length and chunk_hash(data) == self.chunk_map.hash_of(chunk)

    async def sync(self) -> None:
        """Flush to the disk itself, so that another boot need not hash again. Raises
        StoreError."""
        await self._disk.run("sync", self._sync)

    def _sync(self) -> None:
        flushed = self._verified.copy()
        if self._removed or self._left or not flushed.bits & ~self._synced.bits:
            return
        fail.point("store.before_blob_sync")
        self._files.sync(self._data)
        with self._lock:
            self._synced.update(flushed)
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                self._write_bits()
            self._close_if_complete()

    def remove(self) -> None:
        """Take the files away; who has the data open keeps it until it is given back. Blocking."""
        if self._removed:
            return
        self._removed = True
        doomed = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.gone")
        with contextlib.suppress(OSError):
            self.path.replace(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        self._end_files()

    def leave(self) -> None:
        """Change nothing more; the data can be read as before. Blocking."""
        with self._lock:
            self._left = True
            self._files.end(self._bits_file)
            self._files.end(self._map_file)
        self._files.close(self._data)

    def close(self) -> None:
        """The store shuts down: nobody holds anything any more."""
        self._removed = True
        self._end_files()

    def _end_files(self) -> None:
        with self._lock:
            for file in self._all_files:
                self._files.end(file)

    def _close_if_complete(self) -> None:
        """Nothing more will be written but what the upkeep says."""
        if self.complete:
            self._keep_files(kept=False)
            self._close_kept()

    def _close_kept(self) -> None:
        self._files.close(self._bits_file)
        self._files.close(self._map_file)

    def _doubt_what_is_not_synced(self) -> None:
        """After a failed sync the kernel may forget what was written: it is hashed again before it
        goes out."""
        count = self.geometry.chunk_count
        self._checked = ChunkSet(count, self._checked.bits & self._synced.bits)


def _map_file(path: Path) -> StoredFile:
    return StoredFile(path / "map", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def write_map(path: Path, chunk_map: ChunkMap) -> None:
    temporary = path / "map.new"
    temporary.write_bytes(b"".join(encode_record(r) for r in chunk_map.records))
    fail.point("store.before_map_rename")
    temporary.replace(path / "map")
    fail.point("store.after_map_rename")


def create_files(path: Path, chunk_map: ChunkMap, boot_id: str) -> Bits:
    """Make an empty blob: the map and the whole room for the data. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    size = chunk_map.geometry.size_bytes
    fd = os.open(path / "data", os.O_RDWR | os.O_CREAT | os.O_TRUNC | OPEN_FLAGS, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
        fail.point("store.before_map")
        write_map(path, chunk_map)
    finally:
        os.close(fd)
    count = chunk_map.geometry.chunk_count
    return Bits(boot_id, ChunkSet(count), ChunkSet(count))


def load_files(path: Path, keyring: Keyring, boot_id: str) -> tuple[ChunkMap, Bits, bool]:
    """Look at a blob from an earlier run: its map and bits, and whether to hash again.

    Raises PeerFault or ValueError for a map that does not hold, OSError where files lack.
    """
    (path / "map.new").unlink(missing_ok=True)  # of a replacement that was cut
    raw = read_file(path / "map", MAP_FILE_BYTES_MAX)
    chunk_map = open_map(keyring, decode_records(raw or b""))
    count = chunk_map.geometry.chunk_count
    if chunk_map.digest.partition(":")[2] != path.name:
        raise PeerFault("chunk map in another blob's place", reason="map")
    fd = os.open(path / "data", os.O_RDWR | OPEN_FLAGS)
    try:
        intact = os.fstat(fd).st_size == chunk_map.geometry.size_bytes
        if not intact:
            os.ftruncate(fd, chunk_map.geometry.size_bytes)
        kept = read_file(path / "bits", 64 + count)
        bits = decode_bits(kept or b"", count)
        known = chunk_map.known.bits
        verified = ChunkSet(count, bits.verified.bits & known)
        synced = ChunkSet(count, bits.synced.bits & known) if intact else ChunkSet(count)
    except ValueError:  # torn bits: everything with a known hash is worth a look
        intact, verified, synced = False, chunk_map.known.copy(), ChunkSet(count)
        bits = Bits("", verified, synced)
    finally:
        os.close(fd)
    rehash = not intact or bits.boot_id != boot_id
    return chunk_map, Bits(boot_id, verified, synced), rehash
