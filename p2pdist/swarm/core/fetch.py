"""Which chunks of one blob to ask of which neighbour.

    NeighbourUp, Offered, HashesKnown … ──▶ BlobFetch.handle ──▶ Ask, Withdraw, LookFurther …

Order of choice: what a reader waits for, of whom it arrives first; then what the fewest neighbours
offer. A neighbour is asked for about as much as it brings in `QUEUE_S`, so that nothing waits long
in the queue of a slow one while others are idle. What a proxy offers is a promise to us alone, and
is asked for at once unless a peer has it by now; that is asked of the proxy only while it would
otherwise have nothing to do for us. What to do when an answer stays away is decided in `rescue`.

A demand reader needs a part of the blob, now. It goes before all others, and waits for no promise:
what no peer brings in good time is asked of a proxy that did not offer it, at once. While there are
only such readers (`WholeWanted`), nothing else is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from random import Random
from typing import Final, NamedTuple, assert_never

from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import HostId, RequestId
from p2pdist.swarm.core.fetch_events import (
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
    Parted,
    ReaderLeft,
    ReaderMoved,
    Refused,
    Retracted,
    SayHungry,
    WholeWanted,
    Withdraw,
)
from p2pdist.swarm.core.requests import (
    Awaited,
    FetchCounters,
    Neighbour,
    Readers,
    Requests,
    lowest,
    span,
)
from p2pdist.swarm.core.rescue import Rescue

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
    "Parted",
    "ReaderLeft",
    "ReaderMoved",
    "Refused",
    "Retracted",
    "SayHungry",
    "WholeWanted",
    "Withdraw",
]

# A run of 1 MiB keeps a 1 Gbit/s link busy for 8 ms; two of them outstanding hide the round trip.
RUN_BYTES: Final = 1 << 20
OUTSTANDING_BYTES_MAX: Final = 2 * RUN_BYTES
# How long what a neighbour was asked for may take: more only waits in its queue, and one round trip
# between continents is less.
QUEUE_S: Final = 0.1
# What is offered may lie apart: more and smaller runs, the same bytes.
RUNS_MAX: Final = 8
# What one blob may have on the way, and so in buffers.
IN_FLIGHT_BYTES_MAX: Final = 32 << 20
# How far ahead of a reader order beats rarity.
URGENT_BYTES: Final = 4 << 20
# A neighbour that takes so many times as long as the best one is not asked for what is urgent.
LAGGING: Final = 2.0
LAGGING_S: Final = 0.5
"""Sooner than this nobody is too late: the reader has more to go on with."""
REFUSED_S: Final = 0.25
"""So long a proxy that refused what a demand reader needs is not asked for it again. It does not
have it yet, or leaves it to peers that this host has to meet first: some round trips."""

TICK_S: Final = 0.25
READER_TICK_S: Final = 0.1
"""Somebody waits: trouble is looked for more often."""


class _Able(NamedTuple):
    """A neighbour that answers."""

    neighbour: Neighbour
    due_s: float
    """In how many seconds it would bring a chunk that it is asked for now."""
    prompt: bool
    """That is good time: no other one needs only half of it."""


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
        self._rng = rng
        self._sequential = sequential
        self._run_chunks = max(1, RUN_BYTES // geometry.chunk_size_bytes)
        self._outstanding_max = max(2, OUTSTANDING_BYTES_MAX // geometry.chunk_size_bytes)
        self._in_flight_max = max(8, IN_FLIGHT_BYTES_MAX // geometry.chunk_size_bytes)
        self._urgent_chunks = max(2, URGENT_BYTES // geometry.chunk_size_bytes)
        self._requests = Requests(geometry, new_request_id, verified, hashed)
        self._readers = Readers()
        self._rescue = Rescue(
            self._requests,
            self._readers,
            counters,
            rng,
            run_chunks=self._run_chunks,
            urgent=self._urgent,
            asks_proxies=not sequential,
        )
        self._whole = True
        self._changed = False
        self._tick_s: float | None = None
        self._retry_s: float | None = None
        """When what a proxy refused may be asked for again."""

    @property
    def complete(self) -> bool:
        return self._requests.complete

    @property
    def in_flight(self) -> int:
        """Chunks that were asked for."""
        return self._requests.in_flight

    def held_at_s(self) -> float | None:
        """When the pace last kept it from asking: not to ask is not to starve."""
        return self._requests.held_at_s

    def handle(self, event: Event, now_s: float) -> list[Order]:
        """Apply one event and plan; return the orders to carry out now, in order."""
        return [*self.take(event, now_s), *self.plan(now_s)]

    def take(self, event: Event, now_s: float) -> list[Order]:
        """Apply one event; `plan_wanted` says whether it changed what can be asked for."""
        if self._tick_s is None:
            self._tick_s = now_s + READER_TICK_S
            self._rescue.progressed(now_s)
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
        if self._requests.satisfied or self._tick_s is None:
            return None
        deadlines = (self._tick_s, self._requests.held_until_s, self._retry_s)
        return min(due_s for due_s in deadlines if due_s is not None)

    def handle_deadline(self, now_s: float) -> list[Order]:
        """Look for trouble; the flows have heard what came until now."""
        orders: list[Order] = []
        early = self._tick_s is not None and now_s < self._tick_s
        if early and (self._requests.held_until_s is not None or self._retry_s is not None):
            self._plan(now_s, orders)  # the pace lets another piece go, or a refusal is forgotten
            return orders
        self._tick_s = now_s + (READER_TICK_S if self._readers else TICK_S)
        self._rescue.give_up_silent(now_s, orders)
        self._plan(now_s, orders)
        self._rescue.tick(now_s, orders)
        return orders

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        self._requests.validate()
        self._readers.validate()
        whole = self._readers.ordinary or self._whole
        everything = (1 << self._requests.count) - 1
        assert self._requests.scope == (everything if whole else self._readers.demanded())

    # --- events -------------------------------------------------------------------------------

    def _apply(self, event: Event, now_s: float, orders: list[Order]) -> None:
        requests = self._requests
        # A neighbour that comes offers nothing yet, and landed chunks free nothing.
        if not isinstance(event, NeighbourUp | Landed):
            self._changed = True
        match event:
            case NeighbourUp():
                requests.up(event)
            case Parted(host):
                requests.part(host, now_s, orders)
            case NeighbourDown(host):
                requests.down(host, now_s)
            case Offered(host, bits):
                requests.offered(host, bits)
            case Retracted(host):
                requests.unoffer(host, ~0)
            case HashesKnown(bits):
                requests.hashed |= bits
            case Arrived():
                self._arrived(event, now_s, orders)
            case Landed(bits):
                requests.verified |= bits
                self._rescue.progressed(now_s)
            case Lost(bits):
                requests.verified &= ~bits
            case Refused(host, request_id, gone):
                self._refused(host, request_id, gone, now_s)
            case ReaderMoved(reader, chunk, until):
                if requests.satisfied:  # it was not being looked at: what is past is no silence
                    self._tick_s = now_s + READER_TICK_S
                    self._rescue.progressed(now_s)
                elif not self._readers and self._tick_s is not None:
                    self._tick_s = min(self._tick_s, now_s + READER_TICK_S)
                self._readers.moved(reader, chunk, until, now_s)
                self._rescope()
            case ReaderLeft(reader):
                self._readers.left(reader)
                self._rescope()
            case WholeWanted(whole):
                self._whole = whole
                self._rescope()
            case PaceSet(pace):
                if pace is None:  # the sources are to send at once what they hold back
                    requests.withdraw_bulk(now_s, orders)
                requests.pace, requests.held_until_s = pace, None
            case GateShut():
                requests.withdraw_bulk(now_s, orders)
            case Halted():
                requests.withdraw_all(now_s, orders)
                requests.neighbours.clear()
                requests.offers.clear()
            case _:
                assert_never(event)

    def _rescope(self) -> None:
        """Want all, or what demand readers need."""
        whole = self._whole or self._readers.ordinary
        everything = (1 << self._requests.count) - 1
        self._requests.scope = everything if whole else self._readers.demanded()

    def _arrived(self, event: Arrived, now_s: float, orders: list[Order]) -> None:
        requests, bit = self._requests, 1 << event.chunk
        if event.good:
            requests.verified |= bit
            self._rescue.arrived(bit, now_s)
        if not requests.came(event.host, event.request_id, bit, now_s):
            return
        if not event.good:
            self.counters.bad_chunks += 1
            requests.unoffer(event.host, bit)
        else:
            self._rescue.withdraw_twins(bit, now_s, orders)

    def _refused(self, host: HostId, request_id: RequestId, gone: bool, now_s: float) -> None:
        run = self._requests.refused(host, request_id, now_s)
        if run is None:
            return
        neighbour = self._requests.neighbours[host]
        demanded = run.bits & self._readers.demanded() & ~neighbour.offered
        if neighbour.proxy and demanded:
            neighbour.refuse(run.bits, now_s + REFUSED_S, now_s)
        elif not gone:
            neighbour.slow_until_s = now_s + TICK_S
        if gone:
            self._requests.unoffer(host, run.bits)

    # --- choice -------------------------------------------------------------------------------

    def _urgent(self) -> int:
        """The chunks right ahead of each reader that are not there yet."""
        return self._ahead(self._readers.awaited(self._requests))

    def _demanded(self) -> int:
        """Those of them that demand readers need."""
        awaited = self._readers.awaited(self._requests)
        return self._ahead([each for each in awaited if each.until is not None])

    def _ahead(self, awaited: list[Awaited]) -> int:
        bits = 0
        for _, chunk, _, until in awaited:
            end = self._requests.count if until is None else until
            bits |= span(chunk, min(chunk + self._urgent_chunks, end))
        return bits & ~self._requests.verified if awaited else 0

    def _room(self, neighbour: Neighbour, now_s: float) -> int:
        """How many chunks more it may be asked for."""
        requests, runs = self._requests, len(neighbour.runs)
        if runs >= RUNS_MAX:
            return 0
        pace = requests.pace
        if pace is not None and pace.limited:
            return self._run_chunks  # what is outstanding is bounded by the rate
        flow = requests.flow(neighbour)
        if neighbour.proxy:  # promised to us, when it has time for us
            asked = sum(run.bits.bit_count() for run in neighbour.runs.values())
            return max(0, self._outstanding_max - asked)
        if not flow.rated:  # it may be slow
            return 0 if runs else 1
        chunk = requests.geometry.chunk_size_bytes
        room = int((flow.ahead_bytes(QUEUE_S, now_s) - flow.owed_bytes) // chunk) + 1
        return max(0 if runs else 1, min(room, self._outstanding_max - flow.owed_bytes // chunk))

    def _able(self, now_s: float) -> list[_Able]:
        """Neighbours that answer."""
        requests = self._requests
        alone = len(requests.neighbours) == 1
        chunk = requests.geometry.chunk_size_bytes
        able = [n for n in requests.neighbours.values() if alone or n.slow_until_s <= now_s]
        due = [requests.flow(n).eta_s(chunk, now_s) for n in able]
        rated = [due_s for n, due_s in zip(able, due, strict=True) if requests.flow(n).rated]
        limit_s = max(LAGGING * min(rated), LAGGING_S) if rated else math.inf
        return [_Able(n, due_s, due_s <= limit_s) for n, due_s in zip(able, due, strict=True)]

    def _usable(self, able: list[_Able], now_s: float) -> list[_Able]:
        """Those with room for another run, nearest first, then who brings it first."""
        usable = [each for each in able if self._room(each.neighbour, now_s)]
        self._rng.shuffle(usable)
        usable.sort(key=lambda each: (each.neighbour.distance, each.due_s))
        return usable

    def _plan(self, now_s: float, orders: list[Order]) -> None:
        requests = self._requests
        self._changed, self._retry_s = False, None
        if requests.held(now_s):
            return
        requests.held_until_s = None
        if not requests.neighbours:
            return
        if not requests.wanted():
            self._rescue.steal(now_s, orders)
            return
        urgent, demanded = self._urgent(), self._demanded()
        able = self._able(now_s)
        usable = self._usable(able, now_s)
        # What peers are to bring to demand readers nobody brings them who is late.
        prompted = _offered(each for each in able if each.prompt) & demanded
        if demanded:
            self._fill_demanded(usable, demanded, prompted, now_s, orders)
        covered = requests.covered_by_peers(now_s)
        # First what was promised to us and nobody else has, then what peers have, and last what a
        # proxy that has nothing else to do for us offers although a peer has it.
        for neighbour, _, _ in usable:
            if neighbour.proxy and not self._fill(neighbour, ~covered, urgent, now_s, orders):
                return
        for neighbour, _, prompt in usable:
            if not neighbour.proxy:
                among, hurry = (~0, urgent) if prompt else (~prompted, 0)
                if not self._fill(neighbour, among, hurry, now_s, orders):
                    return
        for neighbour, _, _ in usable:
            idle = neighbour.proxy and not neighbour.runs
            if idle and not self._fill(neighbour, ~0, urgent, now_s, orders):
                return

    def _fill_demanded(
        self, usable: list[_Able], demanded: int, prompted: int, now_s: float, orders: list[Order]
    ) -> None:
        """Ask for what demand readers need, before anything else; nobody is bulk meanwhile.

        Peers first; what none of them offers, or only a late one, of a proxy, offered or not.
        """
        for neighbour, _, prompt in usable:
            if prompt and not neighbour.proxy:
                self._fill(neighbour, demanded, demanded, now_s, orders)
        for neighbour in self._requests.neighbours.values():
            if neighbour.proxy and neighbour.slow_until_s <= now_s:
                self._fill_unoffered(neighbour, demanded & ~prompted, now_s, orders)

    def _fill_unoffered(
        self, proxy: Neighbour, among: int, now_s: float, orders: list[Order]
    ) -> None:
        """Ask a proxy for what it may not have offered. Only the number of its runs bounds this:
        what it was asked for before, for others, must not keep a demand reader waiting."""
        requests, refused = self._requests, proxy.refuses(now_s)
        if refused & among & requests.wanted():
            until_s = proxy.refused_until_s
            self._retry_s = until_s if self._retry_s is None else min(self._retry_s, until_s)
        while len(proxy.runs) <= RUNS_MAX and requests.in_flight < self._in_flight_max:
            candidates = requests.wanted() & among & ~refused
            if not candidates:
                return
            first = lowest(candidates)
            count = min(self._run_chunks, lowest(~(candidates >> first)))
            if not requests.ask(proxy, first, count, now_s, orders):
                return

    def _fill(
        self, neighbour: Neighbour, among: int, urgent: int, now_s: float, orders: list[Order]
    ) -> bool:
        """Ask a neighbour for as much as it has room for; False when the pace holds that back."""
        requests = self._requests
        while (room := self._room(neighbour, now_s)) and requests.in_flight < self._in_flight_max:
            candidates = neighbour.offered & requests.wanted() & among
            if not candidates:
                break
            first = self._first_of(candidates, urgent)
            count = min(room, self._run_chunks, lowest(~(candidates >> first)))
            if not requests.ask(neighbour, first, count, now_s, orders):
                return False
        return True

    def _first_of(self, candidates: int, urgent: int) -> int:
        if candidates & urgent:
            return lowest(candidates & urgent)
        if self._sequential:
            return lowest(candidates)
        pool = self._requests.offers.fewest(candidates)
        # Aligned, so that a random start does not cut the runs of what lies before it.
        start = self._rng.randrange(self._requests.count) // self._run_chunks * self._run_chunks
        return lowest(pool >> start << start or pool)


def _offered(able: Iterable[_Able]) -> int:
    """What the peers among them offer."""
    bits = 0
    for each in able:
        if not each.neighbour.proxy:
            bits |= each.neighbour.offered
    return bits
