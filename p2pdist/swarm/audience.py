"""Those who asked this node for one blob: what they are told of it, and when."""

from __future__ import annotations

import asyncio
from typing import Final

from p2pdist.exchange.codec import encode
from p2pdist.exchange.frames import Frame, Interest, MapRecord, Offer, Retract, Working
from p2pdist.exchange.link import Link
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Place, Role
from p2pdist.swarm.core.offers import OfferPlan
from p2pdist.swarm.core.relays import RelayPlan, RelayTo
from p2pdist.swarm.core.uplink import Uplink

OFFER_RANGES_MAX: Final = 512
# Half of the silence after which a reader looks for another source.
WORKING_S: Final = 1.0


class Audience:
    """Carries out an `OfferPlan` over the links that said Interest, and those we said it to."""

    def __init__(
        self,
        digest: Digest,
        place: Place,
        chunk_size_bytes: int,
        uplink: Uplink,
        *,
        is_proxy: bool,
    ) -> None:
        self._digest = digest
        self._place = place
        self._is_proxy = is_proxy
        self._links: dict[HostId, Link] = {}
        self._sources: dict[HostId, Link] = {}
        self._waiting: set[HostId] = set()  # those that want it for more than bulk
        self._demanding: set[HostId] = set()  # those that need parts of it
        self._map: ChunkMap | None = None
        self._plan = OfferPlan(chunk_size_bytes, uplink, seed=is_proxy)
        self._loop = asyncio.get_running_loop()
        self._said_working_s = -WORKING_S
        self._relays = RelayPlan(authority=is_proxy, holds_any=self._plan.holds_any)

    def __bool__(self) -> bool:
        return bool(self._links)

    @property
    def urgent(self) -> bool:
        """Somebody among them waits for it."""
        return bool(self._waiting)

    def links(self) -> list[Link]:
        """To all who listen."""
        return list(self._links.values())

    def link_of(self, host: HostId) -> Link | None:
        """To one who listens."""
        return self._links.get(host)

    def join(self, link: Link, interest: Interest) -> None:
        """Tell a new listener what we know and hold; who listens already is told nothing twice."""
        host = link.session.member.host_id
        if interest.bulk:
            self._waiting.discard(host)
        else:
            self._waiting.add(host)
        if interest.demand:
            self._demanding.add(host)
        else:
            self._demanding.discard(host)
        if self._links.get(host) is link:
            self._plan.reader_demands(host, interest.demand, self._loop.time())
            self._plan.reader_hungry(host, interest.hungry, self._loop.time())
            return
        self._links[host] = link
        self._relays.joined(host)
        for record in self._map.records if self._map is not None else ():
            link.send(MapRecord(record))
        shares, now_s = self._shares(link), self._loop.time()
        self._plan.reader_joined(host, shares=shares, now_s=now_s, demand=interest.demand)
        self._plan.reader_hungry(host, interest.hungry, self._loop.time())

    def wishes(self) -> dict[HostId, Interest]:
        """What the listeners would have to say again to somebody who knows none of them."""
        return {
            host: Interest(
                self._digest, bulk=host not in self._waiting, demand=host in self._demanding
            )
            for host in self._links
        }

    def leave(self, link: Link) -> None:
        """It reads no more, and keeps what it has."""
        host = link.session.member.host_id
        if self._links.get(host) is link:
            del self._links[host]
            self._waiting.discard(host)
            self._demanding.discard(host)
            self._relays.left(host)
            self._plan.reader_left(host, self._loop.time())

    def read_from(self, link: Link) -> None:
        """A seed near by is told what we hold: it must know what was passed on."""
        if not self._is_proxy and link.session.member.place.dc == self._place.dc:
            host = link.session.member.host_id
            self._sources[host] = link
            self._plan.source_joined(host)

    def read_no_more(self) -> None:
        """We have the whole blob; our sources hear the last of it."""
        self.offer(flush=True)
        self._sources.clear()
        self._plan.sources_left()

    def link_down(self, link: Link, *, gone: bool) -> bool:
        """Return whether that changes anything. Not `gone`: what its host has is still there."""
        host = link.session.member.host_id
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
            self._plan.host_gone(host, self._loop.time())
        else:
            self._plan.reader_left(host, self._loop.time())
        return True

    def follow(self, chunk_map: ChunkMap) -> None:
        """Speak of `chunk_map` from now on; what was offered under another one is void."""
        self._plan.cut_into(chunk_map.geometry.chunk_size_bytes, self._loop.time())
        if self._map is not None and self._map.map_id != chunk_map.map_id:
            self._plan.dropped(self._loop.time())
            self._relays.dropped()
        self._map = chunk_map
        for record in chunk_map.records:
            self.tell(record)

    def end(self) -> None:
        """Nothing is said any more."""
        self._plan.close()

    def tell(self, record: bytes) -> None:
        self._send_all(MapRecord(record))

    def hears_the_map(self, link: Link) -> None:
        """It told us of the map itself."""
        self._relays.heard_from(link.session.member.host_id)

    def relay(self, record: bytes, bits: int) -> None:
        """Pass the hashes of `bits` on to whom the plan says."""
        self._send_relays(self._relays.relay(record, bits, self._loop.time()))

    def _send_relays(self, orders: list[RelayTo]) -> None:
        encoded: dict[bytes, bytes] = {}
        for host, record in orders:
            if (data := encoded.get(record)) is None:
                data = encoded[record] = encode(MapRecord(record))
            self._links[host].send_encoded(data)

    def retract(self) -> None:
        self._send_all(Retract(self._digest))

    def hold(self, bits: int, *, whole: bool) -> None:
        """We hold these chunks, verified and vouched for; `whole`: nothing of the blob lacks."""
        self._plan.landed(bits, self._loop.time(), whole=whole)

    def host_holds(self, link: Link, bits: int) -> None:
        host, now_s = link.session.member.host_id, self._loop.time()
        self._plan.host_holds(host, bits, shares=self._shares(link), now_s=now_s)

    def host_retracted(self, host: HostId) -> None:
        self._plan.host_retracted(host, self._loop.time())

    def refers(self, host: HostId, bits: int) -> bool:
        """It is to get elsewhere what it asks for."""
        return self._plan.refers(host, bits, self._loop.time())

    def asked(self, host: HostId, bits: int) -> None:
        """A run goes out."""
        self._plan.asked(host, bits, self._loop.time())

    def sent(self, host: HostId, bits: int, unsent: int) -> None:
        """It is over: `bits` went out, `unsent` did not."""
        self._plan.sent(host, bits, unsent, self._loop.time())

    def working(self) -> None:
        """Bytes come in from outside: say so, once a second."""
        now_s = self._loop.time()
        if now_s - self._said_working_s >= WORKING_S:
            self._said_working_s = now_s
            self._send_all(Working(self._digest))

    def pass_on_working(self) -> None:
        """Another datacenter's proxy brings it in: the peers here learn it from their own proxy."""
        for link in self._links.values():
            if self._is_proxy and self._shares(link):
                link.send(Working(self._digest))

    def next_deadline_s(self) -> float | None:
        offers_s = self._plan.next_deadline_s()
        relays_s = self._relays.next_deadline_s()
        return min((d for d in (offers_s, relays_s) if d is not None), default=None)

    def offer(self, *, flush: bool = False) -> None:
        """Say what is due; `flush`: also offers that could wait for more."""
        self._send_relays(self._relays.handle_deadline(self._loop.time()))
        if self._map is None:
            return
        count = self._map.geometry.chunk_count
        for order in self._plan.take_orders(self._loop.time(), flush=flush):
            link = self._links.get(order.host) or self._sources.get(order.host)
            if link is None or link.closed:
                continue
            ranges = tuple(ChunkSet(count, order.bits).ranges())
            for start in range(0, len(ranges), OFFER_RANGES_MAX):
                part = ranges[start : start + OFFER_RANGES_MAX]
                link.send(Offer(self._digest, self._map.map_id, part))

    def _shares(self, link: Link) -> bool:
        """A peer of this datacenter passes chunks on to the others here; a proxy elsewhere not."""
        member = link.session.member
        return member.role is Role.PEER and member.place.dc == self._place.dc

    def _send_all(self, frame: Frame) -> None:
        data = encode(frame)
        for link in self._links.values():
            link.send_encoded(data)
