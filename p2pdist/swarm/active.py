"""One blob in motion: its core, the file behind it, and what comes in for it.

Chunks pass through the store's check. What follows from what happens the core decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from p2pdist.errors import BlobGone, ErrorReason, P2pdistError, StoreError
from p2pdist.exchange.link import Link
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import Digest, RequestId
from p2pdist.process import logs
from p2pdist.store.ports import StoredBlob
from p2pdist.swarm.blob_file import BlobFile
from p2pdist.swarm.bulk import paced
from p2pdist.swarm.chunks import BlobChunks
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.event_log import Kind
from p2pdist.swarm.core.host_orders import (
    Deliver,
    Fail,
    FollowMap,
    KeepRecords,
    LocalOrder,
    RemoveBlob,
    SyncBlob,
)
from p2pdist.swarm.core.requests import FetchCounters
from p2pdist.swarm.core.statements import Said
from p2pdist.swarm.intake import Arrival
from p2pdist.swarm.ports import NodePorts
from p2pdist.swarm.readers import BlobReaders

log = logging.getLogger(__name__)


class ActiveBlob:
    """Lives as long as anybody reads, fetches or asks for its digest; `end` gives all back."""

    def __init__(self, node: NodePorts, digest: Digest, size_bytes: int) -> None:
        self.digest = digest
        self.store_error: StoreError | None = None
        """Why what comes in passes through unstored."""
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._core = node.core.take_up(digest, size_bytes, self._now_s())
        self._file = BlobFile(node.store)
        self._settled = asyncio.Event()
        self._ended = False
        self.readers = BlobReaders(node, self._core)
        """What may go out, and what to wait on; to be one of them: `open_reader`."""
        self._chunks = BlobChunks(
            node,
            self._core,
            self._file,
            arrived=self._arrived,
            rotted=self._rotted,
            disk_failed=self.disk_failed,
        )

    def _now_s(self) -> float:
        return self._loop.time()

    def _happened(self) -> None:
        """The core heard of something."""
        self._node.carry_out()
        if self._core.settled:
            self._settled.set()

    # --- how it is ------------------------------------------------------------------------------

    @property
    def core(self) -> BlobCore:
        """What is decided of it, to be read."""
        return self._core

    @property
    def blob(self) -> StoredBlob | None:
        """Where its chunks lie."""
        return self._file.blob

    @property
    def map(self) -> ChunkMap | None:
        """The one that is followed."""
        return self._core.map

    @property
    def geometry(self) -> Geometry:
        """As a manifest claims it, until a signed head says how it is."""
        return self._core.geometry

    @property
    def failure(self) -> str | None:
        """Why nothing more will come of this blob; its readers end short."""
        return self._core.failure

    @property
    def refusal(self) -> ErrorReason | None:
        """What all registries that were to have it say, where that is why."""
        return self._core.refusal

    @property
    def complete(self) -> bool:
        return self._core.complete

    @property
    def in_use(self) -> bool:
        return self._core.in_use

    @property
    def member(self) -> bool:
        """Of its swarm."""
        return self._core.member

    @property
    def store_full(self) -> bool:
        """The disk refuses it: readers go on from outside of the swarm."""
        return self._core.unkept

    @property
    def unstored(self) -> bool:
        """The disk refused it and nobody reads it now: the next reader tries the disk again."""
        return self._core.unstored

    @property
    def wants_proxy(self) -> bool:
        """The proxy that owns it is to be asked, as soon as there is a link to it."""
        return self._core.wants_proxy

    @property
    def proxy_linked(self) -> bool:
        """A proxy is there that may bring what the swarm lacks."""
        return self._core.proxy_linked

    @property
    def idle_s(self) -> float:
        """Seconds since bytes of this blob came in, or since it was held back last."""
        return self._core.idle_s(self._now_s())

    @property
    def denied(self) -> bool:
        """Nothing is known of it but that a proxy was asked, and will not bring it."""
        return self._core.denied

    @property
    def unused_s(self) -> float:
        """Seconds since anybody opened or asked for it."""
        return self._core.wanting.unused_s(self._now_s())

    @property
    def prefix_chunks(self) -> int:
        """How many chunks from the first on lie here without a gap."""
        return self.blob.verified.first_missing() if self.blob is not None else 0

    @property
    def received(self) -> dict[str, int]:
        """Verified payload by source, for the pull's log line."""
        return self._chunks.received

    @property
    def counters(self) -> FetchCounters:
        return self._core.counters

    @property
    def proven_size_bytes(self) -> int | None:
        """How long the blob is, once a proxy's signature says so."""
        return self._core.proven_size_bytes

    # --- its log --------------------------------------------------------------------------------

    def note(self, kind: Kind, *, host: str = "", text: str = "", count: int = 1) -> None:
        """Keep in its log that this happened."""
        self._core.log.note(kind, self._now_s(), host=host, text=text, count=count)

    def turned_to(self, source: str, host: str = "") -> None:
        """Another source is tried; see `BlobLog.turned_to`."""
        self._core.log.turned_to(source, self._now_s(), host=host)

    def took(self, label: str, address: str, nbytes: int) -> None:
        """Payload came from outside of the swarm, from what `address` names."""
        self._core.log.received("", label, nbytes, self._now_s(), lambda: address)

    # --- readers --------------------------------------------------------------------------------

    def open_reader(self, *, demand: bool = False) -> int:
        """`demand`: it needs a part of the blob and nothing else, and tells which by `reader_at`;
        as long as all readers are such ones, nothing else is fetched."""
        reader = self._core.wanting.open_reader(self._now_s(), demand=demand)
        self._happened()
        return reader

    def reader_at(self, reader: int, offset: int, *, until: int | None = None) -> None:
        """`reader` waits for the byte at `offset`; `until`: where the part ends that it demands."""
        self._core.wanting.reader_at(reader, offset, self._now_s(), until=until)
        self._happened()

    def goes_out(self, reader: int, start: int, stop: int) -> None:
        """The bytes `start` to `stop` are on their way to `reader`."""
        self._core.wanting.goes_out(reader, start, stop, self._now_s())

    def close_reader(self, reader: int) -> None:
        self._core.close_reader(reader, self._now_s())
        self._happened()

    # --- bulk -----------------------------------------------------------------------------------

    @property
    def bulk(self) -> bool:
        """It is fetched ahead of need: whatever anybody waits for goes first."""
        return bool(self._core.bulk)

    @property
    def ordered(self) -> bool:
        """It is fetched also where nobody waits for it; as bulk then."""
        return self._core.bulk.ordered

    @property
    def ahead_bytes(self) -> int | None:
        """What a body from outside may send before it is read; None: as the kernel likes."""
        return self._core.bulk.ahead_bytes

    def order_bulk(self, budget: TokenBucket | None) -> None:
        """Fetch it as bulk whenever nobody waits for it; the last order's budget counts."""
        self._core.wanting.order_bulk(budget, self._now_s())
        self._happened()

    def end_bulk(self) -> None:
        """Nobody orders it any more: unless a reader has it open, nothing more is asked for."""
        self._core.end_bulk(self._now_s())
        self._happened()

    async def paced(self, nbytes: int) -> None:
        """Return when `nbytes` more may be taken from outside: at once unless it is bulk."""
        await paced(self._node, self._core.bulk, nbytes, held_back=self._held_back)

    def _held_back(self, for_s: float) -> None:
        self._core.log.held(for_s, self._now_s())
        self.working()

    # --- neighbours -----------------------------------------------------------------------------

    def join(self) -> None:
        """Become a member of the swarm, once; the node attaches whom the handout names."""
        self._core.join(self._now_s())
        self._happened()

    def ask_proxies(self) -> None:
        """A link to the proxy that owns it is wanted from now on."""
        self._core.ask_proxies()

    def attach(self, link: Link) -> None:
        """Ask `link` for this blob; asking again makes a proxy look for it again."""
        self._core.attach(self._node.links.state(link), self._now_s())
        self._happened()

    def asks(self, link: Link) -> bool:
        """We read the blob from `link`."""
        return self._core.asks(self._node.links.state(link))

    def withdraw(self) -> None:
        """Tell all who listen that nothing more is to be had here."""
        self._core.neighbours.withdraw()
        self._happened()

    # --- what goes out --------------------------------------------------------------------------

    def refers(self, link: Link, bits: int) -> bool:
        """`link` is to get elsewhere what it asks for."""
        return self._core.refers(self._node.links.state(link), bits, self._now_s())

    def asked(self, link: Link, bits: int) -> None:
        """`link` is being sent `bits`, which it asked for."""
        self._core.neighbours.asked(self._node.links.state(link), bits, self._now_s())
        self._happened()

    def sent(self, link: Link, bits: int, unsent: int) -> None:
        """That is over: `bits` went out, `unsent` did not."""
        self._core.neighbours.sent(self._node.links.state(link), bits, unsent, self._now_s())
        self._happened()

    # --- statements and offers ------------------------------------------------------------------

    def hear(self, link: Link | None, said: Said, record: bytes = b"") -> None:
        """Take in what `link` said (None: our own ingest), in its order."""
        state = self._node.links.state(link) if link is not None else None
        self._core.hear(state, said, self._now_s(), record)
        self._happened()

    async def settle(self) -> None:
        """Return when all that was heard so far has been taken in."""
        while not self._core.settled and not self._ended:
            self._settled.clear()
            await self._settled.wait()

    # --- its map --------------------------------------------------------------------------------

    async def adopt(self, chunk_map: ChunkMap) -> None:
        """Work under `chunk_map` from now on; chunks whose hash it confirms stay. Raises
        StoreError."""
        if (blob := await self._file.adopt(chunk_map)) is not None:
            self.start_with(blob)

    def start_with(self, blob: StoredBlob) -> None:
        """Serve and complete `blob`, which the caller holds for us."""
        self._file.start_with(blob)
        self._chunks.store_in(blob)
        self._core.map_followed(blob.chunk_map, blob.verified.bits, self._now_s())
        self._happened()

    def keys_changed(self, knows: Callable[[bytes], bool]) -> None:
        """Other keys are believed: see `BlobCore.keys_changed`."""
        self._core.keys_changed(knows)
        self._happened()

    async def _follow(self, order: FollowMap) -> None:
        try:
            await self.adopt(order.chunk_map)
        except P2pdistError as error:
            if self._ended:
                return  # another motion of the blob may have begun, and this is nothing to it
            if isinstance(error, StoreError) and not order.rival:
                self.disk_failed(error)
            else:
                text = str(error)
                logs.event(log, logging.WARNING, "map.refused", digest=self.digest, error=text)
            self._core.not_taken(self._now_s())
            self._happened()

    async def _keep(self, records: Sequence[bytes]) -> None:
        refused: StoreError | None = None
        try:
            await self._file.keep(records)
        except StoreError as error:
            refused = error
        if self._ended:
            return
        if refused is not None:
            self.disk_failed(refused)
            self._core.not_taken(self._now_s())
        else:
            held = self.blob.verified.bits if self.blob is not None else 0
            self._core.records_kept(held, self._now_s())
        self._happened()

    def doubt(self) -> None:
        """What begins with these chunks did not have the digest in the end."""
        self._core.doubt(self._now_s())
        self._happened()

    # --- chunks ---------------------------------------------------------------------------------

    def arrived(self, link: Link, request_id: RequestId, chunk: int, data: bytearray) -> None:
        """A chunk came in answer to a request, unchecked."""
        self._chunks.take(Arrival(link, request_id, chunk, data))

    def _arrived(self, arrival: Arrival, good: bool) -> None:
        state, now_s = self._node.links.state(arrival.link), self._now_s()
        self._core.arrived(state, arrival.request_id, arrival.chunk, now_s, good=good)
        self._happened()

    def landed(self, bits: int) -> None:
        """Chunks are on disk; those that the map vouches for are offered and delivered."""
        if self.blob is not None:
            self._core.landed(bits, self._now_s())
            self._happened()

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
        self._core.lost(bits, self._now_s())
        self._happened()

    def working(self) -> None:
        """Bytes come in from outside; said to all readers, so that they wait for them."""
        self._core.working(self._now_s())
        self._happened()

    # --- orders ---------------------------------------------------------------------------------

    def carry_out(self, order: LocalOrder) -> None:
        """Do what the core orders of this host."""
        match order:
            case Deliver(bits=bits):
                self.readers.wake(bits)
            case Fail(reason=why):
                self._chunks.store_in(None)
                logs.event(log, logging.WARNING, "blob.failed", digest=self.digest, reason=why)
            case FollowMap():
                self._node.tasks.start(self._follow(order), name=f"follow {self.digest[:19]}")
            case KeepRecords(records=records):
                self._node.tasks.start(self._keep(records), name=f"keep {self.digest[:19]}")
            case SyncBlob():
                self._chunks.sync_soon()
            case RemoveBlob(digest):
                self._node.tasks.start(self._node.store.remove(digest), name="remove lost blob")

    # --- ends -----------------------------------------------------------------------------------

    def fail(self, why: str, refusal: ErrorReason | None = None) -> None:
        """Nothing more comes of this blob: its readers end short."""
        self._core.fail(why, self._now_s(), refusal)
        self._happened()

    def disk_failed(self, error: StoreError) -> None:
        """The store cannot keep it: readers go on from outside of the swarm."""
        self.store_error = error
        logs.event(log, logging.ERROR, "store.failed", digest=self.digest, error=str(error))
        self.note(Kind.UNKEPT, text=str(error))
        self._core.disk_failed()
        if isinstance(error, BlobGone):  # whoever takes it up next fetches it anew
            self._core.lost_all()
        self._happened()

    def end(self) -> None:
        """Let go of everything; the blob stays in the store as it is."""
        self._ended = True
        self._settled.set()
        self._node.core.let_go(self._core, self._now_s())
        self._node.carry_out()
        self._file.release()
