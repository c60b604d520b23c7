"""Which chunks of one blob to ask of which neighbour, and what to do when an answer stays away.

    NeighbourUp, Offered, HashesKnown … ──▶ BlobFetch.handle ──▶ Ask, Withdraw, LookFurther

Order of choice: what a reader waits for, then what the fewest neighbours offer. What a proxy
offers is a promise to us alone, and is asked for at once unless a peer has it by now; that is asked
of the proxy only while it would otherwise have nothing to do for us.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, assert_never

from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import HostId, RequestId
from p2pdist.peer.core.bulk import BulkPace
from p2pdist.peer.core.fetch_events import (
    Arrived,
    Ask,
    Event,
    GateShut,
    Halted,
    HashesKnown,
    Landed,
    LookFurther,
    Lost,
    NeighbourDown,
    NeighbourUp,
    Offered,
    Order,
    PaceSet,
    Progressed,
    ReaderLeft,
    ReaderMoved,
    Refused,
    Retracted,
    Withdraw,
)
from p2pdist.peer.core.fetch_state import FetchCounters, Neighbour, Run
from p2pdist.peer.core.tally import Tally

__all__ = [
    "Arrived",
    "Ask",
    "BlobFetch",
    "Event",
    "FetchCounters",
    "GateShut",
    "Halted",
    "HashesKnown",
    "Landed",
    "LookFurther",
    "Lost",
    "NeighbourDown",
    "NeighbourUp",
    "Offered",
    "Order",
    "PaceSet",
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
# What a proxy promises lies apart: more and smaller runs, the same bytes.
PROMISED_RUNS_MAX: Final = 8
# Where a rate is kept runs are short, and what is outstanding is bounded by the rate.
PACED_RUNS_PER_NEIGHBOUR: Final = 8
# What one blob may have on the way, and so in buffers.
IN_FLIGHT_BYTES_MAX: Final = 32 << 20
# How far ahead of a reader order beats rarity.
URGENT_BYTES: Final = 4 << 20

TICK_S: Final = 0.25
HEDGE_S: Final = 0.5
# A chunk that a reader waits for and nobody offers: its first receiver may not know of this peer.
UNOFFERED_S: Final = 1.0
BULK_STALL_S: Final = 10.0
"""A source that serves others first sends bulk at a trickle, one run after the other."""
STALL_S: Final = 2.0  # registry contract 3.7: per-piece deadline 2 s, then another source
STARVE_S: Final = 0.3
SLOW_PENALTY_S: Final = 5.0
LOOK_FURTHER_S: Final = 1.0
ESCAPE_CHUNKS_MAX: Final = 64
HEDGE_SHARE: Final = 0.02  # design decision 10: hedges stay within 2 % of the bytes
HEDGES_MIN: Final = 4


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
        self._neighbours: dict[HostId, Neighbour] = {}
        self._readers: dict[int, int] = {}
        self._moved_s: dict[int, float] = {}  # since when each reader is where it is
        self._offers = Tally()  # how many peers offer a chunk
        self._changed = False
        self._progress_s: float | None = None
        self._looked_s = -LOOK_FURTHER_S
        self._tick_s: float | None = None
        self._escape_chunks = self._run_chunks
        self._pace: BulkPace | None = None
        self._held_until_s: float | None = None  # by the pace
        self._held_at_s: float | None = None

    @property
    def complete(self) -> bool:
        return self._verified == (1 << self._count) - 1

    @property
    def in_flight(self) -> int:
        return self._requested.bit_count()

    def progress_s(self) -> float | None:
        """When a chunk last came in, from anywhere."""
        return self._progress_s

    def held_at_s(self) -> float | None:
        """When the pace last kept it from asking: not to ask is not to starve."""
        return self._held_at_s

    def handle(self, event: Event, now_s: float) -> list[Order]:
        """Apply one event and plan; return the orders to carry out now, in order."""
        return [*self.take(event, now_s), *self.plan(now_s)]

    def take(self, event: Event, now_s: float) -> list[Order]:
        """Apply one event; `plan_wanted` says whether it changed what can be asked for."""
        if self._progress_s is None:
            self._progress_s = now_s
        if self._tick_s is None:
            self._tick_s = now_s + TICK_S
        orders: list[Order] = []
        self._apply(event, now_s, orders)
        return orders

    @property
    def plan_wanted(self) -> bool:
        return self._changed

    def plan(self, now_s: float) -> list[Order]:
        """Ask for what can be asked for, once for all events that were taken until now."""
        orders: list[Order] = []
        if self._changed:
            self._plan(now_s, orders)
        return orders

    def next_deadline_s(self) -> float | None:
        if self.complete or self._tick_s is None or self._held_until_s is None:
            return None if self.complete else self._tick_s
        return min(self._tick_s, self._held_until_s)

    def handle_deadline(self, now_s: float) -> list[Order]:
        """Give up on silent neighbours, hedge what a reader waits for, escape starvation."""
        orders: list[Order] = []
        early = self._tick_s is not None and now_s < self._tick_s
        if early and self._held_until_s is not None:
            self._plan(now_s, orders)  # the pace lets another piece go
            return orders
        self._tick_s = now_s + TICK_S
        stall_s = STALL_S if self._pace is None else BULK_STALL_S
        for neighbour in self._neighbours.values():
            if neighbour.runs and now_s - neighbour.progress_s > stall_s:
                self._give_up(neighbour, now_s, orders)
        self._plan(now_s, orders)
        self._hedge(now_s, orders)
        self._escape(now_s, orders)
        return orders

    # --- events -------------------------------------------------------------------------------

    def _apply(self, event: Event, now_s: float, orders: list[Order]) -> None:
        # A neighbour that comes offers nothing yet, and progress or landed chunks free nothing.
        if not isinstance(event, NeighbourUp | Progressed | Landed):
            self._changed = True
        match event:
            case NeighbourUp(host, distance, proxy):
                self._neighbours.setdefault(host, Neighbour(host, distance, proxy, now_s))
            case NeighbourDown(host):
                self._drop(host, now_s)
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
            case PaceSet(pace):
                if pace is None:  # the sources are to send at once what they hold back
                    self._withdraw_bulk(now_s, orders)
                self._pace, self._held_until_s = pace, None
            case GateShut():
                self._withdraw_bulk(now_s, orders)
            case Halted():
                for neighbour in self._neighbours.values():
                    self._withdraw(neighbour, list(neighbour.runs.values()), now_s, orders)
                self._neighbours.clear()
                self._offers.clear()
            case _:
                assert_never(event)

    def _drop(self, host: HostId, now_s: float) -> None:
        neighbour = self._neighbours.pop(host, None)
        if neighbour is not None:
            for run in neighbour.runs.values():
                self._free(run, run.bits, now_s)
            if not neighbour.proxy:
                self._offers.remove(neighbour.offered)

    def _offered(self, host: HostId, bits: int) -> None:
        neighbour = self._neighbours.get(host)
        if neighbour is None:
            return
        fresh = bits & ~neighbour.offered
        neighbour.offered |= fresh
        if not neighbour.proxy:
            self._offers.add(fresh)

    def _unoffer(self, host: HostId, bits: int) -> None:
        if neighbour := self._neighbours.get(host):
            gone = neighbour.offered & bits
            neighbour.offered &= ~bits
            if not neighbour.proxy:
                self._offers.remove(gone)

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
        self._free(run, run.bits & bit, now_s)
        run.bits &= ~bit
        neighbour.progress_s = now_s
        if not event.good:
            self.counters.bad_chunks += 1
            self._unoffer(event.host, bit)
        if not run.bits:
            del neighbour.runs[run.request_id]
        if event.good and self._hedged & bit:
            self._withdraw_twins(bit, now_s, orders)

    def _free(self, run: Run, bits: int, now_s: float) -> None:
        """`bits` of a run came, or will not come."""
        self._requested &= ~bits
        if run.pace is not None:
            run.pace.settled(self._bytes_of(bits), now_s)

    def _bytes_of(self, bits: int) -> int:
        nbytes = bits.bit_count() * self._geometry.chunk_size_bytes
        if bits >> (self._count - 1) & 1:
            nbytes -= self._geometry.chunk_size_bytes - self._geometry.length(self._count - 1)
        return nbytes

    def _withdraw_bulk(self, now_s: float, orders: list[Order]) -> None:
        for neighbour in self._neighbours.values():
            bulk = [run for run in neighbour.runs.values() if run.pace is not None]
            self._withdraw(neighbour, bulk, now_s, orders)

    def _withdraw(
        self, neighbour: Neighbour, runs: list[Run], now_s: float, orders: list[Order]
    ) -> None:
        for run in runs:
            self._free(run, run.bits, now_s)
            del neighbour.runs[run.request_id]
            orders.append(Withdraw(neighbour.host, run.request_id))

    def _withdraw_twins(self, bit: int, now_s: float, orders: list[Order]) -> None:
        """The other copy of a hedged chunk is not worth its bytes any more."""
        self._hedged &= ~bit
        for neighbour in self._neighbours.values():
            twins = [run for run in neighbour.runs.values() if run.bits == bit]
            self._withdraw(neighbour, twins, now_s, orders)

    def _refused(self, host: HostId, request_id: RequestId, gone: bool, now_s: float) -> None:
        neighbour = self._neighbours.get(host)
        run = neighbour.runs.pop(request_id, None) if neighbour else None
        if neighbour is None or run is None:
            return
        self._free(run, run.bits, now_s)
        if gone:
            self._unoffer(host, run.bits)
        else:
            neighbour.slow_until_s = now_s + TICK_S

    def _give_up(self, neighbour: Neighbour, now_s: float, orders: list[Order]) -> None:
        self.counters.stalls += 1
        self._withdraw(neighbour, list(neighbour.runs.values()), now_s, orders)
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

    def _has_room(self, neighbour: Neighbour) -> bool:
        if self._pace is not None and self._pace.limited:
            return len(neighbour.runs) < PACED_RUNS_PER_NEIGHBOUR
        if not neighbour.proxy:
            return len(neighbour.runs) < RUNS_PER_NEIGHBOUR
        return (
            len(neighbour.runs) < PROMISED_RUNS_MAX
            and sum(run.bits.bit_count() for run in neighbour.runs.values())
            < RUNS_PER_NEIGHBOUR * self._run_chunks
        )

    def _usable(self, now_s: float) -> list[Neighbour]:
        """Neighbours with room for another run, nearest first."""
        alone = len(self._neighbours) == 1
        usable = [
            n
            for n in self._neighbours.values()
            if (alone or n.slow_until_s <= now_s) and self._has_room(n)
        ]
        self._rng.shuffle(usable)
        usable.sort(key=lambda n: n.distance)
        return usable

    def _plan(self, now_s: float, orders: list[Order]) -> None:
        self._changed = False
        if self._held(now_s):
            return
        self._held_until_s = None
        if not self._wanted() or not self._neighbours:
            return
        urgent = self._urgent()
        covered = self._covered_by_peers(now_s)
        usable = self._usable(now_s)
        proxies = [n for n in usable if n.proxy]
        # First what was promised to us and nobody else has, then what peers have, and last what a
        # proxy that has nothing else to do for us offers although a peer has it.
        for neighbour in proxies:
            if not self._fill(neighbour, ~covered, urgent, now_s, orders):
                return
        for neighbour in usable:
            if not neighbour.proxy and not self._fill(neighbour, ~0, urgent, now_s, orders):
                return
        for neighbour in proxies:
            if not neighbour.runs and not self._fill(neighbour, ~0, urgent, now_s, orders):
                return

    def _fill(
        self, neighbour: Neighbour, among: int, urgent: int, now_s: float, orders: list[Order]
    ) -> bool:
        """Ask a neighbour for as much as it has room for; False when the pace holds that back."""
        while self._has_room(neighbour) and self.in_flight < self._in_flight_max:
            candidates = neighbour.offered & self._wanted() & among
            if not candidates:
                break
            first = self._first_of(candidates, urgent)
            if not self._ask(neighbour, first, self._run_chunks, candidates, now_s, orders):
                return False
        return True

    def _held(self, now_s: float) -> bool:
        return self._held_until_s is not None and now_s < self._held_until_s

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
        pool = self._offers.fewest(candidates)
        # Aligned, so that a random start does not cut the runs of what lies before it.
        start = self._rng.randrange(self._count) // self._run_chunks * self._run_chunks
        return _lowest(pool >> start << start or pool)

    def _ask(
        self,
        neighbour: Neighbour,
        first: int,
        count_max: int,
        candidates: int,
        now_s: float,
        orders: list[Order],
    ) -> bool:
        """Ask for a run; False when the pace holds it back."""
        tail, pace = candidates >> first, self._pace
        count = min(count_max, _lowest(~tail))
        if pace is not None:
            piece = pace.piece_bytes(now_s) / self._geometry.chunk_size_bytes
            count = max(1, int(min(count, piece)))
        bits = ((1 << count) - 1) << first
        if pace is not None:
            wait_s = pace.take(self._bytes_of(bits), now_s)
            self._held_until_s = now_s + wait_s if wait_s else None
            if wait_s:
                self._held_at_s = now_s
                return False
        run = Run(neighbour.host, self._new_request_id(), bits, pace)
        if not neighbour.runs:
            neighbour.progress_s = now_s  # the clock of a silent neighbour starts with the asking
        neighbour.runs[run.request_id] = run
        self._requested |= bits
        orders.append(Ask(neighbour.host, run.request_id, first, count, pace is not None))
        return True

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

    def _holder(self, bit: int) -> Neighbour | None:
        for neighbour in self._neighbours.values():
            if any(run.bits & bit for run in neighbour.runs.values()):
                return neighbour
        return None

    def _second_source(self, bit: int, first: Neighbour | None, now_s: float) -> Neighbour | None:
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
        if self._requested or not waiting or silent_s < patience_s or self._held(now_s):
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
