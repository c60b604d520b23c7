"""Blobs as the registry endpoint reads them: whole ones, and ones that are still arriving."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from p2pdist.errors import BlobFailed, RegistryError, StoreError, UpstreamError
from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import CACHE, DOUBTED_BYTES_MAX, FileSpan, PullContext
from p2pdist.store.ports import OpenData, StoredBlob
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core.event_log import Kind
from p2pdist.swarm.counters import FAILED, FIRST_BYTE, FULL, OTHER_SIZE, STARVED, UPSTREAM
from p2pdist.swarm.fallback import OutsideSource, is_final, stream_checked
from p2pdist.swarm.vain import InVain

# Registry contract 3.7: 404 by 5 s, no silent gap above 5 s while another source exists. The switch
# comes earlier, because the other source needs time to its first byte too.
FIRST_BYTE_S: Final = 5.0
HURRY_S: Final = 0.5
"""What the last of several outside sources gets at least."""
FIRST_WAIT_S: Final = 3.5
GAP_S: Final = 3.5
FORSAKEN_FIRST_S: Final = 1.0
"""What peers get to begin, where every proxy is known to hang."""
FORSAKEN_GAP_S: Final = 2.0
"""Without a proxy in the swarm nobody brings what it lacks (fault matrix, row 4: another source has
taken over within 3 s)."""
QUIET_S: Final = 2.0
"""While anything of a blob came in within this time, whoever fetches it makes progress: going
upstream as well would only make it slower for everybody (design decision 10)."""
STARVING_S: Final = 1.0
"""Without anything for so long, other sources are looked for beside those that are known."""
PROGRESS_WAIT_S: Final = 25.0
"""Even then a client gets its first byte before containerd gives up on headers (30 s)."""
STICKY_WAIT_S: Final = 30.0
LAST_RESORT_S: Final = 60.0
"""When no other source exists: a slow success beats a quick error (registry contract 3.2)."""
OUTSIDE_AGAIN_S: Final = 5.0
"""Outside sources that all failed are left alone for so long, while the swarm is waited for."""
OUTAGE_S: Final = 1.0
GIVE_WAY_S: Final = 3.0
"""An outside source that took longer than `OUTAGE_S` to begin was away. When it is back, every
reader of every host gets through in the same second: the swarm's own reader has this long to bring
a chunk before we go ahead."""
SPAN_BYTES_MAX: Final = 4 << 20
TURN_S: Final = 0.5
OUTSIDE_ADDRESS: Final = "past the swarm"
"""In the log of a blob: bytes that passed through, and that the swarm never had."""


class WholeBlob:
    """A small blob in memory, or an empty one."""

    def __init__(self, digest: Digest, body: bytes) -> None:
        self.digest = digest
        self.size_bytes = len(body)
        self._body = body

    async def read(self, start: int, stop: int) -> AsyncIterator[FileSpan | bytes]:
        if start < stop:
            yield self._body[start:stop]

    def close(self) -> None:
        """Nothing is held."""


class _NotInTime(UpstreamError):
    """A source may still be about to answer, but the client is not to wait for that."""


class SwarmReader:
    """Follows the frontier of a blob; goes on from outside of the swarm when that stands still."""

    def __init__(
        self,
        active: ActiveBlob,
        name: ImageName,
        context: PullContext,
        fallbacks: Sequence[OutsideSource],
        *,
        size_bytes: int,
        content: Digest | None = None,
        used_fallback: Callable[[str, str, int], None],
        demand_lacks: Callable[[], None] = lambda: None,
        starving: Callable[[], None] = lambda: None,
        forsaken: Callable[[], bool] = lambda: False,
        unfound: Callable[[], None] = lambda: None,
        interruption: Callable[[], UpstreamError | None] = lambda: None,
        fallback_when_full_only: bool = False,
        patience_s: float = LAST_RESORT_S,
    ) -> None:
        """`size_bytes` is what the manifest claims; a signed map stands above it. `content`: what
        the bytes hash to and sources outside know the blob by, where hosts have another name for
        it.
        `used_fallback` gets source, reason (of `counters.FALLBACK_REASONS`) and bytes.
        `demand_lacks` is called where some of a part lacks here that is demanded.
        `starving` is called while nothing comes in, once in `TURN_S`; `forsaken`: every proxy
        hangs, and so brings nothing to the swarm; `unfound`: no source has even the first byte;
        `interruption`: what the registry said last to whoever reads it for the swarm.

        `fallback_when_full_only`: the swarm's source is the outside itself, as at a proxy; a second
        body of it makes sense only where the first one cannot be kept. `patience_s`: how long a
        body that has begun waits for any source to come back.
        """
        self.digest = content or active.digest
        proven = active.proven_size_bytes
        self.size_bytes = proven if proven is not None else size_bytes
        self._active = active
        self._name = name
        self._context = context
        self._full_only = fallback_when_full_only
        self._outside = list(fallbacks)
        self._used_fallback = used_fallback
        self._demand_lacks = demand_lacks
        self._starving = starving
        self._forsaken = forsaken
        self._unfound = unfound
        self._interruption = interruption
        self._last_resort_s = patience_s
        self._before = dict(active.received)
        self._from_outside: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._silent_since_s = self._loop.time()
        self._outside_again_s = 0.0
        self._reader: int | None = active.open_reader(demand=context.demand)
        self._delivered = 0
        self._to_end = True
        self._data: tuple[StoredBlob, OpenData] | None = None
        self._unreadable = False
        """The disk does not give what lies here."""
        self._prefix_used = False  # by the body from outside: its digest begins with our chunks

    async def read(self, start: int, stop: int) -> AsyncIterator[FileSpan | bytes]:
        active, at = self._active, start
        assert self._reader is not None
        # Who demands all of it is a reader like any other.
        until = stop if self._context.demand and stop - start < self.size_bytes else None
        active.reader_at(self._reader, start, until=until)
        self._to_end = stop == self.size_bytes
        if self._context.doubts:
            await self._doubt(start, stop)
        if self._context.demand and self._deliverable_end(start) < stop:
            self._demand_lacks()
        while at < stop:
            end = min(self._deliverable_end(at), stop, at + SPAN_BYTES_MAX)
            if end > at and not self._unreadable:
                active.goes_out(self._reader, at, end)
                try:
                    if not await active.checked(at, end):
                        self._starving()
                        continue
                    piece = await _piece(self._opened(), at, end)
                except StoreError as error:
                    active.disk_failed(error)
                    self._unreadable = True
                    continue
                yield piece
                self._delivered += end - at
                self._silent_since_s = self._loop.time()
                at = end
                active.reader_at(self._reader, at, until=until)
            elif self._unreadable or not await self._wait(at, first=at == start):
                async for data in self._from_fallbacks(at, stop, first=at == start):
                    at += len(data)
                    self._delivered += len(data)
                    yield data
                active.reader_at(self._reader, at, until=until)

    async def _doubt(self, start: int, stop: int) -> None:
        try:
            await self._active.rehashed(start, min(stop, start + DOUBTED_BYTES_MAX))
        except StoreError as error:
            self._active.disk_failed(error)
            self._unreadable = True

    def _opened(self) -> OpenData:
        """The data of the blob, open until this reader is closed. Raises StoreError."""
        blob = self._active.blob
        assert blob is not None
        if self._data is None or self._data[0] is not blob:
            data = blob.open_data()
            self._let_go()
            self._data = blob, data
        return self._data[1]

    def _readable(self) -> bool:
        """What lies here can be hashed once more, as the beginning of a body from outside."""
        if self._active.blob is None or self._unreadable:
            return False
        with contextlib.suppress(StoreError):
            self._opened()
            return True
        return False

    def _let_go(self) -> None:
        if self._data is not None:
            self._data[1].close()
            self._data = None

    @property
    def _contradicted(self) -> bool:
        """A signed map gives the blob another length than we were told, and told our client."""
        proven = self._active.proven_size_bytes
        return proven is not None and proven != self.size_bytes

    def _deliverable_end(self, offset: int) -> int:
        if self._contradicted:
            return offset
        return self._active.readers.deliverable_end(offset, to_end=self._to_end)

    @property
    def _fallbacks(self) -> list[OutsideSource]:
        if self._full_only and not self._active.store_full:
            return []
        return self._outside if self._loop.time() >= self._outside_again_s else []

    async def _wait(self, offset: int, *, first: bool) -> bool:
        """Wait for bytes at `offset`; False when another source has to go on."""
        active, loop = self._active, self._loop
        began_s = loop.time()
        while True:
            if self._contradicted:
                return False
            await active.readers.wait_deliverable(offset, TURN_S, to_end=self._to_end)
            waited_s = loop.time() - began_s
            if active.failure is None and self._deliverable_end(offset) > offset:
                self._context.waited("chunk", waited_s)
                return True
            if active.failure is not None or active.store_full:
                return False
            if active.idle_s > STARVING_S:
                self._starving()
            if waited_s >= self._patience_s(first=first):
                self._context.waited("starved", waited_s)
                return False

    def _patience_s(self, *, first: bool) -> float:
        if self._fallbacks and first and self._active.denied:
            return 0.0
        if self._active.idle_s <= (FORSAKEN_FIRST_S if self._forsaken() else QUIET_S):
            return PROGRESS_WAIT_S
        if self._fallbacks and first:
            return FORSAKEN_FIRST_S if self._forsaken() else FIRST_WAIT_S
        if self._fallbacks:
            linked = self._active.proxy_linked and not self._forsaken()
            return GAP_S if linked else FORSAKEN_GAP_S
        if first:
            return STICKY_WAIT_S if self._context.sticky else FIRST_WAIT_S
        return self._last_resort_s

    async def _from_fallbacks(self, start: int, stop: int, *, first: bool) -> AsyncIterator[bytes]:
        """Go on from the first outside source that can.

        When none can, return for the swarm to be waited for again: a slow success beats an error
        that ends a pull. Raise when that has lasted too long, or nothing more can come.
        """
        active, at = self._active, start
        if active.failure is not None and not first:
            raise BlobFailed(f"{self.digest}: {active.failure}")
        sources = self._fallbacks
        vain, finals = InVain(self._name, self.digest), 0
        for source in sources:
            alone = source is sources[-1]
            hurried = not alone or (first and at == start and not self._context.sticky)
            within_s = self._first_byte_left_s() if hurried else None
            asked_s = self._loop.time()
            try:
                async for data in _begun_within(self._stream(source, at, stop), within_s):
                    was_away = at == start and self._loop.time() - asked_s > OUTAGE_S
                    if was_away and await self._swarm_goes_on(at):
                        return
                    at += len(data)
                    self._silent_since_s = self._loop.time()
                    yield data
                return
            except _NotInTime:  # which says nothing of the registry, nor that nobody is there
                continue
            except UpstreamError as error:
                vain.heard(source.label, error)
                finals += is_final(error)
            except BlobFailed:
                if self._prefix_used:
                    active.doubt()
                raise
        self._outside_again_s = self._loop.time() + OUTSIDE_AGAIN_S
        silent_s = self._loop.time() - self._silent_since_s
        nothing_yet = first and at == start
        # Whoever could have it says no, and will say it again.
        decided = 0 < finals == len(sources)
        waits = self._context.sticky and silent_s < STICKY_WAIT_S and not self._contradicted
        if nothing_yet and (decided or active.refusal is not None or not waits):
            self._unfound()
            raise self._nothing_from(vain)
        if (
            decided
            or self._active.failure is not None
            or self._active.store_full
            or self._contradicted
            or silent_s > self._last_resort_s
        ):
            raise BlobFailed(f"{self.digest}: no source for byte {at} on")

    def _nothing_from(self, vain: InVain) -> RegistryError:
        if (error := self._interruption()) is not None:
            vain.heard(UPSTREAM, error)
        return vain.refusal()

    async def _swarm_goes_on(self, offset: int) -> bool:
        """Whoever fetches for all got through as well, and brings more within `GIVE_WAY_S`."""
        until_s = self._loop.time() + GIVE_WAY_S
        while self._active.failure is None and not self._active.store_full:
            if self._deliverable_end(offset) > offset:
                return True
            if self._loop.time() >= until_s:
                break
            self._starving()
            await self._active.readers.wait_deliverable(offset, TURN_S, to_end=self._to_end)
        return False

    @property
    def _fallback_reason(self) -> str:
        if self._active.store_full:
            return FULL
        if self._active.failure is not None:
            return FAILED
        if self._contradicted:
            return OTHER_SIZE
        return STARVED if self._delivered else FIRST_BYTE

    def _first_byte_left_s(self) -> float:
        return max(HURRY_S, self._silent_since_s + FIRST_BYTE_S - self._loop.time())

    def _stream(self, source: OutsideSource, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        reason = self._fallback_reason
        self._active.note(Kind.OUTSIDE, host=source.label, text=reason)

        def count(nbytes: int) -> None:
            self._used_fallback(source.label, reason, nbytes)
            self._active.took(source.label, OUTSIDE_ADDRESS, nbytes)
            self._from_outside[source.label] = self._from_outside.get(source.label, 0) + nbytes

        at_chunk, rest = divmod(start, self._active.geometry.chunk_size_bytes)
        lies_here = self._active.prefix_chunks >= at_chunk + bool(rest) and self._readable()
        whole_prefix = lies_here and not self._contradicted
        self._prefix_used = whole_prefix and start > 0
        return stream_checked(
            source,
            self._name,
            self.digest,
            self.size_bytes,
            start=start,
            stop=stop,
            prefix=self._opened() if whole_prefix else None,
            count=count,
        )

    def close(self) -> None:
        """Leave the blob; what was delivered is booked to where it came from."""
        if self._reader is None:
            return
        self._let_go()
        self._active.close_reader(self._reader)
        self._reader = None
        for source, total in self._active.received.items():
            if (nbytes := total - self._before.get(source, 0)) > 0:
                self._context.bytes_by_source[source] = nbytes
        by_source = self._context.bytes_by_source
        for source, nbytes in self._from_outside.items():
            by_source[source] = by_source.get(source, 0) + nbytes
        if (cached := self._delivered - sum(by_source.values())) > 0:
            by_source[CACHE] = cached


async def _piece(data: OpenData, start: int, stop: int) -> FileSpan | bytes:
    """What goes out: from the file, where there is one. Raises StoreError."""
    if data.fileno is None:
        return await data.read(start, stop - start)
    return FileSpan(data.fileno, start, stop - start)


async def _begun_within(
    stream: AsyncGenerator[bytes, None], within_s: float | None
) -> AsyncIterator[bytes]:
    """Pass `stream` on; raise _NotInTime when its first piece takes longer than `within_s`."""
    async with aclosing(stream) as pieces:
        try:
            async with asyncio.timeout(within_s):
                begin = await anext(pieces, b"")
        except TimeoutError:
            raise _NotInTime(f"no first byte within {within_s} s") from None
        yield begin
        async for data in pieces:
            yield data
