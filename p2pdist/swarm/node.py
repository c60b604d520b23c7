"""A member of the swarms: the part that peers and proxies share.

The node owns the store, the links and the blobs in motion; its router carries frames between them.
A proxy gives it an `Authority`, which finds what nobody in the swarm has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from random import Random
from typing import Final

from p2pdist.control.client import TrackerClient
from p2pdist.errors import PeerFault, StoreError, UnknownKey
from p2pdist.exchange.link import Link
from p2pdist.exchange.transport import ExchangeTransport
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.control import digest_key
from p2pdist.model.health import Reason
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Member, Place
from p2pdist.model.statements import Keyring, Revocation
from p2pdist.process import logs
from p2pdist.process.health import Health
from p2pdist.process.tasks import TaskOwner
from p2pdist.registry.proxy_client import ProxyClient
from p2pdist.store.ports import BlobStore, Resorted, StoredBlob
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core.event_log import Kind
from p2pdist.swarm.core.fetch import FetchCounters
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.host_orders import LocalOrder
from p2pdist.swarm.core.refusals import RefusalBook
from p2pdist.swarm.core.traced import Trace, TracedHost
from p2pdist.swarm.counters import PROXY as PROXY_SOURCE
from p2pdist.swarm.counters import SAID_OTHERWISE, NodeCounters, fallback_reason
from p2pdist.swarm.finding import SmallFinder
from p2pdist.swarm.host_driver import HostDriver
from p2pdist.swarm.link_table import LinkTable
from p2pdist.swarm.neighbourhood import Neighbourhood
from p2pdist.swarm.proxy_links import ProxyLinks
from p2pdist.swarm.records import OpenedRecords
from p2pdist.swarm.routing import FrameRouter
from p2pdist.swarm.server import Authority, Server, everything
from p2pdist.swarm.tracker_side import TrackerSide

log = logging.getLogger(__name__)

# Neighbours that ask for what is stored here set no more blobs in motion than this.
ACTIVE_MAX: Final = 1024
# As many as a handout names.
LAST_KNOWN_MAX: Final = 32
# A whole blob that nobody asked for since then goes back to being just stored.
UNUSED_S: Final = 120.0
KEYS_LOOK_S: Final = 1.0
"""At the few blobs that were in motion when a key was dropped; at nothing otherwise."""


class Node:
    """The blobs in motion, and what they share; implements their ports."""

    def __init__(
        self,
        *,
        store: BlobStore,
        keyring: Keyring,
        place: Place,
        is_proxy: bool,
        rng: Random,
        proxies: Sequence[ProxyClient] = (),
        servable: Callable[[Digest], bool] = everything,
        health: Health | None = None,
        trace: Trace | None = None,
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
        self.authority: Authority | None = None
        self.actives: dict[Digest, ActiveBlob] = {}
        self.tracker: TrackerClient
        self.neighbourhood: Neighbourhood
        self.proxy_links: ProxyLinks
        self.links = LinkTable()
        make = HostCore if trace is None else partial(TracedHost, trace=trace)
        self.core = make(
            place,
            is_proxy=is_proxy,
            rng=rng,
            proxy_of_ours=self._is_configured_proxy,
            revoked=lambda map_id: self.store.revoked(map_id),
            servable=servable,
        )
        self._driver = HostDriver(
            self.core,
            self.links,
            tracker=lambda: self.tracker,
            count_fault=self._count_fault,
            provide=self._provide,
            meet=lambda digest, members: self.tracker_side.meet(digest, members),
            local=self._carry_out_locally,
        )
        self.carry_out = self._driver.carry_out
        self.records = OpenedRecords(keyring)
        self.smalls = SmallFinder(self)
        self._servable = servable
        server = Server(store, keyring, self.counters, place, servable)
        self.router = FrameRouter(self, server)
        self.tracker_side = TrackerSide(self, servable)
        self._rested = FetchCounters()
        self._signed_before: list[Digest] = []
        """Blobs in motion under maps of keys that are not believed any more."""
        self._resorting = asyncio.Lock()

    def start(self, transport: ExchangeTransport, tracker: TrackerClient) -> None:
        self.tracker = tracker
        refusals = RefusalBook(self.rng)
        trust = self.core.trust
        self.neighbourhood = Neighbourhood(transport, self.tasks, trust, refusals, self.health)
        self.proxy_links = ProxyLinks(
            self.proxies,
            self.neighbourhood,
            refusals,
            self.tasks,
            self.rng,
            self.health,
            wanted=lambda: [d for d, active in self.actives.items() if active.wants_proxy],
            needs=self.router.needs,
            on_up=self.router.proxy_up,
            believed=self.keyring.knows,
        )
        self.store.on_evict = self._evicted
        self.store.on_pressure = lambda: self._let_go(unused_s=0.0)
        self.proxy_links.start()
        for record in self.store.revocations():
            self.records.open(record)
        self.tasks.start(self._sweep(), name="sweep")
        self.tasks.start(self._end_motions(), name="end motions")

    async def close(self) -> None:
        self.proxy_links.close()
        for active in list(self.actives.values()):
            active.end()
        self.actives.clear()
        self._driver.end()
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
            self.core.remember_wishes(active.core)
            self._rest(active)
        active = ActiveBlob(self, digest, size_bytes)
        self.actives[digest] = active
        stored = self.store.get(digest)
        if stored is not None and (stored.geometry == active.geometry or stored.chunk_map.sealed):
            stored.hold()
            active.start_with(stored)
        self.core.hear_wishes(active.core, asyncio.get_running_loop().time())
        self.carry_out()
        return active

    def give_up(self, active: ActiveBlob, why: str) -> None:
        """End a blob so that it can be taken up anew; those who wish for it are remembered."""
        self.core.remember_wishes(active.core)
        active.withdraw()
        active.fail(why)
        self._rest(active)
        if self.actives.get(active.digest) is active:
            del self.actives[active.digest]

    def _provide(self, digest: Digest, bulk: bool) -> None:
        """Somebody asks for a blob that is not whole in motion here."""
        active = self.actives.get(digest)
        if active is None or active.failure is not None:
            stored, room = self.store.get(digest), len(self.actives) < ACTIVE_MAX
            if stored is None or not room:
                active = None
            else:
                active = self.activate(digest, stored.geometry.size_bytes)
        if self.authority is not None and (active is None or not active.complete):
            self.authority.wanted(digest, bulk=bulk)

    def fetch(self, active: ActiveBlob) -> None:
        """Take part in the swarm of a blob that is not whole here, and ask its owning proxy."""
        if active.complete:
            return
        active.join()
        active.ask_proxies()
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

    async def follow(self, active: ActiveBlob, member: Member) -> Link | None:
        """Ask `member`, whom the tracker named, for a blob too; None: it cannot be reached."""
        link = await self.neighbourhood.reach(member)
        if link is not None:
            active.join()
            active.attach(link)
        else:
            active.note(Kind.UNREACHED, host=member.host_id)
        return link

    def fetch_totals(self) -> FetchCounters:
        """Sums over the blobs in motion and those that came to rest."""
        total = FetchCounters(**asdict(self._rested))
        for active in self.actives.values():
            total.add(active.counters)
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
        errors = [self.store.refusal, *(active.store_error for active in self.actives.values())]
        reasons = {_reason_of(error) for error in errors if error is not None}
        order = (Reason.FEW_DESCRIPTORS, Reason.STORE_FAILED, Reason.STORE_FULL)
        return next((reason for reason in order if reason in reasons), None)

    def _rest(self, active: ActiveBlob) -> None:
        """End a blob's motion; what it counted stays."""
        self._rested.add(active.counters)
        active.end()

    async def revoke(self, record: bytes) -> None:
        """Take in a revocation, ours or another's: nothing of that map stays or is served."""
        statement = self.records.open(record)
        if not isinstance(statement, Revocation) or self.store.revoked(statement.map_id):
            return
        try:
            await self.store.put_revocation(statement.digest, statement.map_id, record)
        except StoreError as error:  # in force all the same, until a restart
            logs.event(
                log, logging.ERROR, "store.failed", digest=statement.digest, error=str(error)
            )
        blob = self.core.blob_of_map(statement.map_id)
        if blob is not None and (active := self.actives.get(blob.digest)) is not None:
            active.hear(None, statement, record)
            await active.settle()
        stored = self.store.get(statement.digest)
        if stored is not None and stored.chunk_map.map_id == statement.map_id:
            await self.store.remove(statement.digest)

    def _evicted(self, digest: Digest) -> None:
        self.tracker.note(digest_key(digest), 0, False)
        active = self.actives.pop(digest, None)
        if active is not None:  # else nobody was told that it is here
            self.core.remember_wishes(active.core)
            active.withdraw()
            self._rest(active)

    async def _sweep(self) -> None:
        """Let go of blobs that are whole and that nobody asked for in a while."""
        while True:
            await asyncio.sleep(UNUSED_S / 4)
            self._let_go(unused_s=UNUSED_S)

    # --- other keys -----------------------------------------------------------------------------

    async def keys_changed(self) -> None:
        """The keyring changed: what lies here under maps of keys that are not believed any more is
        put aside, as at a start. What is under way goes on to its end, or to a map that holds; a
        whole blob is read on by those who read it, and counts again when a proxy has signed it
        anew: that does it at once where somebody still waits for it."""
        self.records.keys_changed()
        self.proxy_links.keys_changed()
        for active in list(self.actives.values()):
            active.keys_changed(self.keyring.knows)
        async with self._resorting:
            try:
                back, self._signed_before = await self._resort()
            except StoreError as error:
                logs.event(log, logging.ERROR, "store.failed", error=str(error))
                return
        for digest in back:
            if (stored := self.store.get(digest)) is not None and self._servable(digest):
                self.tracker.note(digest_key(digest), len(stored.verified), stored.complete)

    async def _resort(self) -> Resorted:
        moved = list(self.actives)
        sorted_anew = await self.store.keys_changed(self._moves)
        if self.authority is not None:
            for digest in moved:
                if digest not in self.actives and self.core.wished(digest):
                    self.authority.wanted(digest, bulk=False)
        return sorted_anew

    async def _end_motions(self) -> None:
        """Put aside what was in motion when its key was dropped, as soon as it is not."""
        while True:
            await asyncio.sleep(KEYS_LOOK_S)
            if not all(map(self._moves, self._signed_before)):
                await self.keys_changed()

    def _moves(self, digest: Digest) -> bool:
        """It is not to be put aside now."""
        active = self.actives.get(digest)
        brought = self.authority is not None and self.authority.brings(digest)
        return brought or (active is not None and active.in_use and not active.complete)

    def _let_go(self, *, unused_s: float) -> None:
        for digest, active in list(self.actives.items()):
            if not active.in_use and active.unused_s >= unused_s:
                del self.actives[digest]
                self._rest(active)

    async def scrub(self, blob: StoredBlob, first: int, stop: int) -> None:
        """Hash chunks again that lie here; what rotted is fetched anew when it is wanted."""
        lost = await blob.scrub(first, stop)
        if lost and self._servable(blob.digest):
            self.activate(blob.digest, blob.geometry.size_bytes).lost(lost)

    # --- ports of the blobs ---------------------------------------------------------------------

    def _carry_out_locally(self, order: LocalOrder) -> None:
        if (active := self.actives.get(order.digest)) is not None:
            active.carry_out(order)

    def _is_configured_proxy(self, host: HostId) -> bool:
        return self.proxy_links.name_of(host) is not None

    def punish(self, link: Link, fault: PeerFault) -> None:
        """Count a wrong answer; a host with too many is banned and its link closed."""
        self.core.punish(self.links.state(link), fault, asyncio.get_running_loop().time())
        self.carry_out()

    def _count_fault(self, host: HostId, fault: PeerFault) -> None:
        self.counters.rejected[fault.reason] += 1
        if isinstance(fault, UnknownKey) and (name := self.proxy_links.name_of(host)) is not None:
            self.proxy_links.signed_by_stranger(name, fault.signer)
        logs.event(
            log, logging.WARNING, "peer.fault", peer=host, reason=fault.reason, error=str(fault)
        )


def _reason_of(error: StoreError) -> Reason:
    if error.no_descriptors:
        return Reason.FEW_DESCRIPTORS
    return Reason.STORE_FULL if error.full else Reason.STORE_FAILED
