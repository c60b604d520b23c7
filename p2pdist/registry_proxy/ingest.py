"""One body from upstream into the swarm: hashed, stored, signed and offered while it arrives."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from p2pdist.errors import ErrorReason, StoreError, UpstreamError
from p2pdist.model.backoff import Backoff
from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.statements import HashBatch, Seal, Signer
from p2pdist.oci.names import ImageName
from p2pdist.oci.refusals import DEFINITE
from p2pdist.process import logs
from p2pdist.process.clock import unix_s
from p2pdist.registry.reading.net import receive_buffer
from p2pdist.registry_proxy.observers import DigestObserver, IngestObserver
from p2pdist.registry_proxy.pacing import PacedBody
from p2pdist.registry_proxy.signing import MapSigner
from p2pdist.registry_proxy.watching import followed
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.counters import UPSTREAM
from p2pdist.swarm.fallback import OutsideBody, OutsideSource
from p2pdist.swarm.node import Node

log = logging.getLogger(__name__)

# Fault matrix, section 7: at most 4 tries and 30 s in the background.
TRIES_MAX: Final = 4
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 8.0
# What socket buffers hold of a body that is closed, and so is fetched for nothing, is 2 to 6 MB.
SKIP_BYTES_MIN: Final = 16 << 20
# Two readers of one blob that find the registry again in the same second: how long the one without
# a lease looks out for the other's first chunk.
GIVE_WAY_S: Final = 1.0
LOOK_OUT_S: Final = 0.1


class WrongSize(UpstreamError):
    """A registry's body is not as long as its repository claims; `actual_bytes` if it told."""

    def __init__(self, message: str, actual_bytes: int | None) -> None:
        super().__init__(message)
        self.actual_bytes = actual_bytes


