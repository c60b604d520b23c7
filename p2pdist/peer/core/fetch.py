"""Which chunks of one blob to ask of which neighbour, and what to do when an answer stays away.

    NeighbourUp, Offered, HashesKnown … ──▶ BlobFetch.handle ──▶ Ask, Withdraw, LookFurther

Order of choice: what a reader waits for, then what only one neighbour offers, then the rest. A
proxy is asked only for what no peer offers, so that each chunk leaves it about once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final, assert_never

from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Distance
from p2pdist.peer.core.fetch_events import (
    Arrived,
    Ask,
    Event,
    HashesKnown,
    Landed,
    LookFurther,
    Lost,
    NeighbourDown,
    NeighbourUp,
    Offered,
    Order,
    Progressed,
    ReaderLeft,
    ReaderMoved,
    Refused,
    Retracted,
    Withdraw,
)

__all__ = [
    "Arrived",
    "Ask",
    "BlobFetch",
    "Event",
    "FetchCounters",
    "HashesKnown",
    "Landed",
    "LookFurther",
    "Lost",
    "NeighbourDown",
    "NeighbourUp",
    "Offered",
    "Order",
    "Progressed",
    "ReaderLeft",
    "ReaderMoved",
    "Refused",
    "Retracted",
    "Withdraw",
]

# A run of 1 MiB keeps a 1 Gbit/s link busy for 8 ms; two of them outstanding hide the round trip.
RUN_BYTES: Final = 1 << 20
RUNS_PER_NEIGHBOUR: Final = 2
# What one blob may have on the way, and so in buffers.
IN_FLIGHT_BYTES_MAX: Final = 32 << 20
# How far ahead of a reader order beats rarity.
URGENT_BYTES: Final = 4 << 20

TICK_S: Final = 0.25
HEDGE_S: Final = 0.5
# A chunk that a reader waits for and nobody offers: its first receiver may not know of this peer.
UNOFFERED_S: Final = 1.0
STALL_S: Final = 2.0  # registry contract 3.7: per-piece deadline 2 s, then another source
STARVE_S: Final = 0.3
SLOW_PENALTY_S: Final = 5.0
LOOK_FURTHER_S: Final = 1.0
# Fewer bytes than this in STALL_S are no progress: a source of 1 B/s is a stalled one.
PROGRESS_BYTES: Final = 32 * 1024
ESCAPE_CHUNKS_MAX: Final = 64
HEDGE_SHARE: Final = 0.02  # design decision 10: hedges stay within 2 % of the bytes
HEDGES_MIN: Final = 4


@dataclass(slots=True)
class FetchCounters:
    hedges: int = 0
    escapes: int = 0
    stalls: int = 0
    bad_chunks: int = 0

    def add(self, other: FetchCounters) -> None:
        self.hedges += other.hedges
        self.escapes += other.escapes
        self.stalls += other.stalls
        self.bad_chunks += other.bad_chunks


@dataclass(slots=True)
class _Run:
    host: HostId
    request_id: RequestId
    bits: int
    asked_at_s: float


@dataclass(slots=True)
class _Neighbour:
    host: HostId
    distance: Distance
    proxy: bool
    progress_s: float
    offered: int = 0
    unmarked_bytes: int = 0
    slow_until_s: float = 0.0
    runs: dict[RequestId, _Run] = field(default_factory=dict)

    def moved(self, nbytes: int, now_s: float) -> None:
        self.unmarked_bytes += nbytes
        if self.unmarked_bytes >= PROGRESS_BYTES:
            self.unmarked_bytes, self.progress_s = 0, now_s


class BlobFetch:
    """Decides the requests for one blob. Pure: time enters as `now_s`, chance through `rng`.

    `sequential` asks for the lowest chunk first: for a proxy that copies from another one.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        rng: Random,
        new_request_id: Callable[[], RequestId],
        counters: FetchCounters,
        sequential: bool = False,
        verified: int = 0,
        hashed: int = 0,
    ) -> None:
        self.counters = counters
        self._geometry = geometry
        self._count = geometry.chunk_count
        self._rng = rng
        self._new_request_id = new_request_id
        self._sequential = sequential
        self._run_chunks = max(1, RUN_BYTES // geometry.chunk_size_bytes)
        self._in_flight_max = max(8, IN_FLIGHT_BYTES_MAX // geometry.chunk_size_bytes)
        self._urgent_chunks = max(2, URGENT_BYTES // geometry.chunk_size_bytes)
        self._verified, self._hashed = verified, hashed
        self._requested = 0
        self._hedged = 0
        self._neighbours: dict[HostId, _Neighbour] = {}
        self._readers: dict[int, int] = {}
        self._moved_s: dict[int, float] = {}  # since when each reader is where it is
        self._once, self._twice = 0, 0  # offered by at least one, by at least two peers
        self._progress_s: float | None = None
        self._looked_s = -LOOK_FURTHER_S
        self._tick_s: float | None = None
        self._escape_chunks = self._run_chunks

    @property
    def complete(self) -> bool:
        return self._verified == (1 << self._count) - 1

    @property
    def in_flight(self) -> int:
        return self._requested.bit_count()

    def progress_s(self) -> float | None:
        """When a chunk last came in, from anywhere."""
        return self._progress_s

    def handle(self, event: Event, now_s: float) -> list[Order]:
        """Apply one event; return the orders to carry out now, in order."""
        if self._progress_s is None:
            self._progress_s = now_s
        orders: list[Order] = []
        self._apply(event, now_s, orders)
        self._plan(now_s, orders)
        if self._tick_s is None:
            self._tick_s = now_s + TICK_S
        return orders

    def next_deadline_s(self) -> float | None:
        return None if self.complete else self._tick_s

    def handle_deadline(self, now_s: float) -> list[Order]:
        """Give up on silent neighbours, hedge what a reader waits for, escape starvation."""
        self._tick_s = now_s + TICK_S
        orders: list[Order] = []
        for neighbour in self._neighbours.values():
            if neighbour.runs and now_s - neighbour.progress_s > STALL_S:
                self._give_up(neighbour, now_s, orders)
        self._plan(now_s, orders)
        self._hedge(now_s, orders)
        self._escape(now_s, orders)
        return orders

    # --- events -------------------------------------------------------------------------------

    def _apply(self, event: Event, now_s: float, orders: list[Order]) -> None:
        match event:
            case NeighbourUp(host, distance, proxy):
                self._neighbours.setdefault(host, _Neighbour(host, distance, proxy, now_s))
            case NeighbourDown(host):
                self._drop(host)
            case Offered(host, bits):
                self._offered(host, bits)
            case Retracted(host):
                self._unoffer(host, ~0)
            case HashesKnown(bits):
                self._hashed |= bits
            case Progressed(host, nbytes):
                if neighbour := self._neighbours.get(host):
                    neighbour.moved(nbytes, now_s)
            case Arrived():
                self._arrived(event, now_s, orders)
            case Landed(bits):
                self._verified |= bits
                self._progress_s = now_s
            case Lost(bits):
                self._verified &= ~bits
            case Refused(host, request_id, gone):
                self._refused(host, request_id, gone, now_s)
            case ReaderMoved(reader, chunk):
                if self._readers.get(reader) != chunk:
                    self._readers[reader], self._moved_s[reader] = chunk, now_s
            case ReaderLeft(reader):
                self._readers.pop(reader, None)
                self._moved_s.pop(reader, None)
            case _:
                assert_never(event)

    def _drop(self, host: HostId) -> None:
        neighbour = self._neighbours.pop(host, None)
        if neighbour is not None:
            for run in neighbour.runs.values():
                self._requested &= ~run.bits
            self._count_offers()

    def _offered(self, host: HostId, bits: int) -> None:
        neighbour = self._neighbours.get(host)
        if neighbour is None:
            return
        fresh = bits & ~neighbour.offered
        neighbour.offered |= fresh
        if not neighbour.proxy:
            self._twice |= self._once & fresh
            self._once |= fresh

    def _unoffer(self, host: HostId, bits: int) -> None:
        if neighbour := self._neighbours.get(host):
            neighbour.offered &= ~bits
            self._count_offers()

    def _count_offers(self) -> None:
        self._once, self._twice = 0, 0
        for neighbour in self._neighbours.values():
            if not neighbour.proxy:
                self._twice |= self._once & neighbour.offered
                self._once |= neighbour.offered

    def _arrived(self, event: Arrived, now_s: float, orders: list[Order]) -> None:
        bit = 1 << event.chunk
        if event.good:
            self._verified |= bit
            self._progress_s = now_s
            self._escape_chunks = max(self._run_chunks, self._escape_chunks // 2)
        neighbour = self._neighbours.get(event.host)
        run = neighbour.runs.get(event.request_id) if neighbour else None
        if neighbour is None or run is None:
            return
        run.bits &= ~bit
        self._requested &= ~bit
        neighbour.progress_s = now_s
        if not event.good:
            self.counters.bad_chunks += 1
            self._unoffer(event.host, bit)
        if not run.bits:
            del neighbour.runs[run.request_id]
        if event.good and self._hedged & bit:
            self._withdraw_twins(bit, orders)

    def _withdraw_twins(self, bit: int, orders: list[Order]) -> None:
        """The other copy of a hedged chunk is not worth its bytes any more."""
        self._hedged &= ~bit
        for neighbour in self._neighbours.values():
            for run in [r for r in neighbour.runs.values() if r.bits == bit]:
                del neighbour.runs[run.request_id]
                orders.append(Withdraw(neighbour.host, run.request_id))

    def _refused(self, host: HostId, request_id: RequestId, gone: bool, now_s: float) -> None:
        neighbour = self._neighbours.get(host)
        run = neighbour.runs.pop(request_id, None) if neighbour else None
        if neighbour is None or run is None:
            return
        self._requested &= ~run.bits
        if gone:
            self._unoffer(host, run.bits)
        else:
            neighbour.slow_until_s = now_s + TICK_S

    def _give_up(self, neighbour: _Neighbour, now_s: float, orders: list[Order]) -> None:
        self.counters.stalls += 1
        for run in neighbour.runs.values():
            self._requested &= ~run.bits
            orders.append(Withdraw(neighbour.host, run.request_id))
        neighbour.runs.clear()
        neighbour.progress_s = now_s
        neighbour.slow_until_s = now_s + SLOW_PENALTY_S

    # --- choice -------------------------------------------------------------------------------

    def _wanted(self) -> int:
        return self._hashed & ~self._verified & ~self._requested

    def _urgent(self) -> int:
        """The chunks right ahead of each reader that are not there yet."""
        bits = 0
        for at in self._readers.values():
            first = ChunkSet(self._count, self._verified).first_missing(at)
            bits |= ((1 << self._urgent_chunks) - 1) << first
        return bits

    def _usable(self, now_s: float) -> Iterator[_Neighbour]:
        """Neighbours with room for another run, nearest first, peers before proxies."""
        order = [n for n in self._neighbours.values() if len(n.runs) < RUNS_PER_NEIGHBOUR]
        self._rng.shuffle(order)
        order.sort(key=lambda n: (n.proxy, n.slow_until_s > now_s, n.distance))
        return iter(order)

    def _plan(self, now_s: float, orders: list[Order]) -> None:
        wanted = self._wanted()
        if not wanted or not self._neighbours:
            return
        urgent = self._urgent()
        covered = self._covered_by_peers(now_s)
        for neighbour in self._usable(now_s):
            if neighbour.slow_until_s > now_s and len(self._neighbours) > 1:
                continue
            while len(neighbour.runs) < RUNS_PER_NEIGHBOUR and self.in_flight < self._in_flight_max:
                candidates = neighbour.offered & self._wanted()
                if neighbour.proxy:
                    candidates &= ~covered
                if not candidates:
                    break
                first = self._first_of(candidates, urgent)
                self._ask(neighbour, first, self._run_chunks, candidates, now_s, orders)

    def _covered_by_peers(self, now_s: float) -> int:
        bits = 0
        for neighbour in self._neighbours.values():
            if not neighbour.proxy and neighbour.slow_until_s <= now_s:
                bits |= neighbour.offered
        return bits

    def _first_of(self, candidates: int, urgent: int) -> int:
        if candidates & urgent:
            return _lowest(candidates & urgent)
        if self._sequential:
            return _lowest(candidates)
        rare = candidates & ~self._twice
        pool = rare or candidates
        # Aligned, so that a random start does not cut the runs of what lies before it.
        start = self._rng.randrange(self._count) // self._run_chunks * self._run_chunks
        return _lowest(pool >> start << start or pool)

    def _ask(
        self,
        neighbour: _Neighbour,
        first: int,
        count_max: int,
        candidates: int,
        now_s: float,
        orders: list[Order],
    ) -> None:
        tail = candidates >> first
        count = min(count_max, _lowest(~tail))
        bits = ((1 << count) - 1) << first
        run = _Run(neighbour.host, self._new_request_id(), bits, now_s)
        if not neighbour.runs:
            neighbour.progress_s = now_s  # the clock of a silent neighbour starts with the asking
        neighbour.runs[run.request_id] = run
        self._requested |= bits
        orders.append(Ask(neighbour.host, run.request_id, first, count))

    # --- trouble ------------------------------------------------------------------------------

    def _hedge(self, now_s: float, orders: list[Order]) -> None:
        """Ask a second source for what a reader waits for while its source shows no progress."""
        budget = max(HEDGES_MIN, int(self._count * HEDGE_SHARE))
        for reader, at in list(self._readers.items()):
            chunk = ChunkSet(self._count, self._verified).first_missing(at)
            bit = 1 << chunk
            if chunk == self._count or self._hedged & bit or self.counters.hedges >= budget:
                continue
            holder = self._holder(bit)
            if holder is not None:
                late = now_s - holder.progress_s > HEDGE_S
            else:
                waits = chunk == at and bool(bit & self._wanted())
                late = waits and now_s - self._moved_s[reader] > UNOFFERED_S
            second = self._second_source(bit, holder, now_s) if late else None
            if second is not None:
                self.counters.hedges += 1
                self._hedged |= bit
                self._ask(second, chunk, 1, bit, now_s, orders)

    def _holder(self, bit: int) -> _Neighbour | None:
        for neighbour in self._neighbours.values():
            if any(run.bits & bit for run in neighbour.runs.values()):
                return neighbour
        return None

    def _second_source(self, bit: int, first: _Neighbour | None, now_s: float) -> _Neighbour | None:
        others = [
            n
            for n in self._neighbours.values()
            if n is not first and n.slow_until_s <= now_s and (n.offered & bit or n.proxy)
        ]
        self._rng.shuffle(others)
        return min(others, key=lambda n: (n.proxy, len(n.runs)), default=None)

    def _escape(self, now_s: float, orders: list[Order]) -> None:
        """Nothing comes and nobody offers: ask a proxy for what it did not offer, or look further.

        A proxy spreads first offers over its readers; one that cannot reach the others must not
        wait for them for ever. Escapes double while they are needed and are jittered.
        """
        waiting = self._wanted() or self._hashed != (1 << self._count) - 1
        silent_s = 0.0 if self._progress_s is None else now_s - self._progress_s
        patience_s = STARVE_S * (1 + self._rng.random())
        if self._requested or not waiting or silent_s < patience_s:
            return
        proxies = [n for n in self._neighbours.values() if n.proxy and n.slow_until_s <= now_s]
        wanted = self._wanted()
        if proxies and wanted:
            first = _lowest(wanted & self._urgent() or wanted)
            self.counters.escapes += 1
            self._escape_chunks = min(self._escape_chunks * 2, ESCAPE_CHUNKS_MAX)
            neighbour = self._rng.choice(proxies)
            self._ask(neighbour, first, self._escape_chunks, wanted, now_s, orders)
        elif now_s - self._looked_s >= LOOK_FURTHER_S:
            self._looked_s = now_s
            orders.append(LookFurther())


def _lowest(bits: int) -> int:
    """Index of the lowest set bit of a non-zero integer (also of a negative one)."""
    return (bits & -bits).bit_length() - 1
