"""One body from upstream into the swarm: hashed, stored, signed and offered while it arrives.

What is read of whom, and what comes of it, is decided in `core/ingest.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from random import Random

from p2pdist.errors import StoreError, UpstreamError
from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.ids import Digest
from p2pdist.model.statements import HashBatch, Seal, Signer
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.process.clock import unix_s
from p2pdist.registry.reading.net import receive_buffer
from p2pdist.registry_proxy.core import ingest_events as events
from p2pdist.registry_proxy.core import ingest_orders as orders
from p2pdist.registry_proxy.core.ingest import IngestCore
from p2pdist.registry_proxy.observers import DigestObserver, IngestObserver
from p2pdist.registry_proxy.pacing import PacedBody
from p2pdist.registry_proxy.signing import MapSigner
from p2pdist.registry_proxy.watching import changed, held_chunks, now_s
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.counters import UPSTREAM
from p2pdist.swarm.fallback import OutsideBody, OutsideSource
from p2pdist.swarm.node import Node

log = logging.getLogger(__name__)


class _Differs(UpstreamError):
    """A chunk is another one than the map vouches for."""


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
        content: Digest | None = None,
        refuted: Callable[[ImageName, int | None], None],
        delivered: Callable[[ImageName], None] = lambda _: None,
        interrupted: Callable[[UpstreamError], None] = lambda _: None,
    ) -> None:
        """`alone`: the leases say that nobody else reads this blob from its registry. `content`:
        what all of it has to hash to, where that is not what hosts know it by.

        `refuted` hears of a name whose claim is wrong, and how long its registry's body is.
        `delivered`: its registry sent all of the blob, and that has the digest; `interrupted`: it
        did not.
        """
        self._node = node
        self._active = active
        self._digest = active.digest
        self._geometry = active.geometry
        self._source = source
        self._refuted = refuted
        self._delivered = delivered
        self._interrupted = interrupted
        self._core = IngestCore(active.digest, active.geometry, names, rng, alone=alone)
        self._map_signer = MapSigner(signer, self._publish, unix_s)
        self._map: ChunkMap | None = None
        """What is worked under."""
        self._opened: ChunkMap | None = None
        """The last one that was opened here."""
        self._content = content or active.digest
        self._whole = DigestObserver(self._content)
        self._laid: list[bytes] = []
        """The hashes of what lies here."""
        self._body: tuple[OutsideBody, PacedBody, int] | None = None
        """The one that is open, and the chunk with which it goes on."""
        self._read_at = ""
        """The registry whose body was opened last."""
        self._store_error: StoreError | None = None
        self.disproved = False
        """All of it was read, and had not the digest."""

    async def run(self) -> None:
        """Seal the blob, revoke its map, or mark it failed when upstream gives out."""
        lies_here = self._node.store.aside(self._digest) == self._geometry.size_bytes
        event: events.Event | None = events.Started(self._view(), lies_here)
        while event is not None:
            try:
                event = await self._carry_out(self._core.handle(event, now_s()))
            except UpstreamError as error:
                event = events.Failed(self._view(), error, isinstance(error, _Differs))
            except StoreError as error:
                self._store_error = error
                event = events.DiskFailed(self._view())

    def _view(self) -> events.IngestView:
        active, chunk_map = self._active, self._active.map
        other_size = chunk_map is not None and chunk_map.geometry != self._geometry
        return events.IngestView(
            complete=active.complete,
            failed=active.failure is not None,
            prefix_chunks=active.prefix_chunks,
            held_chunks=held_chunks(active),
            idle_s=active.idle_s,
            mapped=chunk_map is not None,
            fits=active.geometry == self._geometry and not other_size,
            overruled=chunk_map is not None and chunk_map.sealed and other_size,
            ours=chunk_map is not None and chunk_map is self._opened,
        )

    # --- orders ---------------------------------------------------------------------------------

    async def _carry_out(self, given: Sequence[orders.Order]) -> events.Event | None:
        """Return the answer to the last order; None: there is nothing to answer."""
        answer = None
        for order in given:
            answer = await self._do(order)
        return answer

    async def _do(self, order: orders.Order) -> events.Event | None:
        match order:
            case orders.Wait():
                await changed(self._active, self._core.next_deadline_s())
                return events.Looked(self._view())
            case orders.OpenMap(fresh):
                await self._open_map(fresh=fresh)
                return events.MapOpened(self._view())
            case orders.HashOn(start, stop):
                await self._hash_on(start, stop)
                return events.HashedOn(self._view())
            case orders.OpenBody(name, chunk):
                await self._read_from(name, chunk)
                return events.BodyClosed(self._view())
            case orders.ReadBody():
                return await self._pump()
            case orders.Conclude():
                self._map_signer.flush()
                await self._active.settle()
                return events.Concluded(self._worked_under.sealed, self._whole.matches())
            case orders.Settle():
                await self._active.settle()
                return events.Settled(self._view())
            case orders.ReadLaid():
                return events.LaidRead(self._view(), await self._read_laid())
            case orders.SignLaid():
                await self._sign_laid()
                return events.LaidSigned(self._view())
            case _:
                await self._tell(order)
                return None

    async def _tell(self, order: orders.Order) -> None:
        match order:
            case orders.Join():
                self._active.join()
            case orders.Refute(name, actual_bytes):
                self._refuted(name, actual_bytes)
            case orders.SayInterrupted(error):
                self._interrupted(error)
                self._log_interruption(error)
            case orders.Delivered(name):
                self._delivered(name)
            case orders.Seal():
                await self._seal()
            case orders.Disprove(name):
                await self._disprove(name)
            case orders.TakeBack():
                assert self._opened is not None
                await self._take_back(self._opened)
            case orders.FailBlob(why, refusal):
                self._active.fail(why, refusal)
            case orders.StopStoring():
                assert self._store_error is not None
                self._active.disk_failed(self._store_error)

    def _log_interruption(self, error: UpstreamError | StoreError) -> None:
        logs.event(
            log, logging.WARNING, "ingest.interrupted",
            digest=self._digest, chunks=self._active.prefix_chunks, error=str(error),
        )  # fmt: skip

    # --- what is here ---------------------------------------------------------------------------

    @property
    def _worked_under(self) -> ChunkMap:
        assert self._map is not None
        return self._map

    async def _open_map(self, *, fresh: bool) -> None:
        current = self._active.map
        if current is not None and not fresh:
            self._map_signer.resume(current)
            self._map = current
            return
        self._map = self._map_signer.new_map(self._digest, self._geometry, os.urandom)
        self._opened = self._map
        await self._active.adopt(self._map)

    async def _read_laid(self) -> bool:
        """After a change of keys nothing crosses the registry again."""
        self._whole, self._laid = DigestObserver(self._content), []
        try:
            for chunk in self._geometry.indexes():
                data = await self._held(chunk)
                await asyncio.to_thread(self._whole.see, data)
                self._laid.append(await asyncio.to_thread(chunk_hash, data))
                self._active.working()
        except StoreError as error:
            self._log_interruption(error)
            return False
        return self._whole.matches()

    async def _sign_laid(self) -> None:
        for chunk, known in enumerate(self._laid):
            self._map_signer.add(chunk, known)
        self._map_signer.flush()
        await self._active.settle()
        if not self._worked_under.sealed:
            await self._seal()

    async def _hash_on(self, start: int, stop: int) -> None:
        if start == 0:
            self._whole = DigestObserver(self._content)
        for chunk in range(start, stop):
            await asyncio.to_thread(self._whole.see, await self._held(chunk))

    async def _held(self, chunk: int) -> bytes:
        assert self._active.blob is not None
        at, length = self._geometry.offset(chunk), self._geometry.length(chunk)
        return await self._active.blob.read(at, length)

    # --- one body -------------------------------------------------------------------------------

    async def _read_from(self, name: ImageName, chunk: int) -> None:
        """Open a body and do what the core says, until that has it closed."""
        if chunk == 0:
            self._whole = DigestObserver(self._content)
        self._read_at = name.upstream
        self._active.turned_to("registry", name.upstream)
        start, pacing = self._geometry.offset(chunk), PacedBody(self._active)
        await pacing.ask()
        try:
            with receive_buffer(self._active.ahead_bytes):
                async with self._source.open_blob(name, self._digest, start=start) as body:
                    pacing.limit(body)
                    self._body = body, pacing, chunk
                    await self._until_closed(events.BodyOpened(self._view(), body.size_bytes))
        finally:
            self._body = None
            self._map_signer.flush()

    async def _until_closed(self, event: events.Event) -> None:
        while True:
            given = self._core.handle(event, now_s())
            answer = await self._carry_out(given)
            if isinstance(given[-1], orders.CloseBody):
                return
            assert answer is not None
            event = answer

    async def _pump(self) -> events.BodyLeft | events.TooLong:
        """Cut the body into chunks; while one is hashed and written, the next one fills."""
        assert self._body is not None
        body, pacing, chunk = self._body
        buffer, landing = bytearray(), None
        try:
            async for data in body.chunks():
                self._active.working()
                at_its_pace = await pacing.read(body)
                view = memoryview(data)
                while view:
                    if chunk == self._geometry.chunk_count:
                        return events.TooLong()
                    room = self._geometry.length(chunk) - len(buffer)
                    buffer += view[:room]
                    view = view[room:]
                    if len(buffer) == self._geometry.length(chunk):
                        if landing is not None:
                            await landing
                        land = self._land(chunk, buffer)
                        landing = self._node.tasks.start(land, name=f"land {chunk}")
                        chunk, buffer = chunk + 1, bytearray()
                        if self._core.handle(self._filled(chunk, at_its_pace), now_s()):
                            return events.BodyLeft(chunk)
        finally:
            if landing is not None:
                await landing
        return events.BodyLeft(chunk)

    def _filled(self, chunk: int, at_its_pace: bool) -> events.Filled:
        blob, here_until = self._active.blob, chunk
        if blob is not None and chunk in blob.verified:
            here_until = blob.verified.first_missing(chunk)
        failed = self._active.failure is not None
        return events.Filled(chunk, here_until, at_its_pace, failed=failed)

    async def _land(self, chunk: int, data: bytearray) -> None:
        blob = self._active.blob
        if blob is None or blob.geometry != self._geometry:
            raise UpstreamError(f"{self._digest} was taken up with another size meanwhile")
        if self._source.label == UPSTREAM:  # else it was made here
            self._node.counters.received[UPSTREAM] += len(data)
            self._active.received[UPSTREAM] = self._active.received.get(UPSTREAM, 0) + len(data)
            self._active.took(UPSTREAM, self._read_at, len(data))
        known = self._worked_under.hash_of(chunk)
        if known is None:
            observers: list[IngestObserver] = [self._whole]
            landed = await blob.land(chunk, data, [o.see for o in observers])
            self._map_signer.add(chunk, landed)
            return
        if not await blob.admit(chunk, data, known):
            raise _Differs(f"{self._digest}: chunk {chunk} differs from its signed map")
        await asyncio.to_thread(self._whole.see, data)
        self._active.landed(1 << chunk)

    # --- the end --------------------------------------------------------------------------------

    async def _seal(self) -> None:
        self._map_signer.seal(self._worked_under)
        await self._active.settle()
        logs.event(
            log, logging.INFO, "blob.sealed",
            digest=self._digest, bytes=self._geometry.size_bytes,
        )  # fmt: skip

    async def _disprove(self, name: ImageName) -> None:
        logs.event(
            log, logging.ERROR, "upstream.wrong_digest",
            digest=self._digest, actual=self._whole.actual(), image=str(name),
        )  # fmt: skip
        self.disproved = True
        await self._take_back(self._worked_under)

    async def _take_back(self, chunk_map: ChunkMap) -> None:
        """Revoke a map: nobody keeps or serves anything of it."""
        record = self._map_signer.revocation(chunk_map)
        self._node.tracker.revoke([record])
        await self._node.revoke(record)

    def _publish(self, statement: HashBatch | Seal, record: bytes) -> None:
        self._active.hear(None, statement, record)
