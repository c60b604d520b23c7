"""Blobs that only some callers may read: kept apart from all that hosts exchange.

Each lies here under the repository whose registry sent it, and is served under no other one: that
another repository names the digest proves nothing. Nobody is told of them, and a restart forgets
them. One body from the registry serves all who wait for a blob.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from p2pdist.errors import BlobFailed, ErrorReason, UpstreamError
from p2pdist.model.ids import Digest, digest_algorithm
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.process.tasks import TaskOwner
from p2pdist.registry.ports import CACHE, FileSpan
from p2pdist.registry_proxy.core.verdicts import blob_refusal
from p2pdist.swarm.counters import UPSTREAM
from p2pdist.swarm.fallback import HOLD_BACK_BYTES, OutsideSource, is_final

log = logging.getLogger(__name__)

Key = tuple[ImageName, Digest]

# What is read from the disk is hashed again in pieces of this length.
SLICE_BYTES: Final = 1 << 20
# Runtimes read a piece, close, and come back: what nobody reads goes on for so long.
LINGER_S: Final = 5.0
# Contract 3.7: the first byte within 5 s, no gap above that; the source has deadlines of its own.
FIRST_S: Final = 20.0
FILLS_MAX: Final = 64
# Without a byte in between.
TRIES: Final = 3


class _File:
    """A descriptor that ends with the last who has it: a thread may still write to it when nobody
    waits for that any more."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self.fileno = -1
        self.fileno = os.open(path, flags, 0o600)

    def __del__(self) -> None:
        if self.fileno >= 0:
            os.close(self.fileno)


class _Kept:
    """One blob as far as it came."""

    def __init__(self, key: Key, size_bytes: int, path: Path) -> None:
        self.key = key
        self.size_bytes = size_bytes
        self.path = path
        self.file: _File | None = None
        self.arrived_bytes = 0
        self.hashes: list[bytes] = []
        """Of each whole slice, and of the last one."""
        self.complete = False
        self.failure: Exception | None = None
        self.readers = 0
        self.task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def readable_bytes(self) -> int:
        """The end of a body waits for the digest of the whole."""
        if self.complete:
            return self.size_bytes
        sliced = len(self.hashes) * SLICE_BYTES
        return max(0, min(sliced, self.arrived_bytes - HOLD_BACK_BYTES))

    def turn(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self) -> None:
        await self._changed.wait()


