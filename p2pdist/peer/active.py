"""One blob that this host reads, serves or fetches: its map, readers, neighbours and chunks.

All that is said about a blob passes through one bounded inbox, in order, because a head may have to
wait for the disk; chunks pass through the store's check. Here the parts meet: what one of them
hears of is told to the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from p2pdist.errors import P2pdistError, PeerFault, StoreError
from p2pdist.exchange.frames import Interest, Offer, Retract
from p2pdist.exchange.link import Link
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.control import digest_key
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import Digest, HostId, RequestId
from p2pdist.model.statements import HashBatch, Seal
from p2pdist.peer.asking import Asking
from p2pdist.peer.audience import Audience
from p2pdist.peer.blob_map import BlobMap
from p2pdist.peer.bulk import BlobBulk
from p2pdist.peer.core import fetch as core
from p2pdist.peer.core.requests import FetchCounters
from p2pdist.peer.counters import source_of
from p2pdist.peer.inbox import Heard, Inbox
from p2pdist.peer.intake import Arrival, ChunkIntake
from p2pdist.peer.neighbours import BlobNeighbours
from p2pdist.peer.ports import NodePorts
from p2pdist.peer.readers import BlobReaders
from p2pdist.runtime import logs
from p2pdist.store.blob import Blob

log = logging.getLogger(__name__)


class ActiveBlob:
    """Lives as long as anybody reads, fetches or asks for its digest; `end` gives all back."""

    def __init__(self, node: NodePorts, digest: Digest, size_bytes: int) -> None:
        self.digest = digest
        self.failure: str | None = None
        """Why nothing more will come of this blob; its readers end short."""
        self.store_full = False
        self.received: dict[str, int] = {}  # verified payload by source, for the pull's log line
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._map = BlobMap(node.store, size_bytes, self)
        self._bulk = BlobBulk(node.bulk)
        self._readers = BlobReaders(self._map, node.bulk)
        self._asking = Asking(node, digest, self._bulk, asker=self, wake=self.wake)
        self._audience = Audience(
            digest,
            node.place,
            self.geometry.chunk_size_bytes,
            node.uplink,
            is_proxy=node.is_proxy,
        )
        self._neighbours = BlobNeighbours(
            node, digest, self._asking, self._audience, changed=self._audience_changed
        )
        self._intake = ChunkIntake(node.tasks, self._checked, self.disk_failed)
        self._inbox = Inbox(
            node.tasks, digest, self._take, punish=node.punish, disk_failed=self.disk_failed
        )
        self._timer: asyncio.Handle | None = None
        self._timer_s = 0.0
        self._woken = False
        self._halted = False
        self._ended = False
        self._asks_proxies = False
        self._used_s = self._loop.time()
        self._progress_s = self._used_s

    # --- how it is ------------------------------------------------------------------------------

    @property
    def blob(self) -> Blob | None:
        """Where its chunks lie."""
        return self._map.blob

    @property
    def map(self) -> ChunkMap | None:
        """The one that is followed."""
        return self._map.map

    @property
    def geometry(self) -> Geometry:
        """As a manifest claims it, until a signed head says how it is."""
        return self._map.geometry

    @property
    def complete(self) -> bool:
        return self._map.complete

    @property
    def in_use(self) -> bool:
        listened_to = bool(self._readers) or bool(self._audience)
        over = self.complete or self.failure or self.unstored or self._halted
        return listened_to or not over

    @property
    def unstored(self) -> bool:
        """The disk refused it and nobody reads it now: the next reader tries the disk again."""
        return self.store_full and not self._readers

    @property
    def wants_proxy(self) -> bool:
        """The proxy that owns it is to be asked, as soon as there is a link to it."""
        lacking = self._neighbours.member and not self.complete and self.failure is None
        return lacking and self._asks_proxies

    @property
    def proxy_linked(self) -> bool:
        """A proxy is there that may bring what the swarm lacks."""
        return self._asking.proxy_linked

    @property
    def fetch_counters(self) -> FetchCounters:
        return self._asking.counters

    @property
    def idle_s(self) -> float:
        """Seconds since bytes of this blob came in, or since it was held back last."""
        return self._loop.time() - max(self._progress_s, self._asking.held_at_s or 0.0)

    @property
    def unused_s(self) -> float:
        """Seconds since anybody opened or asked for it."""
        return self._loop.time() - self._used_s

    @property
    def prefix_chunks(self) -> int:
        """How many chunks from the first on are there without a gap."""
        return self._map.prefix_chunks

    @property
    def proven_size_bytes(self) -> int | None:
        """How long the blob is, once a proxy's signature says so."""
        return self.geometry.size_bytes if self.map is not None else None

    # --- readers --------------------------------------------------------------------------------

    def deliverable_end(self, offset: int, *, to_end: bool = True) -> int:
        """The end of the bytes that may go out from `offset` on; `offset` itself if none may.

        `to_end`: the body is read to the end of the blob (see `core.delivery`).
        """
        return self._readers.deliverable_end(offset, to_end=to_end)

    def open_reader(self) -> int:
        reader = self._readers.open()
        self.reader_at(reader, 0)
        return reader

    def reader_at(self, reader: int, offset: int) -> None:
        """Tell the picker which byte `reader` waits for."""
        self._used_s = self._loop.time()
        self._readers.moved(reader, offset)
        self._weigh()
        self._asking.feed(core.ReaderMoved(reader, self._map.chunk_at(offset)))

    def close_reader(self, reader: int) -> None:
        if self._readers.close(reader):
            self._asking.feed(core.ReaderLeft(reader))
            self._weigh()

    async def wait_deliverable(self, offset: int, timeout_s: float, *, to_end: bool = True) -> None:
        """Return when more may go out at `offset`, the blob failed, or the time is over; sometimes
        earlier, so that the caller looks again."""
        await self._readers.wait_deliverable(offset, timeout_s, to_end=to_end)

    async def wait_progress(self, timeout_s: float) -> None:
        """Return when the first chunk that lacks comes, the blob failed, or the time is over; who
        waits here makes nobody hurry, unlike a reader."""
        await self._readers.wait_progress(timeout_s)

    # --- bulk -----------------------------------------------------------------------------------

    @property
    def bulk(self) -> bool:
        """It is fetched ahead of need: whatever anybody waits for goes first."""
        return bool(self._bulk)

    @property
    def ordered(self) -> bool:
        """It is fetched also where nobody waits for it; as bulk then."""
        return self._bulk.ordered

    @property
    def ahead_bytes(self) -> int | None:
        """What a body from outside may send before it is read; None: as the kernel likes."""
        return self._bulk.ahead_bytes

    def order_bulk(self, budget: TokenBucket | None) -> None:
        """Fetch it as bulk whenever nobody waits for it; the last order's budget counts."""
        self._bulk.order(budget)
        self._weigh()

    def end_bulk(self) -> None:
        """Nobody orders it any more: unless a reader has it open, nothing more is asked for.

        A proxy finishes what it began, because its neighbours may want it by now.
        """
        self._bulk.ordered = False
        if not self._readers and not self.complete and not self._node.is_proxy:
            self._halted = True
            self._asking.feed(core.Halted())
            self._neighbours.release()
            self._neighbours.leave()
        self._weigh()

    def make_room(self) -> None:
        """A reader waits for some blob of this node."""
        if self.bulk:
            self._asking.feed(core.GateShut())

    async def paced(self, nbytes: int) -> None:
        """Return when `nbytes` more may be taken from outside: at once unless it is bulk."""
        await self._bulk.take(nbytes, held_back=self.working)

    def _weigh(self) -> None:
        """Become bulk, or stop being that, as readers and neighbours come and go."""
        said = self.bulk
        waited_for = bool(self._readers) or (self._node.is_proxy and self._audience.urgent)
        if self._bulk.weigh(waited_for=waited_for):
            self._asking.feed(core.PaceSet(self._bulk.pace))
        if self.bulk is not said:
            self._asking.say_interest_to_all()

    # --- neighbours -----------------------------------------------------------------------------

    def join(self) -> None:
        """Become a member of the swarm, once; the node attaches whom the handout names."""
        self._halted = False
        self._neighbours.join()

    def ask_proxies(self) -> None:
        """From now on a link to the proxy that owns it is wanted."""
        self._asks_proxies = True

    def asks(self, link: Link) -> bool:
        """We read it from `link`."""
        return self._asking.asks(link)

    def attach(self, link: Link) -> None:
        """Ask `link` for this blob; asking again makes a proxy look for it again."""
        if self.complete or self.failure is not None or self._halted or link.closed:
            return
        if self._neighbours.attach(link):
            self.wake()

    def hear_interest(self, link: Link, interest: Interest) -> None:
        """`link` wants this blob: tell what we know and hold, and ask back if we lack some."""
        self._used_s = self._loop.time()
        admitted = self._neighbours.hear_interest(link, interest)
        if admitted and not self.complete and not self._asking.knows(link):
            self.attach(link)

    def lose_interest(self, link: Link) -> None:
        self._neighbours.lose_interest(link)

    def wishes(self) -> dict[HostId, Interest]:
        """What those who listen said last."""
        return self._audience.wishes()

    def withdraw(self) -> None:
        """Tell all who listen that nothing more is to be had here."""
        self._audience.retract()

    def link_down(self, link: Link, *, gone: bool) -> None:
        """`gone`: for all we know its host is, too; else the link alone ended, of no use."""
        self._neighbours.link_down(link, gone=gone)

    def _audience_changed(self) -> None:
        self._weigh()
        self.wake()

    # --- statements and offers ------------------------------------------------------------------

    def hear(self, link: Link | None, statement: Heard, record: bytes = b"") -> None:
        """Take in what `link` said (None: our own ingest), in its order."""
        if isinstance(statement, Offer) and self._inbox.settled:
            # By far the most frequent one, and never waits for the disk: it needs no task.
            try:
                self._take_offer(link, statement)
            except PeerFault as fault:
                if link is not None:
                    self._node.punish(link, fault)
        else:
            self._inbox.put(link, statement, record)

    async def settle(self) -> None:
        """Return when all that was heard so far has been taken in."""
        await self._inbox.settle()

    async def _take(self, link: Link | None, statement: Heard, record: bytes) -> None:
        match statement:
            case Offer():
                self._take_offer(link, statement)
            case Retract():
                if link is not None:
                    self._audience.host_retracted(link.session.member.host_id)
                    self._asking.feed(core.Retracted(link.session.member.host_id))
                    self.wake()
            case HashBatch() | Seal():
                if link is not None and self._map.follows(statement.map_id):
                    self._audience.hears_the_map(link)
                await self._map.take(statement, record)
            case _:
                await self._map.take(statement, record)

    def _take_offer(self, link: Link | None, offer: Offer) -> None:
        if link is None or not self._map.follows(offer.map_id):
            return
        try:
            bits = ChunkSet.from_ranges(self.geometry.chunk_count, offer.ranges).bits
        except ValueError as error:
            raise PeerFault(str(error)) from None
        host = link.session.member.host_id
        self._audience.host_holds(link, bits)
        self._asking.feed(core.Offered(host, bits))
        self.wake()

    # --- its map --------------------------------------------------------------------------------

    async def adopt(self, chunk_map: ChunkMap) -> None:
        """Work under `chunk_map` from now on; chunks whose hash it confirms stay."""
        await self._map.adopt(chunk_map)

    def start_with(self, blob: Blob) -> None:
        """Serve and complete `blob`, which the caller holds for us."""
        self._map.start_with(blob)

    def map_followed(self, blob: Blob, *, recut: bool) -> None:
        if recut:
            self._readers.look_again()  # they wait for chunks of another cut
        self._intake.store_in(blob)
        self._node.route_map(blob.chunk_map.map_id, self)
        self._asking.start(blob.chunk_map, blob.verified.bits)
        self._asking.feed(core.PaceSet(self._bulk.pace))
        for reader, chunk in self._readers.places():
            self._asking.feed(core.ReaderMoved(reader, chunk))
        self._audience.follow(blob.chunk_map)
        self.landed(blob.verified.bits)

    def map_grew(self, record: bytes, bits: int) -> None:
        self._progress_s = self._loop.time()
        self._audience.relay(record, bits)
        self._asking.feed(core.HashesKnown(bits))
        if self.blob is not None:
            self.landed(self.blob.verified.bits & bits)

    def map_sealed(self, record: bytes) -> None:
        self._progress_s = self._loop.time()
        self._audience.tell(record)
        self._note()
        self._readers.look_again()
        self._audience.hold(0, whole=self.complete)
        self.wake()
        if self.complete:  # the seal came after the last chunk
            self._neighbours.release()

    def map_revoked(self, record: bytes) -> None:
        self._node.counters.revocations += 1
        self._audience.tell(record)
        self.fail("its map was revoked: the upstream's bytes did not have the digest")
        self._neighbours.retract()

    def doubt(self) -> None:
        """What begins with these chunks did not have the digest in the end.

        An open map may be one that was revoked long ago, and is said again to who did not hear of
        that: it and its chunks go, or every pull would begin with them. A sealed one is right.
        """
        if self.map is None or self.map.sealed or self.failure is not None:
            return
        self.fail("it did not go on to its digest, and its map is not sealed")
        self._neighbours.retract()
        self._node.tasks.start(self._node.store.remove(self.digest), name="remove doubtful blob")

    async def _switch(self, rival: ChunkMap) -> None:
        """The map we follow stands still: take up the one that another proxy signed."""
        try:
            await self._map.adopt(rival)
        except P2pdistError as error:
            logs.event(log, logging.WARNING, "map.refused", digest=self.digest, error=str(error))
            return
        self._asking.ask_anew()

    # --- chunks ---------------------------------------------------------------------------------

    def landed(self, bits: int) -> None:
        """Chunks are on disk; those that the map vouches for are offered and delivered."""
        vouched = self._map.vouched(bits)
        if self.blob is None or not vouched:
            return
        self._progress_s = self._loop.time()
        self._asking.feed(core.Landed(vouched))
        self._audience.hold(vouched, whole=self.complete)
        self.wake()
        self._readers.landed(vouched)
        self._note()
        if self.complete:
            self._neighbours.release()
            if not self.blob.synced:  # its seal came before its last chunk
                self._node.tasks.start(self._sync(self.blob), name=f"sync {self.digest[:19]}")

    @staticmethod
    async def _sync(blob: Blob) -> None:
        """Spare the next boot the hashing; nobody waits for the disk meanwhile."""
        blob.hold()
        try:
            await blob.sync()
        except OSError as error:
            logs.event(log, logging.WARNING, "sync.failed", digest=blob.digest, error=str(error))
        finally:
            blob.release()

    async def checked(self, start: int, stop: int) -> bool:
        """Bytes `start` to `stop` may go out: what an earlier run left is hashed the first time.

        False: some of it had rotted and is wanted again.
        """
        assert self.blob is not None
        first, end = self.geometry.chunk_at(start), self.geometry.chunk_at(stop - 1) + 1
        if not self.blob.unchecked(first, end):
            return True
        lost = await self.blob.check(first, end)
        self.lost(lost)
        return not lost

    def lost(self, chunks: Sequence[int]) -> None:
        """These chunks rotted on disk: nobody gets them from here until they came anew."""
        if not chunks:
            return
        self._node.counters.rejected["rot"] += len(chunks)
        logs.event(log, logging.WARNING, "chunk.rotted", digest=self.digest, chunks=len(chunks))
        self._asking.feed(core.Lost(sum(1 << chunk for chunk in chunks)))
        self._note()

    def working(self) -> None:
        """Bytes come in from outside; said to all readers, so that they wait for them."""
        self._progress_s = self._loop.time()
        self._audience.working()

    def hear_working(self) -> None:
        """A proxy says that it is being brought in."""
        self._progress_s = self._loop.time()
        self._audience.pass_on_working()

    def arrived(self, link: Link, request_id: RequestId, chunk: int, data: bytearray) -> None:
        """A chunk came in answer to a request: have it checked and stored, off the loop."""
        self._intake.take(Arrival(link, request_id, chunk, data))

    def _checked(self, arrival: Arrival, good: bool, fresh: bool) -> None:
        link, chunk, data = arrival.link, arrival.chunk, arrival.data
        if good and fresh:
            self._count(link, len(data))
        else:
            self._node.counters.wasted_bytes += len(data)
        host = link.session.member.host_id
        self._asking.arrived(link, core.Arrived(host, arrival.request_id, chunk, good))
        if good:
            self._neighbours.used(link)
            self.landed(1 << chunk)
        else:
            self._node.punish(link, PeerFault(f"chunk {chunk} with wrong bytes", reason="hash"))

    def _count(self, link: Link, nbytes: int) -> None:
        """Verified payload came over `link`, for the first time."""
        source = source_of(link.session.member, self._node.place)
        self._node.counters.received[source] += nbytes
        self.received[source] = self.received.get(source, 0) + nbytes
        self._bulk.received(nbytes)
        if self._node.is_proxy and not self.bulk:
            self._node.bulk.urgent_bytes()

    def asked(self, link: Link, bits: int) -> None:
        """A neighbour is being sent `bits`, which it asked for."""
        self._neighbours.used(link)
        self._audience.asked(link.session.member.host_id, bits)

    def sent(self, link: Link, bits: int, unsent: int) -> None:
        """That is over: `bits` went out, `unsent` did not."""
        self._audience.sent(link.session.member.host_id, bits, unsent)
        self.wake()

    def refused(self, link: Link, request_id: RequestId, *, gone: bool) -> None:
        self._asking.feed(core.Refused(link.session.member.host_id, request_id, gone))

    # --- ends -----------------------------------------------------------------------------------

    def fail(self, why: str) -> None:
        """Nothing more comes of this blob: its readers end short."""
        self.failure = why
        self._asking.stop()
        self._intake.store_in(None)
        logs.event(log, logging.WARNING, "blob.failed", digest=self.digest, reason=why)
        self._readers.end_short()
        self._neighbours.release()

    def disk_failed(self, error: StoreError) -> None:
        """The store cannot keep it: readers go on from outside of the swarm."""
        self.store_full = True
        logs.event(log, logging.ERROR, "store.failed", digest=self.digest, error=str(error))
        self._readers.look_again()

    def end(self) -> None:
        """Let go of everything; the blob stays in the store as it is."""
        self._ended = True
        self._inbox.end()
        if self._timer is not None:
            self._timer.cancel()
        self._neighbours.release()
        self._audience.end()
        self._node.forget_maps(self)
        self._map.release()
        self._neighbours.leave()

    # --- turns ----------------------------------------------------------------------------------

    def wake(self) -> None:
        """Plan and offer once for all that happens in this turn of the loop."""
        if not self._woken and not self._ended:
            self._woken = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._woken = False
        if self._ended:
            return
        self._asking.plan()
        self._audience.offer()
        self._set_timer()

    def _note(self) -> None:
        if self.blob is not None:
            held = len(self.blob.verified)
            self._node.tracker.note(digest_key(self.digest), held, self.complete)

    def _set_timer(self) -> None:
        deadlines = (self._audience.next_deadline_s(), self._asking.next_deadline_s())
        due = min((d for d in deadlines if d is not None), default=None)
        if due is None or self.failure is not None or self._ended:
            return
        if self._timer is None or self._timer.cancelled() or self._timer_s > due:
            if self._timer is not None:
                self._timer.cancel()
            # uvloop gives a plain handle, without a time, for a moment that has passed.
            self._timer_s = due
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._audience.offer()
        self._asking.handle_deadline()
        if (rival := self._map.stuck_rival(self.idle_s)) is not None:
            self._node.tasks.start(self._switch(rival), name=f"switch {self.digest[:19]}")
        self._set_timer()
