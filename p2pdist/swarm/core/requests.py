"""What one blob lacks, who offers it, and what was asked of whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from p2pdist.model.bits import count_of, first_missing, span, without
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Distance
from p2pdist.swarm.core.bulk import BulkPace
from p2pdist.swarm.core.fetch_events import Ask, NeighbourUp, Order, Withdraw
from p2pdist.swarm.core.flow import Flow, Flows
from p2pdist.swarm.core.tally import Tally


@dataclass(slots=True)
class FetchCounters:
    hedges: int = 0
    escapes: int = 0
    stalls: int = 0
    steals: int = 0
    """Requests that were taken back because another neighbour brings the bytes sooner."""
    bad_chunks: int = 0

    def add(self, other: FetchCounters) -> None:
        self.hedges += other.hedges
        self.escapes += other.escapes
        self.stalls += other.stalls
        self.steals += other.steals
        self.bad_chunks += other.bad_chunks


@dataclass(slots=True)
class Run:
    """Consecutive chunks, asked for in one request."""

    host: HostId
    request_id: RequestId
    first: int
    left: int
    """Which chunks did not come yet; the lowest bit is that of `first`."""
    progress_s: float
    """When it was asked for, or its last chunk came."""
    pace: BulkPace | None
    """That it was asked for at, as bulk; its bytes are settled there."""

    @property
    def bits(self) -> int:
        """The chunks that did not come yet."""
        return self.left << self.first


@dataclass(slots=True)
class Neighbour:
    host: HostId
    distance: Distance
    proxy: bool
    flows: Flows
    offered: int = 0
    slow_until_s: float = 0.0
    """It is left alone until then."""
    refused: int = 0
    """What it did not offer, and would not bring when it was asked all the same."""
    refused_until_s: float = 0.0
    """These are not asked of it until then."""
    runs: dict[RequestId, Run] = field(default_factory=dict)
    barren_at: int = -1
    """It offered nothing that was wanted when `Requests.grown` was this."""

    def flow(self, pace: BulkPace | None) -> Flow:
        """That of requests at `pace`."""
        return self.flows.urgent if pace is None else self.flows.bulk

    def refuse(self, bits: int, until_s: float, now_s: float) -> None:
        """It is not to be asked for `bits` before `until_s`."""
        self.refused = bits | (self.refused if now_s < self.refused_until_s else 0)
        self.refused_until_s = until_s

    def refuses(self, now_s: float) -> int:
        return self.refused if now_s < self.refused_until_s else 0


class Requests:
    """Pure bookkeeping: no choice is made here. Costs O(runs of one neighbour), or O(neighbours)
    where all are looked at."""

    def __init__(
        self,
        geometry: Geometry,
        new_request_id: Callable[[], RequestId],
        verified: int,
        hashed: int,
    ) -> None:
        self.geometry = geometry
        self.count = geometry.chunk_count
        self.everything = (1 << self.count) - 1
        self.verified = verified
        self.hashed = hashed
        """Only these may be asked for: the map vouches for them."""
        self.scope = self.everything
        """What is wanted at all."""
        self.requested = 0
        """What runs are open for."""
        self.twins = 0
        """What two neighbours were asked for: hedged chunks."""
        self.in_flight = 0
        """How many chunks are requested."""
        self.grown = 0
        """Changes when more is wanted than before, or may be."""
        self._wanted: int | None = None
        """None: it is to be found anew."""
        self.neighbours: dict[HostId, Neighbour] = {}
        self.offers = Tally()
        """How many peers offer a chunk; proxies do not count."""
        self.pace: BulkPace | None = None
        """While the blob is bulk."""
        self.held_until_s: float | None = None
        """By the pace."""
        self.held_at_s: float | None = None
        """When the pace last kept something back."""
        self._new_request_id = new_request_id

    @property
    def complete(self) -> bool:
        return self.verified == self.everything

    @property
    def satisfied(self) -> bool:
        """Nothing that is wanted lacks, and nothing is on its way."""
        return self.complete or not (self.requested or without(self.scope, self.verified))

    # --- what lacks -----------------------------------------------------------------------------

    def wanted(self) -> int:
        """What may be asked for now. Kept from one time to the next: it takes several operations on
        integers as long as the blob."""
        if self._wanted is None:
            self._wanted = self._find_wanted()
        return self._wanted

    def _find_wanted(self) -> int:
        return without(self.scope & self.hashed, self.verified | self.requested)

    def _want_more(self) -> None:
        self._wanted = None
        self.grown += 1

    def know(self, bits: int) -> None:
        """The map vouches for these."""
        self.hashed |= bits
        self._want_more()

    def have(self, bits: int) -> None:
        """These are here."""
        fresh = without(bits, self.verified)
        if fresh:
            self.verified |= fresh
            if self._wanted is not None:
                self._wanted = without(self._wanted, fresh)

    def lose(self, bits: int) -> None:
        """These are not here any more."""
        self.verified = without(self.verified, bits)
        self._want_more()

    def want(self, scope: int) -> bool:
        """Nothing else is wanted; return whether that is another scope than before."""
        if scope == self.scope:
            return False
        self.scope = scope
        self._want_more()
        return True

    def first_missing(self, chunk: int) -> int:
        """The first chunk from `chunk` on that is not there; the chunk count if none lacks."""
        return min(first_missing(self.verified, chunk), self.count)

    def held(self, now_s: float) -> bool:
        return self.held_until_s is not None and now_s < self.held_until_s

    def flow(self, neighbour: Neighbour) -> Flow:
        return neighbour.flow(self.pace)

    def bytes_of(self, bits: int) -> int:
        nbytes = count_of(bits) * self.geometry.chunk_size_bytes
        if bits >> (self.count - 1) & 1:
            nbytes -= self.geometry.chunk_size_bytes - self.geometry.length(self.count - 1)
        return nbytes

    def _bytes_in(self, first: int, count: int) -> int:
        """Those of a run."""
        nbytes = count * self.geometry.chunk_size_bytes
        if first + count == self.count:
            nbytes -= self.geometry.chunk_size_bytes - self.geometry.length(self.count - 1)
        return nbytes

    # --- neighbours -----------------------------------------------------------------------------

    def up(self, event: NeighbourUp) -> None:
        known = Neighbour(event.host, event.distance, event.proxy, event.flows)
        self.neighbours.setdefault(event.host, known)

    def down(self, host: HostId, now_s: float) -> None:
        neighbour = self.neighbours.pop(host, None)
        if neighbour is not None:
            for run in neighbour.runs.values():
                self._give_up(neighbour, run, now_s)
            if not neighbour.proxy:
                self.offers.remove(neighbour.offered)

    def part(self, host: HostId, now_s: float, orders: list[Order]) -> None:
        """Take back what it was asked for, and let it go."""
        if (neighbour := self.neighbours.get(host)) is not None:
            self.withdraw(neighbour, list(neighbour.runs.values()), now_s, orders)
            self.down(host, now_s)

    def offered(self, host: HostId, bits: int) -> None:
        neighbour = self.neighbours.get(host)
        if neighbour is None:
            return
        fresh = without(bits, neighbour.offered)
        neighbour.offered |= fresh
        neighbour.barren_at = -1
        if not neighbour.proxy:
            self.offers.add(fresh)

    def unoffer(self, host: HostId, bits: int) -> None:
        if neighbour := self.neighbours.get(host):
            gone = neighbour.offered & bits
            neighbour.offered = without(neighbour.offered, gone)
            if not neighbour.proxy:
                self.offers.remove(gone)

    def covered_by_peers(self, now_s: float) -> int:
        """What peers offer that answer."""
        peers = [n for n in self.neighbours.values() if not n.proxy]
        able = [n for n in peers if n.slow_until_s <= now_s]
        if len(able) == len(peers):
            return self.offers.any()
        bits = 0
        for neighbour in able:
            bits |= neighbour.offered
        return bits

    def of_use(self, neighbour: Neighbour) -> int:
        """What it offers that is wanted."""
        if neighbour.barren_at == self.grown:
            return 0  # what is not wanted is not wanted again without a word
        bits = neighbour.offered & self.wanted()
        if not bits:
            neighbour.barren_at = self.grown
        return bits

    # --- requests -------------------------------------------------------------------------------

    def ask(
        self, neighbour: Neighbour, first: int, count: int, now_s: float, orders: list[Order]
    ) -> bool:
        """Order a run of at most `count` chunks; False when the pace holds it back."""
        pace = self.pace
        if pace is not None:
            piece = pace.piece_bytes(now_s) / self.geometry.chunk_size_bytes
            count = max(1, int(min(count, piece)))
        nbytes = self._bytes_in(first, count)
        if pace is not None:
            wait_s = pace.take(nbytes, now_s)
            self.held_until_s = now_s + wait_s if wait_s else None
            if wait_s:
                self.held_at_s = now_s
                return False
        run = Run(neighbour.host, self._new_request_id(), first, (1 << count) - 1, now_s, pace)
        neighbour.flow(pace).asked(nbytes, now_s)
        neighbour.runs[run.request_id] = run
        bits = run.bits
        if twins := bits & self.requested:
            self.twins |= twins
        self.requested |= bits
        self.in_flight += count - twins.bit_count()
        self._wanted = without(self.wanted(), bits)
        orders.append(Ask(neighbour.host, run.request_id, first, count, pace is not None))
        return True

    def came(self, host: HostId, request_id: RequestId, chunk: int, now_s: float) -> bool:
        """A chunk of a run is here, good or bad; False: nobody asked for it any more."""
        neighbour = self.neighbours.get(host)
        run = neighbour.runs.get(request_id) if neighbour else None
        if neighbour is None or run is None:
            return False
        mine = run.left & (1 << chunk - run.first) if chunk >= run.first else 0
        nbytes = self.geometry.length(chunk) if mine else 0
        run.left ^= mine
        run.progress_s = now_s
        self._free(run, mine << run.first, nbytes, now_s)
        neighbour.flow(run.pace).came(nbytes, now_s)
        if not run.left:
            del neighbour.runs[run.request_id]
        return True

    def refused(self, host: HostId, request_id: RequestId, now_s: float) -> Run | None:
        """The neighbour will not bring a run; return it."""
        neighbour = self.neighbours.get(host)
        run = neighbour.runs.pop(request_id, None) if neighbour else None
        if neighbour is not None and run is not None:
            self._give_up(neighbour, run, now_s)
        return run

    def withdraw(
        self, neighbour: Neighbour, runs: list[Run], now_s: float, orders: list[Order]
    ) -> None:
        for run in runs:
            self._give_up(neighbour, run, now_s)
            del neighbour.runs[run.request_id]
            orders.append(Withdraw(neighbour.host, run.request_id))

    def withdraw_bulk(self, now_s: float, orders: list[Order]) -> None:
        for neighbour in self.neighbours.values():
            bulk = [run for run in neighbour.runs.values() if run.pace is not None]
            self.withdraw(neighbour, bulk, now_s, orders)

    def withdraw_all(self, now_s: float, orders: list[Order]) -> None:
        for neighbour in self.neighbours.values():
            self.withdraw(neighbour, list(neighbour.runs.values()), now_s, orders)

    def validate(self) -> None:
        """Assert what the comments of fields say; costs O(neighbours and their runs)."""
        requested, twins, offers = 0, 0, Tally()
        assert not (self.verified | self.hashed | self.scope) & ~self.everything
        for host, neighbour in self.neighbours.items():
            asked = 0
            neighbour.flows.validate()
            for request_id, run in neighbour.runs.items():
                assert (run.host, run.request_id) == (host, request_id)
                assert neighbour.host == host
                assert run.left, "a run that has come is open"
                assert not run.bits & asked, "one neighbour was asked twice for a chunk"
                asked |= run.bits
            assert not requested & asked & twins, "three neighbours were asked for a chunk"
            twins |= requested & asked
            requested |= asked
            if not neighbour.proxy:
                offers.add(neighbour.offered)
        assert self.requested == requested, "what is asked for is what runs are open for"
        assert self.twins == twins
        assert self.in_flight == requested.bit_count()
        wanted = self._find_wanted()
        assert self._wanted is None or self._wanted == wanted, "what is kept is what would be found"
        for neighbour in self.neighbours.values():
            barren = neighbour.barren_at == self.grown
            assert not (barren and neighbour.offered & wanted), "one of use counts for barren"
        assert self.offers == offers, "the tally counts what peers offer"

    def _give_up(self, neighbour: Neighbour, run: Run, now_s: float) -> None:
        nbytes = self.bytes_of(run.bits)
        neighbour.flow(run.pace).taken_back(nbytes)
        self._free(run, run.bits, nbytes, now_s)

    def _free(self, run: Run, bits: int, nbytes: int, now_s: float) -> None:
        """`bits` of a run came, or will not come, which are `nbytes`; what a twin is still open for
        stays asked for."""
        single = bits
        if self.twins:
            single = without(bits, self.twins)
            self.twins = without(self.twins, bits)
        self.requested = without(self.requested, single)
        self.in_flight -= count_of(single)
        if without(single, self.verified):
            self._want_more()
        if run.pace is not None:
            run.pace.settled(nbytes, now_s)


class Awaited(NamedTuple):
    """What one reader needs next."""

    at: int
    """Where it is."""
    chunk: int
    """The first from there on that lacks."""
    since_s: float
    """When it came to where it is."""
    until: int | None
    """Where a demand reader ends."""


class Readers:
    """Where in the blob somebody waits, since when, and how far it reads."""

    def __init__(self) -> None:
        self._at: dict[int, int] = {}
        self._since_s: dict[int, float] = {}
        self._until: dict[int, int] = {}  # of demand readers

    def __bool__(self) -> bool:
        return bool(self._at)

    @property
    def demand(self) -> bool:
        """Somebody needs a part of the blob."""
        return bool(self._until)

    @property
    def ordinary(self) -> bool:
        """Somebody reads on to the end of the blob."""
        return len(self._at) > len(self._until)

    def moved(self, reader: int, chunk: int, until: int | None, now_s: float) -> bool:
        """Return whether it is a new one."""
        new = reader not in self._at
        if self._at.get(reader) != chunk:
            self._at[reader], self._since_s[reader] = chunk, now_s
        if until is not None:
            self._until[reader] = until
        else:
            self._until.pop(reader, None)
        return new

    def left(self, reader: int) -> None:
        self._at.pop(reader, None)
        self._since_s.pop(reader, None)
        self._until.pop(reader, None)

    def validate(self) -> None:
        """Assert that each reader is somewhere since some time."""
        assert self._at.keys() == self._since_s.keys() >= self._until.keys()

    def demanded(self) -> int:
        """The chunks that demand readers need, from where they are."""
        bits = 0
        for reader, until in self._until.items():
            bits |= span(self._at[reader], until)
        return bits

    def awaited(self, requests: Requests) -> list[Awaited]:
        """For each reader that lacks something."""
        awaited = []
        for reader, at in self._at.items():
            chunk, until = requests.first_missing(at), self._until.get(reader)
            if chunk < (requests.count if until is None else until):
                awaited.append(Awaited(at, chunk, self._since_s[reader], until))
        return awaited
