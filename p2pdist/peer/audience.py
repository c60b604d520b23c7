"""Those who asked this node for one blob: what they are told of it, and when."""

from __future__ import annotations

import asyncio
from typing import Final

from p2pdist.exchange.frames import Frame, MapRecord, Offer, Retract, Working
from p2pdist.exchange.link import Link
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Place, Role
from p2pdist.peer.core.offers import OfferPlan, OfferTo

OFFER_RANGES_MAX: Final = 512
# Half of the silence after which a reader looks for another source.
WORKING_S: Final = 1.0


class Audience:
    """Carries out an `OfferPlan` over the links that said Interest."""

    def __init__(self, digest: Digest, place: Place, *, is_proxy: bool) -> None:
        self._digest = digest
        self._place = place
        self._is_proxy = is_proxy
        self._links: dict[HostId, Link] = {}
        self._waiting: set[HostId] = set()  # those that want it for more than bulk
        self._map: ChunkMap | None = None
        self._plan = OfferPlan(spread=is_proxy)
        self._loop = asyncio.get_running_loop()
        self._said_working_s = -WORKING_S

    def __bool__(self) -> bool:
        return bool(self._links)

    @property
    def urgent(self) -> bool:
        """Somebody among them waits for it."""
        return bool(self._waiting)

    def join(self, link: Link, *, bulk: bool) -> None:
        """Tell a new listener what we know and hold; who listens already is told nothing twice."""
        host = link.session.member.host_id
        if bulk:
            self._waiting.discard(host)
        else:
            self._waiting.add(host)
        if self._links.get(host) is link:
            return
        self._links[host] = link
        for record in self._map.records if self._map is not None else ():
            link.send(MapRecord(record))
        now_s = self._loop.time()
        self._offer(self._plan.reader_joined(host, shares=self._shares(link), now_s=now_s))

    def leave(self, link: Link) -> None:
        host = link.session.member.host_id
        if self._links.get(host) is link:
            del self._links[host]
            self._waiting.discard(host)
            self._offer(self._plan.reader_left(host, self._loop.time()))

    def follow(self, chunk_map: ChunkMap) -> None:
        """Speak of `chunk_map` from now on; what was offered under another one is void."""
        if self._map is not None and self._map.map_id != chunk_map.map_id:
            self._plan.dropped()
        self._map = chunk_map
        for record in chunk_map.records:
            self.tell(record)

    def tell(self, record: bytes) -> None:
        self._send_all(MapRecord(record))

    def retract(self) -> None:
        self._send_all(Retract(self._digest))

    def hold(self, bits: int) -> None:
        """We hold these chunks, verified and vouched for: offer them as the plan says."""
        self._offer(self._plan.landed(bits, self._loop.time()))

    def peer_holds(self, host: HostId, bits: int) -> None:
        self._plan.reader_holds(host, bits)

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
        return self._plan.next_deadline_s()

    def handle_deadline(self, now_s: float) -> None:
        self._offer(self._plan.handle_deadline(now_s))

    def _shares(self, link: Link) -> bool:
        """A peer of this datacenter passes chunks on to the others here; a proxy elsewhere not."""
        member = link.session.member
        return member.role is Role.PEER and member.place.dc == self._place.dc

    def _offer(self, orders: list[OfferTo]) -> None:
        if self._map is None:
            return
        for order in orders:
            link = self._links.get(order.host)
            if link is None:
                continue
            ranges = tuple(ChunkSet(self._map.geometry.chunk_count, order.bits).ranges())
            for start in range(0, len(ranges), OFFER_RANGES_MAX):
                part = ranges[start : start + OFFER_RANGES_MAX]
                link.send(Offer(self._digest, self._map.map_id, part))

    def _send_all(self, frame: Frame) -> None:
        for link in self._links.values():
            link.send(frame)
