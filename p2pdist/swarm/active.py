"""One blob that this host reads, serves or fetches: its map, readers, neighbours and chunks.

All that is said about a blob passes through one bounded inbox, in order, because a head may have to
wait for the disk; chunks pass through the store's check. Here the parts meet: what one of them
hears of is told to the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from p2pdist.errors import BlobGone, ErrorReason, P2pdistError, StoreError
from p2pdist.exchange.frames import Interest, Offer, Retract
from p2pdist.exchange.link import Link
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import Digest
from p2pdist.model.statements import HashBatch, Seal
from p2pdist.process import logs
from p2pdist.store.blob import Blob
from p2pdist.swarm.blob_map import BlobMap, MapStatement
from p2pdist.swarm.bulk import BlobBulk
from p2pdist.swarm.chunks import BlobChunks
from p2pdist.swarm.core import fetch as core
from p2pdist.swarm.core.progress import Progress
from p2pdist.swarm.core.scope import Scope
from p2pdist.swarm.inbox import Heard, Inbox
from p2pdist.swarm.intake import Arrival
from p2pdist.swarm.neighbours import BlobNeighbours
from p2pdist.swarm.ports import NodePorts
from p2pdist.swarm.readers import BlobReaders
from p2pdist.swarm.turn import Turn

log = logging.getLogger(__name__)


class ActiveBlob:
    """Lives as long as anybody reads, fetches or asks for its digest; `end` gives all back."""

    def __init__(self, node: NodePorts, digest: Digest, size_bytes: int) -> None:
        self.digest = digest
        self.failure: str | None = None
        """Why nothing more will come of this blob; its readers end short."""
        self.refusal: ErrorReason | None = None
        """What all registries that were to have it say, where that is why."""
        self.store_error: StoreError | None = None
        """Why what comes in passes through unstored."""
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._map = BlobMap(node.store, size_bytes, self)
        self._turn = Turn(self._act, self._on_timer)
        self._bulk = BlobBulk(node.bulk)
        self.readers = BlobReaders(self._map, node.bulk)
        """What may go out to them, and what to wait on; to be one of them: `open_reader`."""
        self._scope = Scope()
        if node.is_proxy:
            self._scope.all_wanted()
        self._chunks = BlobChunks(
            node,
            digest,
            self._map,
            self._bulk,
            arrived=self._arrived,
            rotted=self._rotted,
            disk_failed=self.disk_failed,
        )
        self.neighbours = BlobNeighbours(
            node,
            digest,
            self._bulk,
            chunk_size_bytes=self.geometry.chunk_size_bytes,
            take=self._chunks.take,
            weigh=self._weigh,
            wake=self._turn.wake,
        )
        self._asking, self._audience = self.neighbours.asking, self.neighbours.audience
        self._inbox = Inbox(
            node.tasks,
            digest,
            take=self._take,
            take_offer=self._take_offer,
            punish=node.punish,
            disk_failed=self.disk_failed,
            configured=node.configured_proxy,
        )
        self._halted = False
        self._used_s = self._loop.time()
        self._progress = Progress(self._used_s)

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
        listened_to = bool(self.readers) or bool(self._audience)
        over = self.complete or self.failure or self.unstored or self._halted
        return listened_to or not (over or self._at_rest)

    @property
    def _at_rest(self) -> bool:
        """Nobody here ever wanted it in this motion: it lies here and goes out to others."""
        return not self.neighbours.member and not self._node.is_proxy

    @property
    def store_full(self) -> bool:
        """The disk refuses it: readers go on from outside of the swarm."""
        return self.store_error is not None

    @property
    def unstored(self) -> bool:
        """The disk refused it and nobody reads it now: the next reader tries the disk again."""
        return self.store_full and not self.readers

    @property
    def wants_proxy(self) -> bool:
        """The proxy that owns it is to be asked, as soon as there is a link to it."""
        lacking = self.neighbours.member and not self.complete and self.failure is None
        return lacking and self.neighbours.asks_proxies

    @property
    def idle_s(self) -> float:
        """Seconds since bytes of this blob came in, or since it was held back last."""
        now_s = self._loop.time()
        held_at_s = self._asking.held_at_s or 0.0
        return min(self._progress.idle_s(now_s), now_s - held_at_s)

    @property
    def denied(self) -> bool:
        """Nothing is known of it but that a proxy was asked, and will not bring it."""
        return self._progress.denied and self.map is None

    @property
    def unused_s(self) -> float:
        """Seconds since anybody opened or asked for it."""
        return self._loop.time() - self._used_s

    @property
    def prefix_chunks(self) -> int:
        """How many chunks from the first on are there without a gap."""
        return self._map.prefix_chunks

    @property
    def received(self) -> dict[str, int]:
        """Verified payload by source, for the pull's log line."""
        return self._chunks.received

    @property
    def proven_size_bytes(self) -> int | None:
        """How long the blob is, once a proxy's signature says so."""
        return self.geometry.size_bytes if self.map is not None else None

    # --- readers --------------------------------------------------------------------------------

    def open_reader(self, *, demand: bool = False) -> int:
        """`demand`: it needs a part of the blob and nothing else, and tells which by `reader_at`;
        as long as all readers are such ones, nothing else is fetched."""
        reader = self.readers.open()
        self.reader_at(reader, 0, until=0 if demand else None)
        return reader

    def reader_at(self, reader: int, offset: int, *, until: int | None = None) -> None:
        """Tell the picker which byte `reader` waits for; `until`: where the part ends that it
        demands."""
        self._used_s = self._loop.time()
        self.readers.moved(reader, offset, until)
        if until is None:
            self._scope.all_wanted()
        else:
            self._scope.part_wanted()
        self._weigh()
        self._asking.feed(self.readers.place(reader))

    def close_reader(self, reader: int) -> None:
        if self.readers.close(reader):
            self._asking.feed(core.ReaderLeft(reader))
            if not self.readers:
                self._scope.unread(self._loop.time())
                self._turn.wake()  # for the time of its rest
            self._weigh()

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
        self._scope.all_wanted()
        self._weigh()

    def end_bulk(self) -> None:
        """Nobody orders it any more: unless a reader has it open, nothing more is asked for.

        A proxy finishes what it began, because its neighbours may want it by now.
        """
        self._bulk.ordered = False
        if not (self.readers.ordinary or self.complete or self._node.is_proxy):
            self._scope.order_ended()
            if not self.readers:
                self._rest()
        self._weigh()

    def _rest(self) -> None:
        """Ask for nothing more. What came stays, is served to whoever asks, and is where the next
        reader goes on from."""
        self._halted = True
        self._asking.feed(core.Halted())
        self.neighbours.release()
        self.neighbours.leave()

    def make_room(self) -> None:
        """A reader waits for some blob of this node."""
        if self.bulk:
            self._asking.feed(core.GateShut())

    async def paced(self, nbytes: int) -> None:
        """Return when `nbytes` more may be taken from outside: at once unless it is bulk."""
        await self._bulk.take(nbytes, held_back=self.working)

    def _weigh(self) -> None:
        """Be bulk or not, and wanted whole or in part, as readers and neighbours come and go."""
        said = self.bulk, self._asking.demand
        waited_for = bool(self.readers) or (self._node.is_proxy and self._audience.urgent)
        if self._bulk.weigh(waited_for=waited_for):
            self._asking.feed(core.PaceSet(self._bulk.pace))
        if self._asking.demand is self._scope.whole:
            self._asking.demand = not self._scope.whole
            self._asking.feed(core.WholeWanted(self._scope.whole))
        if (self.bulk, self._asking.demand) != said:
            self._asking.say_interest_to_all()

    # --- neighbours -----------------------------------------------------------------------------

    def join(self) -> None:
        """Become a member of the swarm, once; the node attaches whom the handout names."""
        self._halted = False
        if not self.neighbours.member:
            self.neighbours.join()
            for link in self._audience.links():  # they wanted it while nobody here did
                self.attach(link)

    def attach(self, link: Link) -> None:
        """Ask `link` for this blob; asking again makes a proxy look for it again."""
        if self.complete or self.failure is not None or self._halted or link.closed:
            return
        if self._node.configured_proxy(link):
            self._progress.denied = False
        self.neighbours.attach(link)

    def hear_interest(self, link: Link, interest: Interest) -> None:
        """`link` wants this blob: tell what we know and hold, and ask back if we lack some."""
        self._used_s = self._loop.time()
        admitted = self.neighbours.hear_interest(link, interest)
        lacking = not self.complete and not self._at_rest
        if admitted and lacking and not self._asking.knows(link):
            self.attach(link)

    # --- statements and offers ------------------------------------------------------------------

    def hear(self, link: Link | None, statement: Heard, record: bytes = b"") -> None:
        """Take in what `link` said (None: our own ingest), in its order."""
        self._inbox.hear(link, statement, record)

    async def settle(self) -> None:
        """Return when all that was heard so far has been taken in."""
        await self._inbox.settle()

    async def _take(self, link: Link | None, statement: MapStatement, record: bytes) -> None:
        about_ours = isinstance(statement, HashBatch | Seal) and self._map.follows(statement.map_id)
        if link is not None and about_ours:
            self._audience.hears_the_map(link)
        await self._map.take(statement, record)

    def _take_offer(self, link: Link, offer: Offer | Retract) -> None:
        host = link.session.member.host_id
        if isinstance(offer, Retract):
            self._audience.host_retracted(host)
            self._asking.feed(core.Retracted(host))
            if self._node.configured_proxy(link):
                self._progress.denied = True
                self.readers.look_again()
        elif (bits := self._map.bits_of(offer)) is not None:
            self._audience.host_holds(link, bits)
            self._asking.feed(core.Offered(host, bits))
        self._turn.wake()

    # --- its map --------------------------------------------------------------------------------

    async def adopt(self, chunk_map: ChunkMap) -> None:
        """Work under `chunk_map` from now on; chunks whose hash it confirms stay."""
        await self._map.adopt(chunk_map)

    def start_with(self, blob: Blob) -> None:
        """Serve and complete `blob`, which the caller holds for us."""
        self._map.start_with(blob)

    def map_followed(self, blob: Blob, *, recut: bool) -> None:
        if recut:
            self.readers.look_again()  # they wait for chunks of another cut
        self._chunks.store_in(blob)
        self._node.route_map(blob.chunk_map.map_id, self)
        self._asking.start(blob.chunk_map, blob.verified.bits)
        self._asking.feed(core.PaceSet(self._bulk.pace))
        self._asking.feed(core.WholeWanted(self._scope.whole))
        for place in self.readers.places():
            self._asking.feed(place)
        self._audience.follow(blob.chunk_map)
        self.landed(blob.verified.bits)

    def map_grew(self, record: bytes, bits: int) -> None:
        self._progress.came(self._loop.time())
        self._audience.relay(record, bits)
        self._asking.feed(core.HashesKnown(bits))
        if self.blob is not None:
            self.landed(self.blob.verified.bits & bits)

    def map_sealed(self, record: bytes) -> None:
        self._progress.came(self._loop.time())
        self._audience.tell(record)
        self.neighbours.note(self.blob)
        self.readers.look_again()
        self._audience.hold(0, whole=self.complete)
        self._turn.wake()
        if self.complete:  # the seal came after the last chunk
            self.neighbours.release()

    def map_revoked(self, record: bytes) -> None:
        self._node.counters.revocations += 1
        self._audience.tell(record)
        self.fail("its map was revoked: the upstream's bytes did not have the digest")
        self.neighbours.take_back()

    def doubt(self) -> None:
        """What begins with these chunks did not have the digest in the end.

        An open map may be one that was revoked long ago, and is said again to who did not hear of
        that: it and its chunks go, or every pull would begin with them. A sealed one is right.
        """
        if self.map is None or self.map.sealed or self.failure is not None:
            return
        self.fail("it did not go on to its digest, and its map is not sealed")
        self.neighbours.take_back()
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
        self._progress.came(self._loop.time())
        self._asking.feed(core.Landed(vouched))
        self._audience.hold(vouched, whole=self.complete)
        self._turn.wake()
        self.readers.landed(vouched)
        self.neighbours.note(self.blob)
        if self.complete:
            self.neighbours.release()
            self._chunks.sync_soon()

    async def checked(self, start: int, stop: int) -> bool:
        """Bytes `start` to `stop` may go out; False: some had rotted and are wanted again."""
        return await self._chunks.checked(start, stop)

    async def rehashed(self, start: int, stop: int) -> None:
        """Who read these bytes says that they were wrong: what is, is wanted again. Raises
        StoreError."""
        await self._chunks.rehashed(start, stop)

    def lost(self, chunks: Sequence[int]) -> None:
        """These chunks rotted on disk: nobody gets them from here until they came anew."""
        self._chunks.lost(chunks)

    def _rotted(self, bits: int) -> None:
        self._asking.feed(core.Lost(bits))
        self.neighbours.note(self.blob)

    def working(self) -> None:
        """Bytes come in from outside; said to all readers, so that they wait for them."""
        self._progress.came(self._loop.time())
        self._audience.working()

    def hear_working(self) -> None:
        """A proxy says that it is being brought in."""
        if self._progress.said(self._loop.time()):
            self._audience.pass_on_working()

    def _arrived(self, arrival: Arrival, good: bool) -> None:
        self._asking.checked(arrival, good)
        if good:
            self.neighbours.used(arrival.link)
            self.landed(1 << arrival.chunk)

    # --- ends -----------------------------------------------------------------------------------

    def fail(self, why: str, refusal: ErrorReason | None = None) -> None:
        """Nothing more comes of this blob: its readers end short."""
        self.failure, self.refusal = why, refusal
        self._asking.stop()
        self._chunks.store_in(None)
        logs.event(log, logging.WARNING, "blob.failed", digest=self.digest, reason=why)
        self.readers.end_short()
        if refusal is not None:  # who waits for it here may as well ask elsewhere
            self.neighbours.withdraw()
        self.neighbours.release()

    def disk_failed(self, error: StoreError) -> None:
        """The store cannot keep it: readers go on from outside of the swarm."""
        self.store_error = error
        logs.event(log, logging.ERROR, "store.failed", digest=self.digest, error=str(error))
        self.readers.look_again()
        if isinstance(error, BlobGone):  # whoever takes it up next fetches it anew
            self.neighbours.take_back()
            self._node.tasks.start(self._node.store.remove(self.digest), name="remove lost blob")

    def end(self) -> None:
        """Let go of everything; the blob stays in the store as it is."""
        self._turn.end()
        self._inbox.end()
        self.neighbours.release()
        self._audience.end()
        self._node.forget_maps(self)
        self._map.release()
        self.neighbours.leave()

    # --- turns ----------------------------------------------------------------------------------

    def _act(self) -> None:
        """Plan and offer once for all that happened in this turn of the loop."""
        self._asking.plan()
        self._audience.offer()
        self._set_timer()

    def _on_timer(self) -> None:
        self._audience.offer()
        self._asking.handle_deadline()
        if self._scope.rest_due(self._loop.time()) and not self.complete:
            self._rest()
        if (rival := self._map.stuck_rival(self.idle_s)) is not None:
            self._node.tasks.start(self._switch(rival), name=f"switch {self.digest[:19]}")
        self._set_timer()

    def _set_timer(self) -> None:
        deadlines = (
            self._audience.next_deadline_s(),
            self._asking.next_deadline_s(),
            self._scope.rests_at_s,
        )
        due_s = min((d for d in deadlines if d is not None), default=None)
        if due_s is not None and self.failure is None:
            self._turn.at_latest(due_s)
