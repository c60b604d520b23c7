"""Our side as one who reads a blob: whom we ask for it, and what we ask them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pdist.exchange.frames import Cancel, Interest, Request, Uninterest
from p2pdist.exchange.link import Link
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.control import digest_key
from p2pdist.model.handshake import DEMAND
from p2pdist.model.ids import Digest, HostId, RequestId
from p2pdist.model.members import Role
from p2pdist.swarm.bulk import BlobBulk
from p2pdist.swarm.core import fetch as core
from p2pdist.swarm.intake import Arrival
from p2pdist.swarm.ports import NodePorts

# As many as a handout names.
EXCLUDED_MAX = 32


class Asking:
    """Carries out what a `BlobFetch` orders, over the links to the neighbours of one blob."""

    def __init__(
        self,
        node: NodePorts,
        digest: Digest,
        bulk: BlobBulk,
        *,
        take: Callable[[Arrival], None],
        wake: Callable[[], None],
    ) -> None:
        """`take` has what comes checked; `wake` has `plan` called, once a turn."""
        self.counters = core.FetchCounters()
        self._node = node
        self._digest = digest
        self._bulk = bulk
        self._take = take
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._neighbours: dict[HostId, Link] = {}  # whom we said Interest to
        self._map: ChunkMap | None = None
        self._fetch: core.BlobFetch | None = None
        self._hungry = False
        self.demand = False
        """Only parts of it are wanted here: nobody is to promise us anything."""

    @property
    def proxy_linked(self) -> bool:
        """A proxy is among the neighbours."""
        return any(link.session.member.role is Role.PROXY for link in self._neighbours.values())

    @property
    def held_at_s(self) -> float | None:
        """When the pace of bulk last kept us from asking."""
        return self._fetch.held_at_s() if self._fetch is not None else None

    # --- neighbours -----------------------------------------------------------------------------

    def knows(self, link: Link) -> bool:
        """We ask the host at its other end."""
        return link.session.member.host_id in self._neighbours

    def asks(self, link: Link) -> bool:
        """We ask over this very link."""
        return self._neighbours.get(link.session.member.host_id) is link

    def begin(self, link: Link) -> bool:
        """Take `link` for a neighbour; False: it was one."""
        host = link.session.member.host_id
        if self._neighbours.get(host) is link:
            return False
        self._neighbours[host] = link
        self.feed(self._neighbour_up(link))
        return True

    def say_interest(self, link: Link) -> None:
        hungry = self._hungry and link.session.member.role is Role.PROXY
        demand = self.demand and bool(link.session.features & DEMAND)
        link.send(Interest(self._digest, bool(self._bulk), hungry, demand))

    def say_interest_to_all(self) -> None:
        for link in self._neighbours.values():
            self.say_interest(link)

    def ask_anew(self) -> None:
        """Have the neighbours say all they know once more."""
        for link in self._neighbours.values():
            link.send(Uninterest(self._digest))
            self.say_interest(link)

    def link_down(self, link: Link) -> None:
        host = link.session.member.host_id
        if self._neighbours.get(host) is link:
            del self._neighbours[host]
            self.feed(core.NeighbourDown(host))

    def part(self, host: HostId) -> None:
        """Ask a neighbour for nothing more of this blob."""
        if (link := self._neighbours.get(host)) is not None:
            self.feed(core.Parted(host))
            del self._neighbours[host]
            link.send(Uninterest(self._digest))

    def release(self) -> None:
        """Neighbours need not tell us of this blob any more."""
        for host, link in self._neighbours.items():
            if not link.closed:
                link.send(Uninterest(self._digest))
            self.feed(core.Parted(host))
        self._neighbours.clear()

    def _neighbour_up(self, link: Link) -> core.NeighbourUp:
        member = link.session.member
        distance = self._node.place.distance(member.place)
        flows = self._node.flows_of(link)
        return core.NeighbourUp(member.host_id, distance, member.role is Role.PROXY, flows)

    # --- the fetch ------------------------------------------------------------------------------

    def start(self, chunk_map: ChunkMap, verified: int) -> None:
        """Ask for what lacks under `chunk_map`, of the neighbours that there are.

        What was asked for under another map is taken back: its chunks would be checked against
        this one, and an honest neighbour be punished for them.
        """
        self.stop()
        self._map = chunk_map
        self._fetch = core.BlobFetch(
            chunk_map.geometry,
            rng=self._node.rng,
            new_request_id=self._node.requests.new_id,
            counters=self.counters,
            sequential=self._node.is_proxy,
            verified=verified,
            hashed=chunk_map.known.bits,
        )
        for link in self._neighbours.values():
            self.feed(self._neighbour_up(link))

    def stop(self) -> None:
        """Ask for nothing more, and take back what was asked for."""
        self.feed(core.Halted())
        self._fetch = None

    def feed(self, event: core.Event) -> None:
        if self._fetch is not None:
            self._carry_out(self._fetch.take(event, self._loop.time()))
            if self._fetch.plan_wanted:
                self._wake()

    def plan(self) -> None:
        """Ask for what can be asked for now."""
        if self._fetch is not None:
            self._carry_out(self._fetch.plan(self._loop.time()))

    def next_deadline_s(self) -> float | None:
        return self._fetch.next_deadline_s() if self._fetch is not None else None

    def handle_deadline(self) -> None:
        if self._fetch is None:
            return
        now_s = self._loop.time()
        for link in self._neighbours.values():
            self._node.flows_of(link).heard(link.payload_received, now_s)
        self._carry_out(self._fetch.handle_deadline(now_s))

    # --- answers --------------------------------------------------------------------------------

    def arrived(self, link: Link, request_id: RequestId, chunk: int, data: bytearray) -> None:
        """A chunk came in answer to a request, unchecked."""
        self._take(Arrival(link, request_id, chunk, data))

    def checked(self, arrival: Arrival, good: bool) -> None:
        """It was checked; `good`: it is on disk."""
        link, host = arrival.link, arrival.link.session.member.host_id
        self._node.flows_of(link).heard(link.payload_received, self._loop.time())
        self.feed(core.Arrived(host, arrival.request_id, arrival.chunk, good))

    def refused(self, link: Link, request_id: RequestId, *, gone: bool) -> None:
        self.feed(core.Refused(link.session.member.host_id, request_id, gone))

    # --- orders ---------------------------------------------------------------------------------

    def _carry_out(self, orders: list[core.Order]) -> None:
        for order in orders:
            match order:
                case core.Ask(host):
                    self._ask(self._neighbours[host], order)
                case core.Withdraw(host, request_id):
                    self._node.requests.withdraw(request_id)
                    if (link := self._neighbours.get(host)) and not link.closed:
                        link.forget(request_id)
                        link.send(Cancel(request_id))
                case core.SayHungry(hungry):
                    self._hungry = hungry
                    for link in self._neighbours.values():
                        if link.session.member.role is Role.PROXY:
                            self.say_interest(link)
                case core.LookFurther():
                    known = [*self._neighbours][:EXCLUDED_MAX]
                    key = digest_key(self._digest)
                    self._node.tracker.join(key, member=True, exclude=known)

    def _ask(self, link: Link, ask: core.Ask) -> None:
        assert self._map is not None
        geometry = self._map.geometry
        self._node.requests.expect(ask.request_id, self, link, ask.count)
        run = range(ask.first, ask.first + ask.count)
        link.expect_chunks(ask.request_id, [(i, geometry.length(i)) for i in run])
        map_id = self._map.map_id
        link.send(Request(ask.request_id, self._digest, map_id, ask.first, ask.count, ask.bulk))