class KeptBlobs:
    """At most `max_bytes` on disk; the least recently used go, and none that is being read."""

    def __init__(self, directory: Path, *, max_bytes: int, linger_s: float = LINGER_S) -> None:
        """`directory` is ours alone; what lies in it is removed. Raises OSError."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        self._directory = directory
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._number = 0
        self._tasks = TaskOwner("kept blobs")

    async def close(self) -> None:
        await self._tasks.close()
        self._kept.clear()

    @property
    def held_bytes(self) -> int:
        return sum(kept.size_bytes for kept in self._kept.values())

    def size_of(self, name: ImageName, digest: Digest) -> int | None:
        """The size of a blob that lies here whole."""
        kept = self._kept.get((name, digest))
        return kept.size_bytes if kept is not None and kept.complete else None

    def open(
        self,
        name: ImageName,
        digest: Digest,
        size_bytes: int,
        source: OutsideSource,
        used: Callable[[str, int], None],
    ) -> KeptBlob | None:
        """Open a blob, which is fetched unless it lies here or is on its way; None: there is no
        room for it. `used` hears where bytes came from."""
        key = name, digest
        kept = self._kept.get(key)
        if kept is not None and (kept.failure is not None or kept.size_bytes != size_bytes):
            self._drop(kept)
            kept = None
        if kept is None:
            if not self._make_room(size_bytes):
                return None
            self._number += 1
            kept = _Kept(key, size_bytes, self._directory / f"{self._number}")
            self._kept[key] = kept
            kept.task = self._tasks.start(self._fill(kept, source), name=f"keep {digest[:19]}")
            label = UPSTREAM
        else:
            label = CACHE if kept.complete else UPSTREAM
        self._kept.move_to_end(key)
        kept.readers += 1
        return KeptBlob(self, kept, lambda nbytes: used(label, nbytes))

    def release(self, kept: _Kept) -> None:
        kept.readers -= 1
        if kept.readers == 0 and not kept.complete:
            asyncio.get_running_loop().call_later(self._linger_s, self._end_unread, kept)

    def spoilt(self, kept: _Kept) -> None:
        """What lies on the disk is not what came."""
        logs.event(log, logging.WARNING, "blob.spoilt", digest=kept.key[1])
        kept.failure = BlobFailed(f"{kept.key[1]}: what was kept of it has rotted")
        self._drop(kept)

    def _end_unread(self, kept: _Kept) -> None:
        if kept.readers == 0 and not kept.complete and kept.task is not None:
            kept.task.cancel()

    def _make_room(self, size_bytes: int) -> bool:
        filling = sum(not kept.complete for kept in self._kept.values())
        if filling >= FILLS_MAX:
            return False
        room = self._max_bytes - self.held_bytes
        for kept in list(self._kept.values()):
            if room >= size_bytes:
                break
            if kept.readers == 0 and kept.complete:
                room += kept.size_bytes
                self._drop(kept)
        return room >= size_bytes

    def _drop(self, kept: _Kept) -> None:
        """Forget it; who reads it goes on to the end of what is readable."""
        if self._kept.get(kept.key) is kept:
            del self._kept[kept.key]
        self._tasks.start(asyncio.to_thread(_remove, kept.path), name="remove")

    async def _fill(self, kept: _Kept, source: OutsideSource) -> None:
        try:
            await self._bring(kept, source)
            kept.complete = True
        except (UpstreamError, BlobFailed, OSError) as error:
            kept.failure = error
        except asyncio.CancelledError:
            kept.failure = BlobFailed(f"{kept.key[1]}: nobody reads it")
            raise
        finally:
            if kept.failure is not None:
                self._drop(kept)
            kept.turn()

    async def _bring(self, kept: _Kept, source: OutsideSource) -> None:
        kept.file = await asyncio.to_thread(_File, kept.path)
        taking, tries_left = _Taking(kept, kept.file), TRIES
        while kept.arrived_bytes < kept.size_bytes:
            before = kept.arrived_bytes
            try:
                await self._bring_on(kept, source, taking)
            except UpstreamError as error:
                tries_left = TRIES if kept.arrived_bytes > before else tries_left - 1
                if is_final(error) or not tries_left:
                    raise
            else:
                break
        taking.end()

    async def _bring_on(self, kept: _Kept, source: OutsideSource, taking: _Taking) -> None:
        """Read the rest of it."""
        name, digest = kept.key
        async with source.open_blob(name, digest, start=kept.arrived_bytes) as body:
            if body.size_bytes not in (None, kept.size_bytes):
                text = f"{digest} has {body.size_bytes} bytes there, {kept.size_bytes} here"
                raise BlobFailed(text)
            async for data in body.chunks():
                if kept.arrived_bytes + len(data) > kept.size_bytes:
                    raise BlobFailed(f"{digest}: more came than its {kept.size_bytes} bytes")
                await asyncio.to_thread(taking.take, data)
                kept.turn()


class _Taking:
    """Writes and hashes what comes of a blob, in its order."""

    def __init__(self, kept: _Kept, file: _File) -> None:
        self._kept = kept
        self._file = file
        self._whole = hashlib.new(digest_algorithm(kept.key[1]))
        self._part = _hash()

    def take(self, data: bytes) -> None:
        """Blocks. Raises OSError."""
        kept, view = self._kept, memoryview(data)
        self._whole.update(view)
        while view:
            room = SLICE_BYTES - kept.arrived_bytes % SLICE_BYTES
            written = os.pwrite(self._file.fileno, view[:room], kept.arrived_bytes)
            self._part.update(view[:written])
            kept.arrived_bytes += written
            view = view[written:]
            if kept.arrived_bytes % SLICE_BYTES == 0:
                kept.hashes.append(self._part.digest())
                self._part = _hash()

    def end(self) -> None:
        """Raise BlobFailed where what came is not the blob."""
        digest = self._kept.key[1]
        right = self._whole.hexdigest() == digest.partition(":")[2]
        if not right or self._kept.arrived_bytes != self._kept.size_bytes:
            text = f"the bytes from {self._kept.key[0].upstream} do not have the digest"
            raise BlobFailed(f"{digest}: {text}")
        self._kept.hashes.append(self._part.digest())


def _hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=32)


def _hash_of(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


class KeptBlob:
    """Implements `BlobSource` over a blob that is kept, or on its way."""

    def __init__(self, blobs: KeptBlobs, kept: _Kept, used: Callable[[int], None]) -> None:
        self.digest = kept.key[1]
        self.size_bytes = kept.size_bytes
        self._blobs = blobs
        self._kept = kept
        self._used = used
        self._closed = False

    async def read(self, start: int, stop: int) -> AsyncIterator[FileSpan | bytes]:
        kept, at = self._kept, start
        while at < stop:
            try:
                await self._readable(at)
            except UpstreamError as error:
                if at > start:
                    raise BlobFailed(str(error)) from None
                raise blob_refusal(error, kept.key[0].upstream) from error
            piece = await asyncio.to_thread(_piece, kept, at, min(stop, kept.readable_bytes))
            if piece is None:
                self._blobs.spoilt(kept)
                raise BlobFailed(f"{self.digest}: what was kept of it has rotted")
            at += len(piece)
            self._used(len(piece))
            yield piece

    async def _readable(self, at: int) -> None:
        """Return when the byte at `at` may go out; raise what keeps it from coming."""
        kept = self._kept
        try:
            async with asyncio.timeout(FIRST_S):
                while kept.readable_bytes <= at:
                    if isinstance(kept.failure, OSError):
                        raise UpstreamError(
                            f"{self.digest} cannot be kept", reason=ErrorReason.NO_SOURCE
                        )
                    if kept.failure is not None:
                        raise kept.failure
                    await kept.changed()
        except TimeoutError:
            text = f"{kept.key[0].upstream} sends nothing of {self.digest}"
            raise UpstreamError(text) from None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._blobs.release(self._kept)


def _piece(kept: _Kept, at: int, stop: int) -> bytes | None:
    """Read what lies at `at` of its slice; None where that is not what came. Blocks."""
    number, offset = divmod(at, SLICE_BYTES)
    if kept.file is None:
        return None
    try:
        data = os.pread(kept.file.fileno, SLICE_BYTES, number * SLICE_BYTES)
    except OSError:
        return None
    # Behind a slice that is whole nothing is written; the last one is whole once the blob is.
    if _hash_of(data) != kept.hashes[number]:
        return None
    return data[offset : stop - number * SLICE_BYTES]
