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

from collections.abc import Callable
from random import Random
from typing import Final, assert_never

from p2pdist.model.bits import lowest, run_length, span, without
from p2pdist.model.deadlines import soonest
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import HostId, RequestId
from p2pdist.swarm.core.attention import Attention
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
    Rescued,
    Retracted,
    SayHungry,
    WholeWanted,
    Withdraw,
    unheard,
)
from p2pdist.swarm.core.picking import RUNS_MAX, Picker, offered_by_peers
from p2pdist.swarm.core.requests import Awaited, FetchCounters, Neighbour, Readers, Requests
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

# What one blob may have on the way, and so in buffers.
IN_FLIGHT_BYTES_MAX: Final = 32 << 20
# How far ahead of a reader order beats rarity.
URGENT_BYTES: Final = 4 << 20
REFUSED_S: Final = 0.25
"""So long a proxy that refused what a demand reader needs is not asked for it again. It does not
have it yet, or leaves it to peers that this host has to meet first: some round trips."""

_FREES_NOTHING: Final = NeighbourUp, Landed, ReaderMoved, Offered

TICK_S: Final = 0.25
READER_TICK_S: Final = 0.1
"""Somebody waits: trouble is looked for more often."""


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
        rescued: Rescued = unheard,
    ) -> None:
        self.counters = counters
        self._in_flight_max = max(8, IN_FLIGHT_BYTES_MAX // geometry.chunk_size_bytes)
        self._urgent_chunks = max(2, URGENT_BYTES // geometry.chunk_size_bytes)
        self._requests = Requests(geometry, new_request_id, verified, hashed)
        self._readers = Readers()
        self._attention = Attention()
        self._picker = Picker(self._requests, rng, sequential=sequential)
        self._rescue = Rescue(
            self._requests,
            self._readers,
            counters,
            rng,
            run_chunks=self._picker.run_chunks,
            urgent=self._urgent,
            asks_proxies=not sequential,
            rescued=rescued,
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

    def asked_of(self) -> HostId | None:
        """One of those who were asked for what has not come, if anybody was."""
        asked = (n.host for n in self._requests.neighbours.values() if n.runs)
        return next(asked, None)

    @property
    def held_until_s(self) -> float | None:
        """When the pace, which keeps it from asking, is tried again."""
        return self._requests.held_until_s

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
        return soonest(self._tick_s, self._requests.held_until_s, self._retry_s)

    def handle_deadline(self, now_s: float) -> list[Order]:
        """Look for trouble; the flows have heard what came until now."""
        orders: list[Order] = []
        self._attention.call_all()
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
        self._attention.validate(self._requests.neighbours)
        self._rescue.validate()
        whole = self._readers.ordinary or self._whole
        everything = self._requests.everything
        assert self._requests.scope == (everything if whole else self._readers.demanded())

    # --- events -------------------------------------------------------------------------------

    def _apply(self, event: Event, now_s: float, orders: list[Order]) -> None:
        requests, attention = self._requests, self._attention
        # A neighbour that comes offers nothing yet, landed chunks free nothing, where a reader is
        # changes what is asked for first, not whether, and what is offered may wait for room.
        if not isinstance(event, _FREES_NOTHING):
            self._changed = True
        match event:  # the usual ones first
            case Arrived():
                self._arrived(event, now_s, orders)
            case Offered(host, bits):
                self._offered(host, bits, now_s)
            case ReaderMoved():
                self._reader_moved(event, now_s)
            case Landed(bits):
                requests.have(bits)
                self._rescue.progressed(now_s)
            case NeighbourUp(host):
                requests.up(event)
                attention.came(host)
            case Parted(host):
                requests.part(host, now_s, orders)
                attention.left(host)
            case NeighbourDown(host):
                requests.down(host, now_s)
                attention.left(host)
            case Retracted(host):
                requests.unoffer(host, ~0)
            case HashesKnown(bits):
                requests.know(bits)
                attention.call_all()
            case Lost(bits):
                requests.lose(bits)
                attention.call_all()
            case Refused(host, request_id, gone):
                self._refused(host, request_id, gone, now_s)
                attention.call_all()
            case ReaderLeft(reader):
                self._readers.left(reader)
                self._rescope()
            case WholeWanted(whole):
                self._whole = whole
                self._rescope()
            case PaceSet() | GateShut():
                self._pace(event, now_s, orders)
            case Halted():
                requests.withdraw_all(now_s, orders)
                requests.neighbours.clear()
                requests.offers.clear()
                attention.clear()
            case _:
                assert_never(event)

    def _offered(self, host: HostId, bits: int, now_s: float) -> None:
        requests, neighbour = self._requests, self._requests.neighbours.get(host)
        requests.offered(host, bits)
        self._attention.call(host)
        if neighbour is None:
            return
        # Where as much is on the way as may be, whatever ends of that has it planned.
        full = requests.in_flight >= self._in_flight_max
        if self._readers.demand or (not full and self._picker.room(neighbour, now_s)):
            self._changed = True

    def _reader_moved(self, event: ReaderMoved, now_s: float) -> None:
        if self._requests.satisfied:  # it was not being looked at: what is past is no silence
            self._tick_s = now_s + READER_TICK_S
            self._rescue.progressed(now_s)
        elif not self._readers and self._tick_s is not None:
            self._tick_s = min(self._tick_s, now_s + READER_TICK_S)
        demands = event.until is not None
        new = self._readers.moved(event.reader, event.chunk, event.until, now_s)
        self._changed |= demands or new
        self._rescope()

    def _pace(self, event: PaceSet | GateShut, now_s: float, orders: list[Order]) -> None:
        requests = self._requests
        self._attention.call_all()
        # Without a pace the sources are to send at once what they hold back.
        if isinstance(event, GateShut) or event.pace is None:
            requests.withdraw_bulk(now_s, orders)
        if isinstance(event, PaceSet):
            requests.pace, requests.held_until_s = event.pace, None

    def _rescope(self) -> None:
        """Want all, or what demand readers need."""
        whole = self._whole or self._readers.ordinary
        scope = self._requests.everything if whole else self._readers.demanded()
        if self._requests.want(scope):
            self._changed = True
            self._attention.call_all()

    def _arrived(self, event: Arrived, now_s: float, orders: list[Order]) -> None:
        requests, bit = self._requests, 1 << event.chunk
        self._attention.call(event.host)
        if event.good:
            requests.have(bit)
            self._rescue.arrived(bit, now_s)
        asked = requests.came(event.host, event.request_id, event.chunk, now_s)
        if event.good:
            # Hedged, or moved from a neighbour that had sent it by then.
            self._rescue.withdraw_twins(bit, now_s, orders)
        elif asked:
            self.counters.bad_chunks += 1
            requests.unoffer(event.host, bit)
            self._attention.call_all()

    def _refused(self, host: HostId, request_id: RequestId, gone: bool, now_s: float) -> None:
        run = self._requests.refused(host, request_id, now_s)
        if run is None:
            return
        neighbour = self._requests.neighbours[host]
        demanded = without(run.bits & self._readers.demanded(), neighbour.offered)
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
        if not self._readers.demand:
            return 0
        awaited = self._readers.awaited(self._requests)
        return self._ahead([each for each in awaited if each.until is not None])

    def _ahead(self, awaited: list[Awaited]) -> int:
        bits = 0
        for _, chunk, _, until in awaited:
            end = self._requests.count if until is None else until
            bits |= span(chunk, min(chunk + self._urgent_chunks, end))
        return without(bits, self._requests.verified)

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
        demanded = self._demanded()
        prompted = self._plan_demanded(demanded, now_s, orders) if demanded else 0
        if requests.in_flight < self._in_flight_max:
            self._plan_some(prompted, now_s, orders)

    def _plan_some(self, prompted: int, now_s: float, orders: list[Order]) -> None:
        """Look at those of which something was heard, and at who has his turn."""
        neighbours = self._requests.neighbours
        looked = [neighbours[host] for host in self._attention.take()]
        of_use = self._picker.of_use(looked, now_s)
        if not of_use:
            return
        urgent = self._urgent()
        usable = self._picker.able(of_use, now_s)
        self._picker.sort(usable)
        # First what was promised to us and nobody else has, then what peers have, and last what a
        # proxy that has nothing else to do for us offers although a peer has it.
        proxies = [each.neighbour for each in usable if each.neighbour.proxy]
        covered = self._requests.covered_by_peers(now_s) if proxies else 0
        for proxy in proxies:
            if not self._fill(proxy, covered, urgent, now_s, orders):
                return
        for neighbour, _, prompt in usable:
            if not neighbour.proxy:
                spared, hurry = (0, urgent) if prompt else (prompted, 0)
                if not self._fill(neighbour, spared, hurry, now_s, orders):
                    return
        for proxy in proxies:
            if not proxy.runs and not self._fill(proxy, 0, urgent, now_s, orders):
                return

    def _plan_demanded(self, demanded: int, now_s: float, orders: list[Order]) -> int:
        """Ask for what demand readers need, before anything else; nobody is bulk meanwhile.

        Peers first; what none of them offers, or only a late one, of a proxy, offered or not.
        Return what peers are to bring to demand readers: nobody brings them that who is late.
        Looks at all neighbours.
        """
        able = self._picker.able(self._requests.neighbours.values(), now_s)
        prompted = offered_by_peers(each for each in able if each.prompt) & demanded
        self._picker.sort(able)
        for neighbour, _, prompt in able:
            if prompt and not neighbour.proxy:
                self._fill(neighbour, 0, demanded, now_s, orders, among=demanded)
        for neighbour in self._requests.neighbours.values():
            if neighbour.proxy and neighbour.slow_until_s <= now_s:
                self._fill_unoffered(neighbour, without(demanded, prompted), now_s, orders)
        return prompted

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
            candidates = without(requests.wanted() & among, refused)
            if not candidates:
                return
            first = lowest(candidates)
            count = run_length(candidates, first, self._picker.run_chunks)
            if not requests.ask(proxy, first, count, now_s, orders):
                return

    def _fill(
        self,
        neighbour: Neighbour,
        spared: int,
        urgent: int,
        now_s: float,
        orders: list[Order],
        among: int | None = None,
    ) -> bool:
        """Ask a neighbour for as much as it has room for, but for nothing of `spared`; False when
        nobody else need be looked at: the pace holds it back, or enough is on the way. `among`: for
        these alone."""
        requests, picker = self._requests, self._picker
        while requests.in_flight < self._in_flight_max and (room := picker.room(neighbour, now_s)):
            candidates = requests.of_use(neighbour)
            candidates = without(candidates, spared) if among is None else candidates & among
            if not candidates:
                break
            first = picker.first_of(candidates, urgent)
            count = run_length(candidates, first, min(room, picker.run_chunks))
            if not requests.ask(neighbour, first, count, now_s, orders):
                return False
            if count == room and requests.pace is None:
                break  # that was all the room
        return requests.in_flight < self._in_flight_max
