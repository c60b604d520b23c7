"""Our side as one who reads a blob: whom we ask for it, and what we ask them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from p2pdist.exchange.frames import Frame, Interest, Request, Uninterest
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.ids import Digest, HostId, RequestId
from p2pdist.swarm.core import fetch as core
from p2pdist.swarm.core.blob_bulk import BlobBulk
from p2pdist.swarm.core.event_log import BlobLog, Kind
from p2pdist.swarm.core.host_orders import Send
from p2pdist.swarm.core.host_ports import HostPorts
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.counters import source_of

# As many as a handout names.
EXCLUDED_MAX: Final = 32


class Asking:
    """Turns what a `BlobFetch` decides into what is said to the neighbours of one blob. Pure."""

    def __init__(
        self,
        host: HostPorts,
        digest: Digest,
        bulk: BlobBulk,
        log: BlobLog,
        *,
        wake: Callable[[], None],
        look_further: Callable[[Sequence[HostId], float], None],
    ) -> None:
        """`wake` has `plan` called, once for all that happens at a time; `look_further` is told
        which neighbours do not suffice."""
        self.counters = core.FetchCounters()
        self._host = host
        self._digest = digest
        self._bulk = bulk
        self._log = log
        self._wake = wake
        self._look_further = look_further
        self._neighbours: dict[HostId, LinkState] = {}  # whom we said Interest to
        self._map: ChunkMap | None = None
        self._fetch: core.BlobFetch | None = None
        self._hungry = False
        self.demand = False
        """Only parts of it are wanted here: nobody is to promise us anything."""

    @property
    def proxy_linked(self) -> bool:
        """A proxy is among the neighbours."""
        return any(link.to_proxy for link in self._neighbours.values())

    @property
    def held_at_s(self) -> float | None:
        """When the pace of bulk last kept us from asking."""
        return self._fetch.held_at_s() if self._fetch is not None else None

    @property
    def held(self) -> bool:
        """The pace of bulk keeps us from asking."""
        return self._fetch is not None and self._fetch.held_until_s is not None

    @property
    def any(self) -> bool:
        """Somebody is asked."""
        return bool(self._neighbours)

    def asks_host(self, host: HostId) -> bool:
        return host in self._neighbours

    @property
    def asked_of(self) -> HostId | None:
        """One of those who were asked for what has not come, if anybody was."""
        return self._fetch.asked_of() if self._fetch is not None else None

    @property
    def in_flight(self) -> int:
        """Chunks that were asked for."""
        return self._fetch.in_flight if self._fetch is not None else 0

    # --- neighbours -----------------------------------------------------------------------------

    def links(self) -> Iterable[LinkState]:
        """To all whom we ask."""
        return self._neighbours.values()

    def knows(self, link: LinkState) -> bool:
        """We ask the host at its other end."""
        return link.host_id in self._neighbours

    def asks(self, link: LinkState) -> bool:
        """We ask over this very link."""
        return self._neighbours.get(link.host_id) is link

    def begin(self, link: LinkState, now_s: float) -> bool:
        """Take `link` for a neighbour; False: it was one."""
        if self.asks(link):
            return False
        self._neighbours[link.host_id] = link
        self._log.note(
            Kind.NEIGHBOUR, now_s, host=link.host_id, text=source_of(link.member, self._host.place)
        )
        self.feed(self._neighbour_up(link), now_s)
        return True

    def say_interest(self, link: LinkState) -> None:
        hungry = self._hungry and link.to_proxy
        demand = self.demand and link.speaks_demand
        self._send(link, Interest(self._digest, bool(self._bulk), hungry, demand))

    def say_interest_to_all(self) -> None:
        for link in self._neighbours.values():
            self.say_interest(link)

    def ask_anew(self) -> None:
        """Have the neighbours say all they know once more."""
        for link in self._neighbours.values():
            self._send(link, Uninterest(self._digest))
            self.say_interest(link)

    def link_down(self, link: LinkState, now_s: float) -> None:
        if self.asks(link):
            del self._neighbours[link.host_id]
            self._log.note(Kind.DOWN, now_s, host=link.host_id, text=link.closed_why)
            self.feed(core.NeighbourDown(link.host_id), now_s)

    def part(self, host: HostId, now_s: float) -> None:
        """Ask a neighbour for nothing more of this blob."""
        if (link := self._neighbours.get(host)) is not None:
            self.feed(core.Parted(host), now_s)
            del self._neighbours[host]
            self._send(link, Uninterest(self._digest))

    def release(self, now_s: float) -> None:
        """Neighbours need not tell us of this blob any more."""
        for host in list(self._neighbours):
            self.part(host, now_s)

    def look_further(self, now_s: float) -> None:
        """Have others named than those whom we ask."""
        self._log.note(Kind.FURTHER, now_s)
        self._look_further([*self._neighbours][:EXCLUDED_MAX], now_s)

    def _send(self, link: LinkState, frame: Frame) -> None:
        self._host.orders.append(Send(link, frame))

    def _neighbour_up(self, link: LinkState) -> core.NeighbourUp:
        distance = self._host.place.distance(link.member.place)
        return core.NeighbourUp(link.host_id, distance, link.to_proxy, link.flows)

    # --- the fetch ------------------------------------------------------------------------------

    def start(self, chunk_map: ChunkMap, verified: int, now_s: float) -> None:
        """Ask for what lacks under `chunk_map`, of the neighbours that there are.

        What was asked for under another map is taken back: its chunks would be checked against
        this one, and an honest neighbour be punished for them.
        """
        self.stop(now_s)
        self._map = chunk_map
        self._fetch = core.BlobFetch(
            chunk_map.geometry,
            rng=self._host.rng,
            new_request_id=self._host.new_request_id,
            counters=self.counters,
            sequential=self._host.is_proxy,
            verified=verified,
            hashed=chunk_map.known.bits,
            rescued=self._rescued,
        )
        for link in self._neighbours.values():
            self.feed(self._neighbour_up(link), now_s)

    def stop(self, now_s: float) -> None:
        """Ask for nothing more, and take back what was asked for."""
        self.feed(core.Halted(), now_s)
        self._fetch = None

    def feed(self, event: core.Event, now_s: float) -> None:
        if self._fetch is not None:
            self._carry_out(self._fetch.take(event, now_s), now_s)
            if self._fetch.plan_wanted:
                self._wake()

    def plan(self, now_s: float) -> None:
        """Ask for what can be asked for now."""
        if self._fetch is not None:
            self._carry_out(self._fetch.plan(now_s), now_s)
            self._note_held(now_s)

    def next_deadline_s(self) -> float | None:
        return self._fetch.next_deadline_s() if self._fetch is not None else None

    def handle_deadline(self, now_s: float) -> None:
        """Look for trouble; the flows have heard what came until now."""
        if self._fetch is not None:
            self._carry_out(self._fetch.handle_deadline(now_s), now_s)
            self._note_held(now_s)

    def _note_held(self, now_s: float) -> None:
        if self._fetch is None or self._fetch.held_at_s() != now_s:
            return
        if (until_s := self._fetch.held_until_s) is not None:
            self._log.held(until_s - now_s, now_s)

    def _rescued(self, what: Kind, host: HostId, now_s: float) -> None:
        self._log.note(what, now_s, host=host)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        for host, link in self._neighbours.items():
            assert link.host_id == host
        if self._fetch is not None:
            self._fetch.validate()

    # --- orders ---------------------------------------------------------------------------------

    def _carry_out(self, orders: list[core.Order], now_s: float) -> None:
        for order in orders:
            match order:
                case core.Ask(host):
                    self._ask(self._neighbours[host], order)
                case core.Withdraw(host, request_id):
                    self._host.take_back(self._neighbours[host], request_id)
                case core.SayHungry(hungry):
                    self._hungry = hungry
                    if hungry:
                        self._log.note(Kind.HUNGRY, now_s)
                    for link in self._neighbours.values():
                        if link.to_proxy:
                            self.say_interest(link)
                case core.LookFurther():
                    self.look_further(now_s)

    def _ask(self, link: LinkState, ask: core.Ask) -> None:
        assert self._map is not None
        geometry, request_id = self._map.geometry, RequestId(ask.request_id)
        chunks = [(i, geometry.length(i)) for i in range(ask.first, ask.first + ask.count)]
        map_id, first, count = self._map.map_id, ask.first, ask.count
        request = Request(request_id, self._digest, map_id, first, count, ask.bulk)
        self._host.ask(link, request, chunks)
