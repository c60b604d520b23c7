"""One body from a simulated registry into the swarm, as `registry_proxy/ingest.py` reads it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from bench.sim.clock import Clock, Timer
from bench.sim.content import Content, chunk_hash
from bench.sim.hosts import SimHost
from bench.sim.upstream import NAME, Body, Upstream
from bench.sim.watching import Watch, ingest_view_of
from p2pdist.errors import UpstreamError
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.ids import Digest
from p2pdist.model.statements import HashBatch, Seal
from p2pdist.registry_proxy.core import ingest_events as events
from p2pdist.registry_proxy.core import ingest_orders as orders
from p2pdist.registry_proxy.core.batches import Batch, HashBatches
from p2pdist.registry_proxy.core.ingest import IngestCore, Phase


class Ingesting:
    """Carries out one `IngestCore`; disks do not fail, and what comes has its digest."""

    def __init__(
        self,
        clock: Clock,
        content: Content,
        host: SimHost,
        digest: Digest,
        upstream: Upstream,
        rng: Random,
        *,
        alone: bool,
        over: Callable[[], None],
    ) -> None:
        """`over` is called once, when nothing is left to do."""
        self.watch = Watch(clock)
        self._clock = clock
        self._content = content
        self._host = host
        self._digest = digest
        self._upstream = upstream
        self._over = over
        self._blob = host.core.blobs[digest]
        self._geometry = self._blob.geometry
        self._core = IngestCore(digest, self._geometry, [NAME], rng, alone=alone)
        self._batches = HashBatches()
        self._flush_timer: Timer | None = None
        self._map: ChunkMap | None = None
        """It signs for this one, whoever opened it, and whichever is followed by now."""
        self._opened: ChunkMap | None = None
        self._body: Body | None = None
        """The one that is open."""
        self._chunk = 0
        """The next one of the body."""

    def begin(self) -> None:
        self._go(events.Started(self._view(), lies_here=False))

    @property
    def _held(self) -> int:
        return self._host.held.get(self._digest, 0)

    def _view(self) -> events.IngestView:
        now_s = self._clock.now_s
        chunk_map = self._blob.map
        ours = chunk_map is not None and chunk_map is self._opened
        return ingest_view_of(self._host, self._digest, now_s, ours=ours)

    def _soon(self, event: Callable[[], events.Event], delay_s: float = 0.0) -> None:
        self._clock.after(delay_s, lambda: self._go(event()))

    def _go(self, event: events.Event) -> None:
        if not self._host.alive:
            return
        for order in self._core.handle(event, self._clock.now_s):
            self._do(order)
        self._core.validate()
        if self._core.phase is Phase.OVER:
            self._when_settled(self._over)

    def _do(self, order: orders.Order) -> None:
        match order:
            case orders.Join():
                self._blob.join(self._clock.now_s)
                self._host.happened()
            case orders.OpenMap(fresh):
                self._clock.after(self._host.costs.disk_s, partial(self._open_map, fresh=fresh))
            case orders.HashOn(start, stop):
                nbytes = (stop - start) * self._geometry.chunk_size_bytes
                self._host.compute(nbytes, lambda: self._go(events.HashedOn(self._view())))
            case orders.OpenBody(chunk=chunk):
                self._chunk = chunk
                self._clock.after(2 * self._upstream.latency_s, self._open_body)
            case orders.ReadBody():
                self._fill()
            case orders.LeaveBody():
                pass  # `_full` answers it
            case orders.CloseBody():
                self._flush()
                self._soon(lambda: events.BodyClosed(self._view()))
            case orders.Wait():
                look = lambda: self._go(events.Looked(self._view()))  # noqa: E731
                self.watch.wait(self._core.next_deadline_s(), look)
            case orders.Conclude():
                self._flush()
                self._when_settled(self._concluded)
            case orders.Seal():
                chunk_map = self._worked_under
                count, root = self._geometry.chunk_count, chunk_map.root()
                self._publish(Seal(self._digest, chunk_map.map_id, count, root))
            case orders.Settle():
                self._when_settled(lambda: self._go(events.Settled(self._view())))
            case orders.FailBlob(why, refusal):
                self._blob.fail(why, self._clock.now_s, refusal)
                self._host.happened()
            case orders.Delivered() | orders.SayInterrupted():
                pass
            case _:
                raise AssertionError(f"a registry of a simulation gives no reason for {order}")

    # --- its map --------------------------------------------------------------------------------

    @property
    def _worked_under(self) -> ChunkMap:
        assert self._map is not None
        return self._map

    def _open_map(self, *, fresh: bool) -> None:
        if not self._host.alive:
            return
        self._map = self._blob.map
        if self._map is None or fresh:
            self._map = self._opened = self._content.open_map(self._digest)
            self._blob.map_followed(self._map, 0, self._clock.now_s)
            self._host.happened()
        self._go(events.MapOpened(self._view()))

    def _sign(self, closed: list[Batch]) -> None:
        for batch in closed:
            self._publish(HashBatch(self._worked_under.map_id, batch.first, batch.hashes))

    def _publish(self, statement: HashBatch | Seal) -> None:
        record = self._content.record(statement)
        self._blob.hear(None, statement, self._clock.now_s, record)
        self._host.happened()

    def _flush(self) -> None:
        self._flush_timer = None
        self._sign(self._batches.flush())

    def _when_settled(self, then: Callable[[], None]) -> None:
        """Call `then` when all that was said has been taken in."""
        if self._blob.settled:
            self._clock.at(self._clock.now_s, then)
        else:
            self._clock.after(self._host.costs.disk_s, partial(self._when_settled, then))

    # --- one body -------------------------------------------------------------------------------

    def _open_body(self) -> None:
        if not self._host.alive:
            return
        size, start = self._geometry.size_bytes, self._geometry.offset(self._chunk)
        try:
            self._body = self._upstream.open(size, start, self._clock.now_s)
        except UpstreamError as error:
            self._failed(error)
        else:
            self._go(events.BodyOpened(self._view(), size))

    def _failed(self, error: UpstreamError) -> None:
        if self._host.alive:
            self._flush()
            self._go(events.Failed(self._view(), error))

    def _fill(self) -> None:
        assert self._body is not None
        nbytes = self._geometry.length(self._chunk)
        come_s, error = self._body.send(nbytes, self._host.card, self._clock.now_s)
        self._clock.at(come_s, self._full if error is None else partial(self._broken, error))

    def _broken(self, error: UpstreamError) -> None:
        """What is full still lands before that is heard."""
        if self._host.alive:
            self._host.compute(0, partial(self._failed, error))

    def _full(self) -> None:
        """A chunk of the body is full; while it is hashed and written, the next one fills."""
        if not self._host.alive:
            return
        chunk, now_s = self._chunk, self._clock.now_s
        self._chunk += 1
        self._blob.working(now_s)
        self._host.happened()
        here = self._held >> self._chunk
        here_until = self._chunk + (~here & (here + 1)).bit_length() - 1
        failed = self._blob.failure is not None
        filled = events.Filled(self._chunk, here_until, at_its_pace=True, failed=failed)
        left = self._core.handle(filled, now_s) or self._chunk == self._geometry.chunk_count
        self._host.compute(self._geometry.length(chunk), partial(self._land, chunk, bool(left)))
        if not left:
            self._fill()

    def _land(self, chunk: int, last: bool) -> None:
        if not self._host.alive:
            return
        bit, now_s = 1 << chunk, self._clock.now_s
        nbytes = self._geometry.length(chunk)
        if self._held & bit:
            self._host.wasted_bytes += nbytes
        else:
            self._host.held[self._digest] = self._held | bit
            self._host.received_bytes += nbytes
        if self._blob.map is not None and self._blob.map.known.bits & bit:
            self._blob.landed(bit, now_s)
            self._host.happened()
        else:
            self._sign(self._batches.add(chunk, chunk_hash(chunk), now_s))
            due_s = self._batches.next_deadline_s()
            if due_s is not None and self._flush_timer is None:
                self._flush_timer = self._clock.at(due_s, self._flush)
        if last:
            self._go(events.BodyLeft(chunk + 1))

    def _concluded(self) -> None:
        self._go(events.Concluded(sealed=self._worked_under.sealed, matches=True))