class Ingest:
    """Fetches what is missing of one blob, from the first gap on, until it can be sealed."""

    def __init__(
        self,
        node: Node,
        active: ActiveBlob,
        signer: Signer,
        source: OutsideSource,
        names: Sequence[ImageName],
        rng: Random,
        *,
        alone: bool,
        refuted: Callable[[ImageName, int | None], None],
        delivered: Callable[[ImageName], None] = lambda _: None,
        interrupted: Callable[[UpstreamError], None] = lambda _: None,
    ) -> None:
        """`alone`: the leases say that nobody else reads this blob from its registry.

        `refuted` hears of a name whose claim is wrong, and how long its registry's body is. Only
        that name is left for it: a size proves nothing about the others. `delivered`: its registry
        sent all of the blob, and that has the digest; `interrupted`: it did not.
        """
        self._node = node
        self._active = active
        self._digest = active.digest
        self._geometry = active.geometry
        self._source = source
        self._names = list(names)
        self._refuted = refuted
        self._delivered = delivered
        self._interrupted = interrupted
        self._opened: ChunkMap | None = None
        self.disproved = False
        """All of it was read, and had not the digest."""
        self._signer = signer
        self._alone = alone
        self._distrusted = False
        self._map_signer = MapSigner(signer, self._publish, unix_s)
        self._told: dict[ImageName, ErrorReason] = {}
        """What came of the last request to each repository, where no body did."""
        self._backoff = Backoff(first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S, rng=rng)

    async def run(self) -> None:
        """Seal the blob, revoke its map, or mark it failed when upstream gives out."""
        why = "no upstream answered"
        if not self._alone:
            self._active.join()
        if await self._lies_here():
            return
        tries = 0
        while self._names and tries < TRIES_MAX and self._active.failure is None:
            if tries:
                # Another proxy may have taken over meanwhile: as long as it brings some, wait.
                self._active.join()
                await followed(self._active, self._backoff.next_delay_s())
            name = self._names[tries % len(self._names)]
            try:
                if await self._attempt(name):
                    return
                tries += 1
            except WrongSize as error:
                why = str(error)
                self._names.remove(name)
                self._refuted(name, error.actual_bytes)
            except UpstreamError as error:
                why = str(error)
                tries += 1
                self._told[name] = error.reason
                self._interrupted(error)
                self._log_interruption(why)
                if self._refusal is not None:
                    break
            except StoreError as error:
                self._active.disk_failed(error)
                return
            finally:
                self._map_signer.flush()
        await self._give_out(why)

    @property
    def _refusal(self) -> ErrorReason | None:
        """What all repositories say of a blob that nothing came of: asking again will not help."""
        told = {self._told.get(name) for name in self._names}
        if self._active.prefix_chunks or len(told) != 1:
            return None
        reason = told.pop()
        return reason if reason in DEFINITE else None

    def _log_interruption(self, why: str) -> None:
        logs.event(
            log, logging.WARNING, "ingest.interrupted",
            digest=self._digest, chunks=self._active.prefix_chunks, error=why,
        )  # fmt: skip

    async def _give_out(self, why: str) -> None:
        """Nothing more comes; our own map of a size that was refuted is taken back.

        Another proxy's is not: the registry that it reads may be right.
        """
        await self._active.settle()
        opened = self._opened
        if opened is not None and opened is self._active.map and not self._names:
            await self._take_back(opened)
        elif self._active.failure is None:
            self._active.fail(f"upstream gave out: {why}", self._refusal)

    async def _attempt(self, name: ImageName) -> bool:
        """Read what is missing, a body for each gap; True when there is nothing left to do."""
        if self._active.complete or self._overruled:
            return True
        # A map that is not believed any more takes its chunks with it, and so does one of another
        # size: before anything is counted.
        unusable = self._distrusted or self._active.geometry != self._geometry
        chunk_map = await self._open_map() if unusable else None
        whole, seen, alone = DigestObserver(self._digest), 0, False
        while True:
            first = self._active.prefix_chunks
            await self._see(whole, seen, first)
            seen = first
            if first == self._geometry.chunk_count:
                break
            start = self._geometry.offset(first)
            held = self._held_chunks()
            pacing = PacedBody(self._active)
            await pacing.ask()
            async with self._open(name, start) as body:
                if body.size_bytes not in (None, self._geometry.size_bytes):
                    raise WrongSize(
                        f"{self._digest} has {body.size_bytes} bytes in {name}, which claims "
                        f"{self._geometry.size_bytes}",
                        body.size_bytes,
                    )
                pacing.limit(body)
                gives_way = await self._another_brings_it(held)
                if not gives_way:
                    chunk_map = chunk_map or await self._open_map()
                    seen = await self._pump(body, pacing, first, chunk_map, whole)
                    alone = first == 0 and seen == self._geometry.chunk_count
            if gives_way and await followed(self._active, GIVE_WAY_S):
                return True
        await self._finish(whole, chunk_map or await self._open_map())
        if alone and not self.disproved:
            self._delivered(name)
        return True

    @property
    def _overruled(self) -> bool:
        """Another proxy proved that the blob has another size: it, or the swarm, brings it."""
        current = self._active.map
        return current is not None and current.sealed and current.geometry != self._geometry

    @asynccontextmanager
    async def _open(self, name: ImageName, start: int) -> AsyncIterator[OutsideBody]:
        with receive_buffer(self._active.ahead_bytes):
            async with self._source.open_blob(name, self._digest, start=start) as body:
                yield body

    async def _another_brings_it(self, held_before: int) -> bool:
        """Chunks came in since `held_before`, from another reader of the registry.

        After an outage of the registry everybody gets through in the same second: the holder of
        the leases goes ahead unless chunks came already, all others look out for its first ones.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (0.0 if self._alone else GIVE_WAY_S)
        while self._held_chunks() == held_before:
            if loop.time() >= until_s:
                return False
            await asyncio.sleep(LOOK_OUT_S)
        return True

    def _held_chunks(self) -> int:
        return len(self._active.blob.verified) if self._active.blob is not None else 0

    async def _open_map(self) -> ChunkMap:
        """Return the map to work under: the one that is there, whoever of us opened it and however
        long ago, or a new one."""
        if self._active.failure is not None:
            raise UpstreamError(f"{self._digest}: {self._active.failure}")
        current = self._active.map
        if current is not None and not self._distrusted and current.geometry == self._geometry:
            self._map_signer.resume(current)
            return current
        fresh = self._map_signer.new_map(self._digest, self._geometry, os.urandom)
        self._distrusted = False
        self._opened = fresh
        await self._active.adopt(fresh)
        return fresh

    async def _lies_here(self) -> bool:
        """Sign what an earlier run left under a map that is not believed now, if it has the digest:
        after a change of keys nothing crosses the registry again."""
        if self._node.store.aside(self._digest) != self._geometry.size_bytes:
            return False
        try:
            chunk_map = await self._open_map()
            whole, hashes = DigestObserver(self._digest), []
            for chunk in range(self._geometry.chunk_count):
                assert self._active.blob is not None
                at, length = self._geometry.offset(chunk), self._geometry.length(chunk)
                data = await self._active.blob.read(at, length)
                await asyncio.to_thread(whole.see, data)
                hashes.append(await asyncio.to_thread(chunk_hash, data))
                self._active.working()
        except StoreError as error:
            self._log_interruption(str(error))
            return False
        if not whole.matches():
            return False
        for chunk, known in enumerate(hashes):
            self._map_signer.add(chunk, known)
        await self._finish(whole, chunk_map)
        return self._active.complete

    async def _see(self, whole: DigestObserver, start: int, stop: int) -> None:
        """Run the digest on over the chunks `start` to `stop`, which lie here already."""
        blob = self._active.blob
        for chunk in range(start, stop):
            assert blob is not None
            data = await blob.read(self._geometry.offset(chunk), self._geometry.length(chunk))
            await asyncio.to_thread(whole.see, data)

    async def _pump(
        self,
        body: OutsideBody,
        pacing: PacedBody,
        first: int,
        chunk_map: ChunkMap,
        whole: DigestObserver,
    ) -> int:
        """Cut the body into chunks; while one is hashed and written, the next one fills.

        Return the chunk to go on at: the end, or the first of many that came another way.
        """
        chunk, buffer = first, bytearray()
        landing: asyncio.Task[None] | None = None
        try:
            async for data in body.chunks():
                self._active.working()
                at_its_pace = await pacing.read(body)
                view = memoryview(data)
                while view:
                    if chunk == self._geometry.chunk_count:
                        raise WrongSize(f"{self._digest}: more bytes than claimed", None)
                    room = self._geometry.length(chunk) - len(buffer)
                    buffer += view[:room]
                    view = view[room:]
                    if len(buffer) == self._geometry.length(chunk):
                        if landing is not None:
                            await landing
                        land = self._land(chunk, buffer, chunk_map, whole)
                        landing = self._node.tasks.start(land, name=f"land {chunk}")
                        chunk, buffer = chunk + 1, bytearray()
                        if self._worth_skipping(chunk) or not at_its_pace:
                            return chunk
        finally:
            if landing is not None:
                await landing
        if chunk != self._geometry.chunk_count:
            raise UpstreamError(f"{self._digest}: the body ended at chunk {chunk}")
        return chunk

    def _worth_skipping(self, chunk: int) -> bool:
        """What follows is here already, and long enough that a new request costs less."""
        blob = self._active.blob
        if blob is None or chunk not in blob.verified:
            return False
        end = blob.verified.first_missing(chunk)
        skipped_bytes = (end - chunk) * self._geometry.chunk_size_bytes
        return end == self._geometry.chunk_count or skipped_bytes >= SKIP_BYTES_MIN

    async def _land(
        self, chunk: int, data: bytearray, chunk_map: ChunkMap, whole: DigestObserver
    ) -> None:
        blob = self._active.blob
        if blob is None or blob.geometry != self._geometry:
            raise UpstreamError(f"{self._digest} was taken up with another size meanwhile")
        if self._source.label == UPSTREAM:  # else it was made here
            self._node.counters.received[UPSTREAM] += len(data)
            self._active.received[UPSTREAM] = self._active.received.get(UPSTREAM, 0) + len(data)
        known = chunk_map.hash_of(chunk)
        if known is None:
            observers: list[IngestObserver] = [whole]
            landed = await blob.land(chunk, data, [o.see for o in observers])
            self._map_signer.add(chunk, landed)
            return
        if not await blob.admit(chunk, data, known):
            self._distrusted = True  # the map's maker, or this body: the next one decides
            raise UpstreamError(f"{self._digest}: chunk {chunk} differs from its signed map")
        await asyncio.to_thread(whole.see, data)
        self._active.landed(1 << chunk)

    async def _finish(self, whole: DigestObserver, chunk_map: ChunkMap) -> None:
        """Seal what has its digest; take back what has not."""
        self._map_signer.flush()
        await self._active.settle()
        if chunk_map.sealed:
            return
        if whole.matches():
            self._map_signer.seal(chunk_map)
            await self._active.settle()
            logs.event(
                log, logging.INFO, "blob.sealed",
                digest=self._digest, bytes=self._geometry.size_bytes,
            )  # fmt: skip
            return
        logs.event(
            log, logging.ERROR, "upstream.wrong_digest",
            digest=self._digest, actual=whole.actual(), image=str(self._names[0]),
        )  # fmt: skip
        self.disproved = True
        await self._take_back(chunk_map)

    async def _take_back(self, chunk_map: ChunkMap) -> None:
        """Revoke a map: nobody keeps or serves anything of it."""
        record = self._map_signer.revocation(chunk_map)
        self._node.tracker.revoke([record])
        await self._node.revoke(record)

    def _publish(self, statement: HashBatch | Seal, record: bytes) -> None:
        self._active.hear(None, statement, record)
