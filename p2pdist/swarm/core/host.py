"""One host as a member of swarms: its links, its blobs, and what it asked for.

    what happened ──▶ HostCore, BlobCore ──▶ orders

A shell tells it what happened and carries out its orders; daemons and simulations drive the same
class.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, assert_never

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import (
    Interest,
    Offer,
    Others,
    Refuse,
    RefuseReason,
    Request,
    Retract,
    Ticket,
    Uninterest,
    WhoElse,
    Working,
)
from p2pdist.model.ids import Digest, HostId, MapId, RequestId
from p2pdist.model.members import Place
from p2pdist.model.private_digests import Scope, is_private
from p2pdist.model.statements import HashBatch, MapHead, Seal
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.bulk import BulkTraffic
from p2pdist.swarm.core.event_log import EventLog, Kind
from p2pdist.swarm.core.host_orders import (
    AskRun,
    CloseLink,
    CountFault,
    Order,
    Provide,
    Send,
    TakeBack,
)
from p2pdist.swarm.core.introducing import introduce
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.request_table import RequestTable
from p2pdist.swarm.core.tickets import OwnTickets
from p2pdist.swarm.core.trust import STRIKES_MAX, TrustBook
from p2pdist.swarm.core.uplink import Uplink
from p2pdist.swarm.core.wishes import Wishes

WISHES_MAX: Final = 65536
"""Digests that others want and that are not in motion here."""

SwarmFrame = Interest | Uninterest | Offer | Retract | Working | Refuse | WhoElse | Others
"""What hosts say to each other about blobs, beside statements, requests and their answers."""


class HostCore:
    """Pure: time enters as monotonic `now_s`, chance through `rng`. Implements `HostPorts`."""

    def __init__(
        self,
        place: Place,
        *,
        is_proxy: bool,
        rng: Random,
        proxy_of_ours: Callable[[HostId], bool],
        revoked: Callable[[MapId], bool],
        servable: Callable[[Digest], bool],
    ) -> None:
        """`proxy_of_ours`: a host is one of the proxies that this host was told to use; `revoked`:
        a map was taken back; `servable`: others may have a blob from here."""
        self.place = place
        self.is_proxy = is_proxy
        self.rng = rng
        self.uplink = Uplink()
        self.bulk = BulkTraffic()
        self.events = EventLog()
        self.orders: deque[Order] = deque()
        """To be carried out in this order; the shell takes them out."""
        self.tracker_up = False
        self.revocations = 0
        self.requests = RequestTable()
        self.trust = TrustBook()
        self.tickets = OwnTickets()
        self.unlet_total = 0
        """Wishes for private blobs without a ticket that is good."""
        self.links: dict[HostId, LinkState] = {}
        """The live link to each host."""
        self.blobs: dict[Digest, BlobCore] = {}
        """In motion: somebody reads, fetches or asks for them."""
        self.revoked = revoked
        self._proxy_of_ours = proxy_of_ours
        self._servable = servable
        self._wishes = Wishes(WISHES_MAX)
        self._maps: dict[MapId, Digest] = {}
        """Those of blobs in motion, and the heads that were heard of them."""
        self._woken: dict[Digest, None] = {}
        self._due: list[tuple[float, int, BlobCore]] = []
        """A heap of when to look at which blob; what is not the blob's `due_s` any more is void."""
        self._entries = itertools.count()

    # --- blobs ----------------------------------------------------------------------------------

    def take_up(self, digest: Digest, size_bytes: int, now_s: float) -> BlobCore:
        """Begin the motion of a blob; one that was in motion must have been let go."""
        assert digest not in self.blobs
        blob = self.blobs[digest] = self._new_blob(digest, size_bytes, now_s)
        return blob

    def _new_blob(self, digest: Digest, size_bytes: int, now_s: float) -> BlobCore:
        return BlobCore(self, digest, size_bytes, now_s)

    def let_go(self, blob: BlobCore, now_s: float) -> None:
        """End its motion; what came of it stays in the store."""
        blob.end(now_s)
        if self.blobs.get(blob.digest) is blob:
            del self.blobs[blob.digest]
            for map_id in [m for m, digest in self._maps.items() if digest == blob.digest]:
                del self._maps[map_id]

    def hear_wishes(self, blob: BlobCore, now_s: float) -> None:
        """It was taken up, with all that lies here of it: those who wish for it hear of it."""
        for host, interest in self._wishes.take(blob.digest).items():
            if (link := self.links.get(host)) is not None:
                blob.hear_interest(link, interest, now_s)

    def remember_wishes(self, blob: BlobCore) -> None:
        """Its motion is to end, and whoever takes it up anew is to find who wanted it."""
        for host, interest in blob.wishes().items():
            self._wishes.add(host, interest)

    def wished(self, digest: Digest) -> bool:
        """Somebody asked for it when it was not here, and still would have it."""
        return digest in self._wishes

    # --- frames ---------------------------------------------------------------------------------

    def hear(self, link: LinkState, frame: SwarmFrame, now_s: float) -> None:
        """`link` said this; a wrong frame is its sender's fault."""
        try:
            self._hear(link, frame, now_s)
        except PeerFault as fault:
            self.punish(link, fault, now_s)

    def _hear(self, link: LinkState, frame: SwarmFrame, now_s: float) -> None:
        match frame:
            case Interest():
                self._hear_interest(link, frame, now_s)
            case Uninterest(digest):
                if (blob := self.blobs.get(digest)) is not None:
                    blob.neighbours.lose_interest(link, now_s)
                self._wishes.withdraw(link.host_id, digest)
            case Offer(digest) | Retract(digest):
                if (blob := self.blobs.get(digest)) is not None:
                    blob.hear(link, frame, now_s)
            case Working(digest):
                if (blob := self.blobs.get(digest)) is not None and self._believes(link):
                    blob.hear_working(now_s)
            case Refuse(request_id, reason):
                digest_or_none = self.requests.refused(link, RequestId(request_id))
                if digest_or_none is not None:
                    gone = reason != RefuseReason.BUSY
                    blob = self.blobs[digest_or_none]
                    blob.refused(link, RequestId(request_id), now_s, gone=gone)
            case WhoElse(digest):
                told = self._servable(digest) and self._lets(link, digest, now_s)
                blob = self.blobs.get(digest) if told else None
                self.orders.append(Send(link, introduce(blob, link, digest, now_s)))
            case Others(digest, members):
                if (blob := self.blobs.get(digest)) is not None:
                    blob.neighbours.hear_others(link, members, now_s)
            case _:
                assert_never(frame)

    def _hear_interest(self, link: LinkState, interest: Interest, now_s: float) -> None:
        digest = interest.digest
        if not self._lets(link, digest, now_s):
            self.orders.append(Send(link, Retract(digest)))
            return
        blob = self.blobs.get(digest)
        servable = self._servable(digest)  # or may be, once a repository is known to have it
        if servable and blob is not None and blob.failure is None and blob.tells(link):
            blob.hear_interest(link, interest, now_s)
            if not self.is_proxy or blob.complete:
                return
        else:
            self._wishes.add(link.host_id, interest)
        if servable:
            self.orders.append(Provide(digest, interest.bulk))

    # --- tickets --------------------------------------------------------------------------------

    def show_ticket(self, link: LinkState, digest: Digest, now_s: float) -> bool:
        if not is_private(digest):
            return True
        record = self.tickets.to_show(digest, now_s)
        if link.tickets is None or record is None:
            return False
        if link.tickets.to_show(digest, record):
            self.orders.append(Send(link, Ticket(record)))
        return True

    def hear_ticket(self, link: LinkState, scope: Scope, until_s: float) -> None:
        """The other end of `link` may have blobs of a repository, says a proxy that we believe."""
        assert link.tickets is not None
        link.tickets.heard(scope, until_s)

    def _lets(self, link: LinkState, digest: Digest, now_s: float) -> bool:
        if not is_private(digest):
            return True
        granted = link.tickets is not None and link.tickets.grant(digest, now_s)
        self.unlet_total += not granted
        return granted

    def _believes(self, link: LinkState) -> bool:
        """Who may have us wait on its word: a proxy of our settings; to a proxy, any proxy."""
        return link.to_proxy if self.is_proxy else self.configured_proxy(link)

    # --- what is signed -------------------------------------------------------------------------

    def hear_statement(
        self, link: LinkState, statement: MapHead | HashBatch | Seal, record: bytes, now_s: float
    ) -> None:
        """`link` passed on what a proxy signed, as `record`."""
        if isinstance(statement, MapHead):
            blob = self.blobs.get(statement.digest)
            if blob is not None:  # its batches follow at once
                self._maps.setdefault(statement.map_id, statement.digest)
        else:
            blob = self.blob_of_map(statement.map_id)
        if blob is not None:
            blob.hear(link, statement, now_s, record)

    def blob_of_map(self, map_id: MapId) -> BlobCore | None:
        """The blob in motion that has this map, or may have it."""
        digest = self._maps.get(map_id)
        return self.blobs.get(digest) if digest is not None else None

    def route_map(self, map_id: MapId, digest: Digest) -> None:
        self._maps[map_id] = digest

    # --- links ----------------------------------------------------------------------------------

    def link_up(self, link: LinkState) -> None:
        """From now on this is the link to its host."""
        self.links[link.host_id] = link

    def link_down(self, link: LinkState, now_s: float, *, gone: bool, why: str = "") -> None:
        """Nothing more comes over `link`. `gone`: for all we know its host is, too; else the link
        alone ended, of no use. `why`: for who reads of it."""
        link.closed, link.closed_why = True, why
        if self.links.get(link.host_id) is link:
            del self.links[link.host_id]
            self._wishes.forget(link.host_id)
        self.requests.link_down(link)
        for blob in self.blobs.values():
            blob.link_down(link, now_s, gone=gone)

    def punish(self, link: LinkState, fault: PeerFault, now_s: float) -> None:
        """Count a wrong word, or wrong bytes, against the host at the other end, whose link may
        have closed since; one with too many is banned and its link closed."""
        host = link.host_id
        if self.trust.banned(host, now_s):
            return  # on its way already when that happened
        for blob in self.blobs.values():
            if blob.asks_host(host):
                blob.log.note(Kind.PUNISHED, now_s, host=host, text=fault.reason)
        self.orders.append(CountFault(link, fault))
        weight = 1 if fault.reason == "hash" else STRIKES_MAX
        # Bits that flip on the way are no fault of a proxy, and there may be no other one: its link
        # is made anew, after a while.
        ban = not self._proxy_of_ours(host)
        if self.trust.strike(host, now_s, weight, ban=ban):
            self.orders.append(CloseLink(link, f"banned: {fault}" if ban else str(fault)))

    def configured_proxy(self, link: LinkState) -> bool:
        return self._proxy_of_ours(link.host_id)

    # --- the tracker ----------------------------------------------------------------------------

    def tracker_moved(self, now_s: float, *, up: bool) -> None:
        """A tracker can be asked for neighbours from now on, or cannot any more."""
        self.tracker_up = up
        for blob in self.blobs.values():
            blob.neighbours.tracker_moved(now_s)
            if blob.member:
                self.wake(blob.digest)  # for the time of an inquiry

    def tracker_named(self, digest: Digest) -> None:
        """It answered, with whomever it knew."""
        if (blob := self.blobs.get(digest)) is not None:
            blob.neighbours.named()

    # --- requests -------------------------------------------------------------------------------

    def new_request_id(self) -> RequestId:
        return self.requests.new_id()

    def ask(self, link: LinkState, request: Request, chunks: Sequence[tuple[int, int]]) -> None:
        self.requests.expect(request.request_id, request.digest, link, request.count)
        self.orders.append(AskRun(link, request, chunks))

    def take_back(self, link: LinkState, request_id: RequestId) -> None:
        self.requests.withdraw(request_id)
        self.orders.append(TakeBack(link, request_id))

    # --- turns ----------------------------------------------------------------------------------

    def wake(self, digest: Digest) -> None:
        self._woken[digest] = None

    @property
    def woken(self) -> bool:
        """There is something to ask or to offer: `act` is to be called."""
        return bool(self._woken)

    def act(self, now_s: float) -> None:
        """Ask and offer, once for all that happened until now."""
        woken, self._woken = self._woken, {}
        for digest in woken:
            if (blob := self.blobs.get(digest)) is not None:
                blob.act(now_s)
                self._look_at_in_time(blob)

    def next_deadline_s(self) -> float | None:
        """When `handle_deadline` is to be called; None: not before something else happens."""
        while self._due:
            due_s, _, blob = self._due[0]
            if due_s == blob.due_s and self.blobs.get(blob.digest) is blob:
                return due_s
            heapq.heappop(self._due)
        return None

    def handle_deadline(self, now_s: float) -> None:
        """Look at the blobs that are due. Costs O(log blobs) for each of them."""
        while (due_s := self.next_deadline_s()) is not None and due_s <= now_s:
            _, _, blob = heapq.heappop(self._due)
            blob.due_s = math.inf
            blob.handle_deadline(now_s)
            self._look_at_in_time(blob, after_s=now_s)

    def _look_at_in_time(self, blob: BlobCore, after_s: float = -math.inf) -> None:
        """`after_s`: it was just looked at, and is so again in the next turn at the earliest."""
        due_s = blob.next_deadline_s()
        if due_s is not None and due_s < blob.due_s:
            blob.due_s = due_s if due_s > after_s else math.nextafter(after_s, math.inf)
            heapq.heappush(self._due, (blob.due_s, next(self._entries), blob))

    # --- whoever waits --------------------------------------------------------------------------

    def wait_began(self, now_s: float) -> None:
        """A reader of this host waits for bytes: bulk makes room."""
        if self.bulk.gate.wait_began(now_s):
            self._make_room(now_s)

    def wait_ended(self, now_s: float) -> None:
        self.bulk.gate.wait_ended(now_s)

    def urgent_bytes(self, now_s: float) -> None:
        """Bytes came in from outside that somebody in this datacenter waits for."""
        if self.bulk.gate.urgent_bytes(now_s):
            self._make_room(now_s)

    def _make_room(self, now_s: float) -> None:
        for blob in self.blobs.values():
            blob.make_room(now_s)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        self.requests.validate()
        for host, link in self.links.items():
            assert link.host_id == host
            assert not link.closed
        assert set(self._maps.values()) <= self.blobs.keys()
        for digest, blob in self.blobs.items():
            assert blob.digest == digest
            blob.validate()
