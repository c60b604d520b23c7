"""A member of the swarms: the part that peers and proxies share.

The node owns the store, the links and the blobs in motion, and carries frames between them. A proxy
gives it an `Authority`, which finds what nobody in the swarm has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from random import Random
from typing import Final

from cachetools import LRUCache

from p2pdist.errors import PeerFault, StoreError, UnknownKey
from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import IDLE, Link
from p2pdist.exchange.transport import ExchangeTransport
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.control import Delta, Handout, digest_key, tag_swarm_key
from p2pdist.model.health import Reason
from p2pdist.model.ids import Digest, MapId, RequestId
from p2pdist.model.members import Member, Place, Role
from p2pdist.model.statements import (
    HashBatch,
    Keyring,
    MapHead,
    Revocation,
    Seal,
    Statement,
    TagStatement,
)
from p2pdist.peer.active import ActiveBlob
from p2pdist.peer.bulk import BulkTraffic
from p2pdist.peer.core.fetch import FetchCounters
from p2pdist.peer.core.flow import Flows
from p2pdist.peer.core.refusals import RefusalBook
from p2pdist.peer.core.seeding import Uplink
from p2pdist.peer.core.trust import STRIKES_MAX, TrustBook
from p2pdist.peer.core.wishes import Wishes
from p2pdist.peer.counters import PROXY as PROXY_SOURCE
from p2pdist.peer.counters import SAID_OTHERWISE, NodeCounters, fallback_reason
from p2pdist.peer.finding import SmallFinder
from p2pdist.peer.neighbourhood import Neighbourhood
from p2pdist.peer.neighbours import BlobNeighbours
from p2pdist.peer.outstanding import RequestTable
from p2pdist.peer.ports import MapFollower
from p2pdist.peer.proxy_links import ProxyLinks
from p2pdist.peer.server import Authority, Server, everything
from p2pdist.peer.smalls import SmallAnswer
from p2pdist.runtime import logs
from p2pdist.runtime.health import Health
from p2pdist.runtime.proxy_client import ProxyClient
from p2pdist.runtime.tasks import TaskOwner
from p2pdist.runtime.tracker_client import TrackerClient
from p2pdist.store.blob import Blob
from p2pdist.store.store import Store

log = logging.getLogger(__name__)

# Verified records by their bytes: each comes once from every neighbour, a signature costs 100 µs.
OPENED_RECORDS_MAX: Final = 16384
# Digests that neighbours want and we do not have (yet).
WISHES_MAX: Final = 65536
ACTIVE_MAX: Final = 1024
# As many as a handout names.
LAST_KNOWN_MAX: Final = 32
# A whole blob that nobody asked for since then goes back to being just stored.
UNUSED_S: Final = 120.0


class Node:
    """Implements the exchange's `LinkHandler`, the tracker's listener and the blobs' ports."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        place: Place,
        is_proxy: bool,
        rng: Random,
        proxies: Sequence[ProxyClient] = (),
        servable: Callable[[Digest], bool] = everything,
        health: Health | None = None,
    ) -> None:
        self.store = store
        self.keyring = keyring
        self.place = place
        self.is_proxy = is_proxy
        self.rng = rng
        self.proxies = list(proxies)
        self.health = health or Health()
        self.counters = NodeCounters()
        self.tasks = TaskOwner("node")
        self.trust = TrustBook()
        self.bulk = BulkTraffic(self._make_room)
        self.uplink = Uplink()
        self.authority: Authority | None = None
        self.actives: dict[Digest, ActiveBlob] = {}
        self.tracker: TrackerClient
        self.neighbourhood: Neighbourhood
        self.proxy_links: ProxyLinks
        self.requests = RequestTable()
        self.smalls = SmallFinder(self)
        self._servable = servable
        self._server = Server(store, keyring, self.counters, place, servable)
        self._flows: dict[Link, Flows] = {}
        self._maps: dict[MapId, MapFollower] = {}
        self._rested = FetchCounters()
        self._wishes = Wishes(WISHES_MAX)
        self._opened: LRUCache[bytes, Statement] = LRUCache(OPENED_RECORDS_MAX)

    def start(self, transport: ExchangeTransport, tracker: TrackerClient) -> None:
        self.tracker = tracker
        refusals = RefusalBook(self.rng)
        self.neighbourhood = Neighbourhood(transport, self.tasks, self.trust, refusals, self.health)
        self.proxy_links = ProxyLinks(
            self.proxies,
            self.neighbourhood,
            refusals,
            self.tasks,
            self.rng,
            self.health,
            wanted=lambda: [d for d, active in self.actives.items() if active.wants_proxy],
            needs=self._needs,
            on_up=self._proxy_up,
            believed=self.keyring.knows,
        )
        self.store.on_evict = self._evicted
        self.store.on_pressure = lambda: self._let_go(unused_s=0.0)
        self.proxy_links.start()
        for record in self.store.revocations():
            self._opened[record] = self.keyring.open(record)
        self.tasks.start(self._sweep(), name="sweep")

    async def close(self) -> None:
        self.proxy_links.close()
        for active in list(self.actives.values()):
            active.end()
        self.actives.clear()
        await self.tasks.close()

    def withdraw(self) -> None:
        """Take back every offer; what was asked for already is still sent."""
        for active in self.actives.values():
            active.withdraw()

    # --- blobs ----------------------------------------------------------------------------------

    def activate(self, digest: Digest, size_bytes: int) -> ActiveBlob:
        """Return the one `ActiveBlob` of a digest; start from what the store holds.

        `size_bytes` is what somebody claims; a seal stands above it, and any map that comes later.
        """
        active = self.actives.get(digest)
        if active is not None and active.failure is None and not active.unstored:
            return active
        if active is not None:
            self._remember_wishes(active)
            self._rest(active)
        active = ActiveBlob(self, digest, size_bytes)
        self.actives[digest] = active
        stored = self.store.get(digest)
        if stored is not None and (stored.geometry == active.geometry or stored.chunk_map.sealed):
            stored.hold()
            active.start_with(stored)
        for host, interest in self._wishes.take(digest).items():
            if (link := self.neighbourhood.links.get(host)) is not None:
                active.hear_interest(link, interest)
        return active

    def give_up(self, active: ActiveBlob, why: str) -> None:
        """End a blob so that it can be taken up anew; those who wish for it are remembered."""
        self._remember_wishes(active)
        active.withdraw()
        active.fail(why)
        self._rest(active)
        if self.actives.get(active.digest) is active:
            del self.actives[active.digest]

    def _remember_wishes(self, active: ActiveBlob) -> None:
        for host, interest in active.wishes().items():
            self._wishes.add(host, interest)

    def fetch(self, active: ActiveBlob) -> None:
        """Take part in the swarm of a blob that is not whole here, and ask its owning proxy."""
        if active.complete:
            return
        active.join()
        active.neighbours.asks_proxies = True
        proxy = self.proxy_links.want(active.digest)
        links = [proxy] if proxy is not None else []
        if not self.tracker.connected:  # nobody names neighbours: try those of earlier swarms
            links += self.neighbourhood.peers(self.place.dc)[:LAST_KNOWN_MAX]
        for link in links:
            active.attach(link)

    def fetch_bulk(self, active: ActiveBlob, budget: TokenBucket | None) -> None:
        """Like `fetch`, but ahead of need: whatever anybody waits for goes first.

        `budget` is shared by all blobs of a job (None: as fast as they come); make it by
        `bulk_bucket`. While a reader of this host has the blob open, it is as urgent as any.
        """
        active.order_bulk(budget)
        self.fetch(active)

    def end_bulk(self, active: ActiveBlob) -> None:
        """Take `fetch_bulk` back; what came stays, and a reader that has it open goes on."""
        active.end_bulk()

    def _make_room(self) -> None:
        for active in self.actives.values():
            active.make_room()

    async def follow(self, active: ActiveBlob, member: Member) -> Link | None:
        """Ask `member`, whom the tracker named, for a blob too; None: it cannot be reached."""
        link = await self.neighbourhood.reach(member)
        if link is not None:
            active.join()
            active.attach(link)
        return link

    def fetch_totals(self) -> FetchCounters:
        """Sums over the blobs in motion and those that came to rest."""
        total = FetchCounters(**asdict(self._rested))
        for active in self.actives.values():
            total.add(active.fetch_counters)
        return total

    def fell_back(self, label: str, reason: str, nbytes: int) -> None:
        """Bytes came from outside of the swarm, whose source is `label`."""
        reason = fallback_reason(
            reason,
            by_proxy=label == PROXY_SOURCE,
            has_proxies=bool(self.proxies),
            reachable=self.proxy_links.reachable,
            all_refuse=self.proxy_links.all_refuse,
        )
        self.counters.fallbacks[label] += nbytes
        self.counters.fallback_reasons[reason] += nbytes
        self.counters.received[label] += nbytes
        if self.proxies and reason not in SAID_OTHERWISE:
            text = f"bytes came past the swarm ({reason}) although a proxy is there"
            self.health.happened(Reason.FALLBACK_USED, reason, text)

    def store_trouble(self) -> Reason | None:
        """What passes through unstored, blobs or only small things, and why."""
        refusal = self.store.refusal
        if refusal is not None and not refusal.full:
            return Reason.STORE_FAILED
        unstored = any(active.store_full for active in self.actives.values())
        return Reason.STORE_FULL if unstored or refusal is not None else None

    def _rest(self, active: ActiveBlob) -> None:
        """End a blob's motion; what it counted stays."""
        self._rested.add(active.fetch_counters)
        active.end()

    async def revoke(self, record: bytes) -> None:
        """Take in a revocation, ours or another's: nothing of that map stays or is served."""
        statement = self._open(record)
        if not isinstance(statement, Revocation) or self.store.revoked(statement.map_id):
            return
        try:
            await self.store.put_revocation(statement.digest, statement.map_id, record)
        except StoreError as error:  # in force all the same, until a restart
            logs.event(
                log, logging.ERROR, "store.failed", digest=statement.digest, error=str(error)
            )
        follower = self._maps.get(statement.map_id)
        if follower is not None:
            follower.hear(None, statement, record)
            await follower.settle()
        stored = self.store.get(statement.digest)
        if stored is not None and stored.chunk_map.map_id == statement.map_id:
            await self.store.remove(statement.digest)

    def _evicted(self, digest: Digest) -> None:
        self.tracker.note(digest_key(digest), 0, False)
        active = self.actives.pop(digest, None)
        if active is not None:  # else nobody was told that it is here
            active.withdraw()
            self._rest(active)

    async def _sweep(self) -> None:
        """Let go of blobs that are whole and that nobody asked for in a while."""
        while True:
            await asyncio.sleep(UNUSED_S / 4)
            self._let_go(unused_s=UNUSED_S)

    def _let_go(self, *, unused_s: float) -> None:
        for digest, active in list(self.actives.items()):
            if not active.in_use and active.unused_s >= unused_s:
                del self.actives[digest]
                self._rest(active)

    # --- ports of the blobs ---------------------------------------------------------------------

    def flows_of(self, link: Link) -> Flows:
        """What is known of the speed of a live link."""
        flows = self._flows.get(link)
        if flows is None:
            flows = Flows(link.payload_received)
            if not link.closed:
                self._flows[link] = flows
        return flows

    def route_map(self, map_id: MapId, follower: MapFollower) -> None:
        self._maps[map_id] = follower

    def forget_maps(self, follower: MapFollower) -> None:
        for map_id in [m for m, f in self._maps.items() if f is follower]:
            del self._maps[map_id]

    def punish(self, link: Link, fault: PeerFault) -> None:
        """Count a wrong answer; a host with too many is banned and its link closed."""
        host = link.session.member.host_id
        now_s = asyncio.get_running_loop().time()
        if self.trust.banned(host, now_s):
            return  # checked side by side with the one that banned it
        self.counters.rejected[fault.reason] += 1
        if isinstance(fault, UnknownKey) and (name := self.proxy_links.name_of(host)) is not None:
            self.proxy_links.signed_by_stranger(name, fault.signer)
        logs.event(
            log, logging.WARNING, "peer.fault", peer=host, reason=fault.reason, error=str(fault)
        )
        weight = 1 if fault.reason == "hash" else STRIKES_MAX
        if self.trust.strike(host, now_s, weight):
            link.close(f"banned: {fault}")

    # --- the exchange's handler -----------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        if self.neighbourhood.add(link):
            self.proxy_links.link_up(link)

    def link_down(self, link: Link, reason: str) -> None:
        self.smalls.questions.link_down(link)
        self.requests.link_down(link)
        idle = reason == IDLE or self.neighbourhood.is_aside(link)
        for active in list(self.actives.values()):
            active.neighbours.link_down(link, gone=not idle)
        self._flows.pop(link, None)
        if self.neighbourhood.remove(link):
            self._wishes.forget(link.session.member.host_id)
            self.proxy_links.link_down(link, idle=idle)

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None:
        asker = self.requests.chunk_came(link, RequestId(request_id))
        if asker is None:
            self.counters.wasted_bytes += len(data)
        else:
            asker.arrived(link, RequestId(request_id), chunk, data)

    def small(self, link: Link, request_id: int, media_type: str, body: bytes) -> None:
        self.smalls.questions.answered(link, RequestId(request_id), SmallAnswer(media_type, body))

    def frame(self, link: Link, frame: fr.Frame) -> None:
        if isinstance(frame, fr.LinkUse) and not frame.needed:
            self._hear_no_use(link)
            return
        if self.neighbourhood.bring_back(link):  # said before it heard that we had no use for it
            self.proxy_links.link_up(link)
        try:
            self._dispatch(link, frame)
        except PeerFault as fault:
            self.punish(link, fault)

    def _dispatch(self, link: Link, frame: fr.Frame) -> None:
        match frame:
            case fr.Interest():
                self._hear_interest(link, frame)
            case fr.Uninterest(digest):
                if (active := self.actives.get(digest)) is not None:
                    active.neighbours.lose_interest(link)
                else:
                    self._wishes.withdraw(link.session.member.host_id, digest)
            case fr.MapRecord(record):
                self._hear_record(link, record)
            case fr.Offer(digest) | fr.Retract(digest):
                if (active := self.actives.get(digest)) is not None:
                    active.hear(link, frame)
            case fr.Working(digest):
                if link.session.member.role is Role.PROXY and digest in self.actives:
                    self.actives[digest].hear_working()
            case fr.Request():
                if self._server.unchecked(frame):
                    self.tasks.start(self._serve_checked(link, frame), name="check and serve")
                else:
                    self._server.serve_run(link, frame, self._listeners(frame.digest))
            case fr.Cancel(request_id):
                link.cancel_run(request_id)
            case fr.Refuse(request_id, reason):
                self._hear_refusal(link, RequestId(request_id), reason)
            case fr.GetSmall(request_id, digest):
                small = self._server.serve_small(link, request_id, digest, self.authority)
                self.tasks.start(small, name="serve small")
            case fr.GetStatement(request_id, key):
                statement = self._server.serve_statement(link, request_id, key)
                self.tasks.start(statement, name="serve tag")
            case fr.StatementIs(request_id, record):
                self.smalls.questions.answered(link, RequestId(request_id), record)
            case fr.LinkUse():
                pass
            case _:
                raise PeerFault(f"unexpected frame {type(frame).__name__}")

    def _listeners(self, digest: Digest) -> BlobNeighbours | None:
        active = self.actives.get(digest)
        return active.neighbours if active is not None else None

    async def _serve_checked(self, link: Link, request: fr.Request) -> None:
        """Hash what an earlier run left before it goes out the first time."""
        lost = await self._server.check(request)
        if (active := self.actives.get(request.digest)) is not None:
            active.lost(lost)
        if not link.closed:
            self._server.serve_run(link, request, self._listeners(request.digest))

    async def scrub(self, blob: Blob, first: int, stop: int) -> None:
        """Hash chunks again that lie here; what rotted is fetched anew when it is wanted."""
        lost = await blob.scrub(first, stop)
        if lost and self._servable(blob.digest):
            self.activate(blob.digest, blob.geometry.size_bytes).lost(lost)

    def _hear_interest(self, link: Link, interest: fr.Interest) -> None:
        digest = interest.digest
        if not self._servable(digest):  # yet: whoever is told of a repository that has it may be
            self._wishes.add(link.session.member.host_id, interest)
            return
        active = self.actives.get(digest)
        if active is not None and active.failure is not None:
            active = None  # whoever takes the blob up anew finds the wish
        stored = self.store.get(digest)
        if active is None and stored is not None and len(self.actives) < ACTIVE_MAX:
            active = self.activate(digest, stored.geometry.size_bytes)
        if active is not None:
            active.hear_interest(link, interest)
        else:
            self._wishes.add(link.session.member.host_id, interest)
        if self.authority is not None and (active is None or not active.complete):
            self.authority.wanted(digest, bulk=interest.bulk)

    def _open(self, record: bytes) -> Statement:
        statement = self._opened.get(record)
        if statement is None:
            statement = self.keyring.open(record)
            self._opened[record] = statement
        return statement

    def _hear_record(self, link: Link, record: bytes) -> None:
        statement = self._open(record)
        match statement:
            case MapHead(digest=digest, map_id=map_id):
                if (active := self.actives.get(digest)) is not None:
                    self._maps.setdefault(map_id, active)  # its batches follow at once
                    active.hear(link, statement, record)
            case HashBatch(map_id=map_id) | Seal(map_id=map_id):
                if (follower := self._maps.get(map_id)) is not None:
                    follower.hear(link, statement, record)
            case Revocation():
                self.tasks.start(self.revoke(record), name="revoke")
            case TagStatement():
                raise PeerFault("a tag statement that nobody asked for")

    def _hear_refusal(self, link: Link, request_id: RequestId, reason: int) -> None:
        if self.smalls.questions.owns(request_id):
            self.smalls.questions.answered(link, request_id, None)
            return
        asker = self.requests.refused(link, request_id)
        if asker is not None:
            link.forget(request_id)
            asker.refused(link, request_id, gone=reason != fr.RefuseReason.BUSY)

    # --- links to proxies -----------------------------------------------------------------------

    def _proxy_up(self, link: Link) -> None:
        for active in self.actives.values():
            if active.wants_proxy and self.proxy_links.owns(link, active.digest):
                active.attach(link)

    def _needs(self, link: Link) -> bool:
        """Something of ours goes on at `link`, or may."""
        asks = self.smalls.questions.asks(link) or any(
            a.neighbours.asks(link) for a in self.actives.values()
        )
        return link.busy or asks

    def _hear_no_use(self, link: Link) -> None:
        if self._needs(link):
            link.send(fr.LinkUse(needed=True))
        else:
            link.close(IDLE)

    # --- the tracker's listener -----------------------------------------------------------------

    def tracker_up(self) -> None:
        logs.event(log, logging.INFO, "tracker.up")

    def tracker_down(self) -> None:
        logs.event(log, logging.WARNING, "tracker.down")

    def handout(self, handout: Handout) -> None:
        self.smalls.named(handout)
        active = self.actives.get(Digest(handout.key))
        if active is not None and not active.complete:
            for member in handout.members:
                self.tasks.start(self._meet(active, member), name=f"meet {member.host_id[:8]}")

    async def _meet(self, active: ActiveBlob, member: Member) -> None:
        link = await self.neighbourhood.reach(member)
        if link is not None and not active.complete:
            active.attach(link)

    def revoked(self, records: list[bytes]) -> None:
        for record in records:
            try:
                self._open(record)
            except PeerFault as fault:  # the tracker supplies no keys: a bad record is just noise
                logs.event(log, logging.WARNING, "revocation.refused", error=str(fault))
                continue
            self.tasks.start(self.revoke(record), name="revoke")

    def full_announce(self) -> list[Delta]:
        """Everything this host holds and may hand out, for a tracker that knows nothing."""
        deltas = [
            Delta(digest_key(b.digest), len(b.verified), b.complete)
            for b in self.store.blobs()
            if b.verified and self._servable(b.digest)
        ]
        deltas += [Delta(digest_key(d), 1, True) for d in self.store.smalls() if self._servable(d)]
        deltas += [Delta(tag_swarm_key(k), 1, True) for k in self.store.statement_keys()]
        return deltas
