"""Those who asked this node for one blob: what they are told of it, and when."""

from __future__ import annotations

from typing import Final

from p2pdist.exchange.frames import Frame, Interest, MapRecord, Offer, Retract, Working
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.deadlines import soonest
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Member, Role
from p2pdist.swarm.core.acquaintances import Acquaintances
from p2pdist.swarm.core.host_orders import Send, SendAll
from p2pdist.swarm.core.host_ports import HostPorts
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.offers import OfferPlan
from p2pdist.swarm.core.relays import RelayPlan, RelayTo

OFFER_RANGES_MAX: Final = 512
# Half of the silence after which a reader looks for another source.
WORKING_S: Final = 1.0


class Audience:
    """Turns an `OfferPlan` into what is said to those who said Interest, and to those that we said
    it to. Pure."""

    def __init__(
        self,
        host: HostPorts,
        digest: Digest,
        chunk_size_bytes: int,
    ) -> None:
        self._host = host
        self._digest = digest
        self._links: dict[HostId, LinkState] = {}
        self._sources: dict[HostId, LinkState] = {}
        self._waiting: set[HostId] = set()  # those that want it for more than bulk
        self._demanding: set[HostId] = set()  # those that need parts of it
        self._map: ChunkMap | None = None
        self._plan = OfferPlan(chunk_size_bytes, host.uplink, seed=host.is_proxy)
        self._said_working_s = -WORKING_S
        self._relays = RelayPlan(authority=host.is_proxy, holds_any=self._plan.holds_any)
        self._known = Acquaintances(host.rng)

    def __bool__(self) -> bool:
        return bool(self._links)

    @property
    def urgent(self) -> bool:
        """Somebody among them waits for it."""
        return bool(self._waiting)

    def links(self) -> list[LinkState]:
        """To all who listen."""
        return list(self._links.values())

    def link_of(self, host: HostId) -> LinkState | None:
        """To one who listens."""
        return self._links.get(host)

    def join(self, link: LinkState, interest: Interest, now_s: float) -> None:
        """Tell a new listener what we know and hold; who listens already is told nothing twice."""
        host = link.host_id
        if interest.bulk:
            self._waiting.discard(host)
        else:
            self._waiting.add(host)
        if interest.demand:
            self._demanding.add(host)
        else:
            self._demanding.discard(host)
        if self._host.is_proxy:
            self._known.met(link.member)
        if self._links.get(host) is link:
            self._plan.reader_demands(host, interest.demand, now_s)
            self._plan.reader_hungry(host, interest.hungry, now_s)
            return
        self._links[host] = link
        self._relays.joined(host)
        for record in self._map.records if self._map is not None else ():
            self._send(link, MapRecord(record))
        shares = self._shares(link)
        self._plan.reader_joined(host, shares=shares, now_s=now_s, demand=interest.demand)
        self._plan.reader_hungry(host, interest.hungry, now_s)

    def wishes(self) -> dict[HostId, Interest]:
        """What the listeners would have to say again to somebody who knows none of them."""
        return {
            host: Interest(
                self._digest, bulk=host not in self._waiting, demand=host in self._demanding
            )
            for host in self._links
        }

    def leave(self, link: LinkState, now_s: float) -> None:
        """It reads no more, and keeps what it has."""
        host = link.host_id
        if self._links.get(host) is link:
            del self._links[host]
            self._waiting.discard(host)
            self._demanding.discard(host)
            self._relays.left(host)
            if not self._plan.holds_any(host, -1):
                self._known.gone(host)
            self._plan.reader_left(host, now_s)

    def others(self, link: LinkState) -> tuple[Member, ...]:
        """Whom to name to who reads it at the other end of `link`."""
        return self._known.others(link.member)

    def read_from(self, link: LinkState) -> None:
        """A seed near by is told what we hold: it must know what was passed on."""
        if not self._host.is_proxy and link.member.place.dc == self._host.place.dc:
            host = link.host_id
            self._sources[host] = link
            self._plan.source_joined(host)

    def read_no_more(self, now_s: float) -> None:
        """We have the whole blob; our sources hear the last of it."""
        self.offer(now_s, flush=True)
        self._sources.clear()
        self._plan.sources_left()

    def link_down(self, link: LinkState, now_s: float, *, gone: bool) -> bool:
        """Return whether that changes anything. Not `gone`: what its host has is still there."""
        host = link.host_id
        if gone:
            self._known.gone(host)
        was_reader = self._links.get(host) is link
        was_source = self._sources.get(host) is link
        if was_reader:
            del self._links[host]
            self._waiting.discard(host)
            self._demanding.discard(host)
            self._relays.left(host)
        if was_source:
            del self._sources[host]
        known = self._plan.knows(host)
        if not known or not (was_reader or was_source or host not in self._links):
            return False
        if gone:
            self._plan.host_gone(host, now_s)
        else:
            self._plan.reader_left(host, now_s)
        return True

    def follow(self, chunk_map: ChunkMap, now_s: float) -> None:
        """Speak of `chunk_map` from now on; what was offered under another one is void."""
        self._plan.cut_into(chunk_map.geometry.chunk_size_bytes, now_s)
        if self._map is not None and self._map.map_id != chunk_map.map_id:
            self._plan.dropped(now_s)
            self._relays.dropped()
        self._map = chunk_map
        for record in chunk_map.records:
            self.tell(record)

    def end(self) -> None:
        """Nothing is said any more."""
        self._plan.close()

    def tell(self, record: bytes) -> None:
        self._send_all(MapRecord(record))

    def hears_the_map(self, link: LinkState) -> None:
        """It told us of the map itself."""
        self._relays.heard_from(link.host_id)

    def relay(self, record: bytes, bits: int, now_s: float) -> None:
        """Pass the hashes of `bits` on to whom the plan says."""
        self._send_relays(self._relays.relay(record, bits, now_s))

    def _send_relays(self, orders: list[RelayTo]) -> None:
        links: dict[bytes, list[LinkState]] = {}
        for host, record in orders:
            links.setdefault(record, []).append(self._links[host])
        for record, to in links.items():
            self._host.orders.append(SendAll(to, MapRecord(record)))

    def retract(self) -> None:
        self._send_all(Retract(self._digest))

    def hold(self, bits: int, now_s: float, *, whole: bool) -> None:
        """We hold these chunks, verified and vouched for; `whole`: nothing of the blob lacks."""
        self._plan.landed(bits, now_s, whole=whole)

    def lost(self, bits: int, now_s: float) -> None:
        """These chunks are not here any more."""
        self._plan.lost(bits, now_s)

    def host_holds(self, link: LinkState, bits: int, now_s: float) -> bool:
        """It says so; return whether there may be something to offer now."""
        return self._plan.host_holds(link.host_id, bits, shares=self._shares(link), now_s=now_s)

    def host_retracted(self, host: HostId, now_s: float) -> None:
        self._known.gone(host)
        self._plan.host_retracted(host, now_s)

    def refers(self, host: HostId, bits: int, now_s: float) -> bool:
        """It is to get elsewhere what it asks for."""
        return self._plan.refers(host, bits, now_s)

    def asked(self, host: HostId, bits: int, now_s: float) -> None:
        """A run goes out."""
        self._plan.asked(host, bits, now_s)

    def sent(self, host: HostId, bits: int, unsent: int, now_s: float) -> None:
        """It is over: `bits` went out, `unsent` did not."""
        self._plan.sent(host, bits, unsent, now_s)

    def working(self, now_s: float) -> None:
        """Bytes come in from outside: say so, once a second."""
        if now_s - self._said_working_s >= WORKING_S:
            self._said_working_s = now_s
            self._send_all(Working(self._digest))

    def pass_on_working(self) -> None:
        """Another datacenter's proxy brings it in: the peers here learn it from their own proxy."""
        for link in self._links.values():
            if self._host.is_proxy and self._shares(link):
                self._send(link, Working(self._digest))

    def next_deadline_s(self) -> float | None:
        return soonest(self._plan.next_deadline_s(), self._relays.next_deadline_s())

    def offer(self, now_s: float, *, flush: bool = False) -> None:
        """Say what is due; `flush`: also offers that could wait for more."""
        if not flush and ((due_s := self.next_deadline_s()) is None or due_s > now_s):
            return
        self._send_relays(self._relays.handle_deadline(now_s))
        if self._map is None:
            return
        count = self._map.geometry.chunk_count
        for order in self._plan.take_orders(now_s, chunks=count, flush=flush):
            link = self._links.get(order.host) or self._sources.get(order.host)
            if link is None or link.closed:
                continue
            ranges = tuple(ChunkSet(count, order.bits).ranges())
            for start in range(0, len(ranges), OFFER_RANGES_MAX):
                part = ranges[start : start + OFFER_RANGES_MAX]
                self._send(link, Offer(self._digest, self._map.map_id, part))

    def _shares(self, link: LinkState) -> bool:
        """A peer of this datacenter passes chunks on to the others here; a proxy elsewhere not."""
        member = link.member
        return member.role is Role.PEER and member.place.dc == self._host.place.dc

    def _send(self, link: LinkState, frame: Frame) -> None:
        self._host.orders.append(Send(link, frame))

    def _send_all(self, frame: Frame) -> None:
        if self._links:
            self._host.orders.append(SendAll(list(self._links.values()), frame))

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert self._waiting <= self._links.keys()
        assert self._demanding <= self._links.keys()
        for links in (self._links, self._sources):
            for host, link in links.items():
                assert link.host_id == host
        self._plan.validate()
        self._known.validate()
