"""One blob that this host reads, serves or fetches: its map, readers, neighbours and chunks.

Here the parts meet: what one of them hears of is told to the others. Events come as calls; what is
to be done is added to the host's orders. What there is to ask and to offer gathers until `act`,
which the host calls once for all that happens at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from p2pdist.errors import ErrorReason, PeerFault
from p2pdist.exchange.frames import Interest, Offer
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.deadlines import soonest
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import Digest, HostId, RequestId
from p2pdist.swarm.core import fetch
from p2pdist.swarm.core.blob_bulk import BlobBulk
from p2pdist.swarm.core.event_log import Kind, Lack
from p2pdist.swarm.core.holding import Holding
from p2pdist.swarm.core.host_orders import Deliver, Fail, RemoveBlob, SyncBlob
from p2pdist.swarm.core.host_ports import HostPorts
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.lookout import Lookout
from p2pdist.swarm.core.neighbours import BlobNeighbours
from p2pdist.swarm.core.noting import lack, note_chunk, note_map
from p2pdist.swarm.core.progress import Progress
from p2pdist.swarm.core.requests import FetchCounters
from p2pdist.swarm.core.statements import Said, Statements
from p2pdist.swarm.core.wanting import Wanting


class BlobCore:
    """Pure: time enters as monotonic `now_s`, chance through the host's `rng`."""

    _wanting_type = Wanting

    def __init__(self, host: HostPorts, digest: Digest, size_bytes: int, now_s: float) -> None:
        """`size_bytes`: as a manifest claims it."""
        self.digest = digest
        self._holding = Holding(size_bytes)
        self.failure: str | None = None
        """Why nothing more will come of this blob; its readers end short."""
        self.refusal: ErrorReason | None = None
        """What all registries that were to have it say, where that is why."""
        self.unkept = False
        """The store refused it: what comes in passes through, and readers go on from outside."""
        self.due_s = math.inf
        """When the host is to look at it again."""
        self.log = host.events.begin(digest, size_bytes, now_s)
        """What happened to it."""
        self._statements = Statements(host, digest, self)
        self._host = host
        self._bulk = BlobBulk(host.bulk)
        self._neighbours = BlobNeighbours(
            host,
            digest,
            self._bulk,
            self.log,
            chunk_size_bytes=self.geometry.chunk_size_bytes,
            weigh=lambda now_s: self.wanting.weigh(now_s),
            wake=self._wake,
        )
        self._asking, self._audience = self._neighbours.asking, self._neighbours.audience
        parts = host, self._bulk, self._neighbours, self.log
        chunk_at = self._holding.chunk_at
        self.wanting = self._wanting_type(*parts, chunk_at=chunk_at, now_s=now_s)
        """Who reads it here, and the orders to have it."""
        self._progress = Progress(now_s)
        self._lookout = Lookout(host.rng)

    def _wake(self) -> None:
        self._host.wake(self.digest)

    # --- how it is ------------------------------------------------------------------------------

    @property
    def geometry(self) -> Geometry:
        """As a manifest claims it, until a signed head says how it is."""
        return self._holding.geometry

    @property
    def map(self) -> ChunkMap | None:
        """The one that is followed."""
        return self._holding.map

    @property
    def held(self) -> int:
        """The chunks that lie here and that the map vouches for."""
        return self._holding.bits

    @property
    def settled(self) -> bool:
        """All that was said of it has been taken in."""
        return self._statements.settled

    @property
    def complete(self) -> bool:
        """All chunks are here and the map is sealed."""
        return self._holding.whole

    @property
    def in_use(self) -> bool:
        """It is read, listened to or fetched."""
        listened_to = bool(self.wanting.readers) or bool(self._audience)
        over = self.complete or self.failure or self.unstored or self.wanting.halted
        return listened_to or not (over or self._at_rest)

    @property
    def _at_rest(self) -> bool:
        """Nobody here ever wanted it in this motion: it lies here and goes out to others."""
        return not self.member and not self._host.is_proxy

    @property
    def unstored(self) -> bool:
        """The disk refused it and nobody reads it now: the next reader tries the disk again."""
        return self.unkept and not self.wanting.readers

    @property
    def member(self) -> bool:
        """Of its swarm, as the tracker was told."""
        return self._neighbours.member

    @property
    def wants_proxy(self) -> bool:
        """The proxy that owns it is to be asked, as soon as there is a link to it."""
        lacking = self.member and not self.complete and self.failure is None
        return lacking and self._neighbours.asks_proxies

    @property
    def proxy_linked(self) -> bool:
        """A proxy is there that may bring what the swarm lacks."""
        return self._asking.proxy_linked

    @property
    def denied(self) -> bool:
        """Nothing is known of it but that a proxy was asked, and will not bring it."""
        return self._progress.denied and self.map is None

    @property
    def counters(self) -> FetchCounters:
        return self._asking.counters

    @property
    def proven_size_bytes(self) -> int | None:
        """How long the blob is, once a proxy's signature says so."""
        return self._holding.proven_size_bytes

    def idle_s(self, now_s: float) -> float:
        """Seconds since bytes of this blob came in, or since it was held back last."""
        held_at_s = self._asking.held_at_s or 0.0
        return min(self._progress.idle_s(now_s), now_s - held_at_s)

    def deliverable_end(self, offset: int, *, to_end: bool = True) -> int:
        """The end of the bytes that may go out from `offset` on; `offset` itself if none may.

        `to_end`: the body is read to the end of the blob (see `delivery`).
        """
        if self.failure is not None:
            return offset
        return self._holding.deliverable_end(offset, to_end=to_end)

    # --- readers and bulk -----------------------------------------------------------------------

    @property
    def bulk(self) -> BlobBulk:
        """True while it is fetched ahead of need: whatever anybody waits for goes first."""
        return self._bulk

    def close_reader(self, reader: int, now_s: float) -> None:
        """It reads no more."""
        if self.wanting.close_reader(reader, now_s):
            self._wake()  # for the time of its rest

    def end_bulk(self, now_s: float) -> None:
        """Nobody orders it any more."""
        self.wanting.end_bulk(now_s, complete=self.complete)

    def make_room(self, now_s: float) -> None:
        """A reader waits for some blob of this host."""
        if self._bulk:
            self._asking.feed(fetch.GateShut(), now_s)

    # --- neighbours -----------------------------------------------------------------------------

    def join(self, now_s: float) -> None:
        """Become a member of the swarm, once; the host attaches whom the handout names."""
        self.wanting.halted = False
        if not self.member:
            self._neighbours.join(now_s)
            self._lookout.began(now_s)
            self._wake()  # for the time of that
            self.log.note(Kind.JOINED, now_s)
            if not self.complete:
                self.log.sought(now_s)
            for link in self._audience.links():  # they wanted it while nobody here did
                self.attach(link, now_s)

    def ask_proxies(self) -> None:
        """A link to the proxy that owns it is wanted from now on."""
        self._neighbours.asks_proxies = True

    def attach(self, link: LinkState, now_s: float) -> None:
        """Ask `link` for this blob; asking again makes a proxy look for it again."""
        if self.complete or self.failure is not None or self.wanting.halted or link.closed:
            return
        if self._host.configured_proxy(link):
            self._progress.denied = False
        self._neighbours.attach(link, now_s)

    @property
    def neighbours(self) -> BlobNeighbours:
        """With whom it is exchanged."""
        return self._neighbours

    def asks(self, link: LinkState) -> bool:
        """We read the blob from `link`."""
        return self._asking.asks(link)

    def asks_host(self, host: HostId) -> bool:
        return self._asking.asks_host(host)

    def wishes(self) -> dict[HostId, Interest]:
        """What those who listen would have to say again to somebody who knows none of them."""
        return self._audience.wishes()

    def hear_interest(self, link: LinkState, interest: Interest, now_s: float) -> None:
        """`link` wants this blob: tell what we know and hold, and ask back if we lack some."""
        self.wanting.used(now_s)
        self.log.note(Kind.WANTED_BY, now_s)
        admitted = self._neighbours.hear_interest(link, interest, now_s)
        lacking = not self.complete and not self._at_rest
        if admitted and lacking and not self._asking.knows(link):
            self.attach(link, now_s)

    def link_down(self, link: LinkState, now_s: float, *, gone: bool) -> None:
        """`gone`: for all we know its host is, too; else the link alone ended, of no use."""
        self._neighbours.link_down(link, now_s, gone=gone)

    # --- what goes out --------------------------------------------------------------------------

    def refers(self, link: LinkState, bits: int, now_s: float) -> bool:
        """`link` is to get elsewhere what it asks for."""
        return self._audience.refers(link.host_id, bits, now_s)

    # --- what is said ---------------------------------------------------------------------------

    def hear(self, link: LinkState | None, said: Said, now_s: float, record: bytes = b"") -> None:
        """Take in what `link` said (None: our own ingest), in its order."""
        self._statements.hear(link, said, record, now_s)

    def take_offer(self, link: LinkState, offer: Offer, now_s: float) -> None:
        bits = self._holding.offered(offer)
        if not bits:
            return  # about another map
        self._asking.feed(fetch.Offered(link.host_id, bits), now_s)
        if self._audience.host_holds(link, bits, now_s):
            self._wake()

    def take_retract(self, link: LinkState, now_s: float) -> None:
        self.log.note(Kind.RETRACTED, now_s, host=link.host_id)
        self._audience.host_retracted(link.host_id, now_s)
        self._asking.feed(fetch.Retracted(link.host_id), now_s)
        if self._host.configured_proxy(link):
            self._progress.denied = True
            self._deliver(None)
        self._wake()

    def hear_working(self, now_s: float) -> None:
        """A proxy says that it is being brought in."""
        self.log.note(Kind.COMING, now_s)
        if self._progress.said(now_s):
            self._audience.pass_on_working()

    def working(self, now_s: float) -> None:
        """Bytes come in from outside; said to all readers, so that they wait for them."""
        self._came(now_s)
        self._audience.working(now_s)

    # --- its map --------------------------------------------------------------------------------

    def hears_the_map(self, link: LinkState) -> None:
        self._audience.hears_the_map(link)

    def map_followed(self, chunk_map: ChunkMap, held: int, now_s: float) -> None:
        """Another map, or the first; `held` of its chunks lie here."""
        self._came(now_s)
        switched = self._statements.followed(chunk_map)
        recut = self._holding.follow(chunk_map)
        note_map(self.log, chunk_map, held, now_s, switched=switched)
        self._host.route_map(chunk_map.map_id, self.digest)
        if recut:
            self._deliver(None)  # they wait for chunks of another cut
        self._asking.start(chunk_map, held, now_s)
        self.wanting.tell_all(now_s)
        self._audience.follow(chunk_map, now_s)
        self.landed(held, now_s)
        if switched:  # neighbours may know more of it
            self._asking.ask_anew()
        self._statements.go_on(now_s)

    def records_kept(self, held: int, now_s: float) -> None:
        """What its map took in is on disk; `held` of its chunks lie here."""
        self._statements.kept(held, now_s)

    def keys_changed(self, knows: Callable[[bytes], bool]) -> None:
        """Other keys are believed: those of which `knows`, given their ids, is true."""
        self._statements.keys_changed(knows)

    def tells(self, link: LinkState) -> bool:
        """`link` is told of it, if it asks. Not where the map was signed by a key that is not
        believed any more: to who begins now that is a stranger's."""
        return not self._statements.disbelieved or link.host_id in self.wishes()

    def not_taken(self, now_s: float) -> None:
        """The disk did not follow a map, or keep records, as it was ordered to."""
        self.log.note(Kind.MAP_REFUSED, now_s)
        self._statements.not_taken(now_s)

    def map_grew(self, record: bytes, bits: int, held: int, now_s: float) -> None:
        self._came(now_s)
        self._audience.relay(record, bits, now_s)
        self._asking.feed(fetch.HashesKnown(bits), now_s)
        self.landed(held & bits, now_s)

    def map_sealed(self, record: bytes, now_s: float) -> None:
        self._came(now_s)
        self.log.note(Kind.SEALED, now_s)
        self._audience.tell(record)
        self._note()
        self._deliver(None)
        self._audience.hold(0, now_s, whole=self.complete)
        self._wake()
        if self.complete:  # the seal came after the last chunk
            self.log.end(Kind.WHOLE, now_s)
            self._neighbours.release(now_s)

    def map_revoked(self, record: bytes, now_s: float) -> None:
        self._host.revocations += 1
        self.log.note(Kind.REVOKED, now_s)
        self._audience.tell(record)
        self.fail("its map was revoked: the upstream's bytes did not have the digest", now_s)
        self._neighbours.take_back()

    def doubt(self, now_s: float) -> None:
        """What begins with these chunks did not have the digest in the end.

        An open map may be one that was revoked long ago, and is said again to who did not hear of
        that: it and its chunks go, or every pull would begin with them. A sealed one is right.
        """
        if self.map is None or self.map.sealed or self.failure is not None:
            return
        self.fail("it did not go on to its digest, and its map is not sealed", now_s)
        self.lost_all()

    # --- chunks ---------------------------------------------------------------------------------

    def landed(self, bits: int, now_s: float) -> None:
        """Chunks are on disk; those that the map vouches for are offered and delivered."""
        if vouched := self._holding.take(bits):
            self._came(now_s)
            self._asking.feed(fetch.Landed(vouched), now_s)
            self._spread(vouched, now_s)

    def _spread(self, vouched: int, now_s: float) -> None:
        self._audience.hold(vouched, now_s, whole=self.complete)
        self._wake()
        self._deliver(vouched)
        self._note()
        if self.complete:
            self.log.end(Kind.WHOLE, now_s)
            self._neighbours.release(now_s)
            self._host.orders.append(SyncBlob(self.digest))

    def arrived(
        self, link: LinkState, request_id: RequestId, chunk: int, now_s: float, *, good: bool
    ) -> None:
        """A chunk that was asked for came and was checked; `good`: it is on disk."""
        link.hear(now_s)
        if self._holding.lacks(chunk):
            self._came(now_s)
            nbytes = self.geometry.length(chunk)
            note_chunk(self.log, link.member, self._host.place, nbytes, now_s, good=good)
        answer = fetch.Arrived(link.host_id, request_id, chunk, good)
        self._asking.feed(answer, now_s)
        if good:
            self._neighbours.used(link, now_s)
            if vouched := self._holding.take(1 << chunk):
                self._spread(vouched, now_s)
        else:
            fault = PeerFault(f"chunk {chunk} with wrong bytes", reason="hash")
            self._host.punish(link, fault, now_s)

    def refused(self, link: LinkState, request_id: RequestId, now_s: float, *, gone: bool) -> None:
        """`link` will not bring a run; `gone`: it has it no more."""
        text = "gone" if gone else "busy"
        self.log.note(Kind.REFUSED, now_s, host=link.host_id, text=text)
        self._asking.feed(fetch.Refused(link.host_id, request_id, gone), now_s)

    def lost(self, bits: int, now_s: float) -> None:
        """These chunks rotted on disk: nobody gets them from here until they came anew."""
        self._holding.lose(bits)
        self.log.note(Kind.ROTTED, now_s, count=bits.bit_count())
        if self.member:
            self.log.sought(now_s)
        self._asking.feed(fetch.Lost(bits), now_s)
        self._audience.lost(bits, now_s)
        self._wake()
        self._note()

    def lost_all(self) -> None:
        """Nothing that lies here of it is to be trusted, or all of it is gone."""
        self._neighbours.take_back()
        self._host.orders.append(RemoveBlob(self.digest))

    def disk_failed(self) -> None:
        """The store cannot keep it: readers go on from outside of the swarm."""
        self.unkept = True
        self._deliver(None)

    # --- ends -----------------------------------------------------------------------------------

    def fail(self, why: str, now_s: float, refusal: ErrorReason | None = None) -> None:
        """Nothing more comes of this blob: its readers end short."""
        self.failure, self.refusal = why, refusal
        self.log.end(Kind.FAILED, now_s, why)
        self._asking.stop(now_s)
        self._host.orders.append(Fail(self.digest, why))
        self._deliver(None)
        if refusal is not None:  # who waits for it here may as well ask elsewhere
            self._neighbours.withdraw()
        self._neighbours.release(now_s)

    def end(self, now_s: float) -> None:
        """Let go of everything; the blob stays in the store as it is."""
        self.log.end(Kind.LET_GO, now_s)
        self._neighbours.release(now_s)
        self._audience.end()
        self._neighbours.leave()

    # --- turns ----------------------------------------------------------------------------------

    def act(self, now_s: float) -> None:
        """Plan and offer once for all that happened until now."""
        self._asking.plan(now_s)
        self._audience.offer(now_s)

    def next_deadline_s(self) -> float | None:
        """When `handle_deadline` is to be called; None: not before something else happens."""
        if self.failure is not None:
            return None
        return soonest(
            self._audience.next_deadline_s(),
            self._asking.next_deadline_s(),
            self._neighbours.next_deadline_s(),
            self.wanting.rests_at_s,
            self._looks_further_at_s,
        )

    def handle_deadline(self, now_s: float) -> None:
        """Something is due."""
        self._audience.offer(now_s)
        for link in self._asking.links():
            link.hear(now_s)
        self.log.looked(self._lack, now_s)
        self._asking.handle_deadline(now_s)
        self._neighbours.handle_deadline(now_s)
        self.wanting.rest_if_due(now_s, complete=self.complete)
        self._statements.switch_if_stuck(self.idle_s(now_s))
        if (due_s := self._looks_further_at_s) is not None and now_s >= due_s:
            self._lookout.looked(now_s)
            self._asking.look_further(now_s)

    @property
    def _looks_further_at_s(self) -> float | None:
        """Only while nothing is known of it; a proxy reads it from outside instead."""
        if self.map is not None or not self.member or self._host.is_proxy:
            return None
        return self._lookout.due_s(self._progress.heard_s)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        self._holding.validate()
        assert self.map is self._statements.map
        self.wanting.validate()
        self._statements.validate()
        self._neighbours.validate()
        if self.failure is not None or self.complete:
            assert not self._asking.in_flight, "it asks for what it does not want"

    # --- inside ---------------------------------------------------------------------------------

    def _came(self, now_s: float) -> None:
        """Bytes of it came in, or word of them."""
        self._progress.came(now_s)
        self.log.progressed(self._lack, now_s)

    def _lack(self) -> tuple[Lack, str]:
        return lack(self.log, self._asking, self.map, self.held)

    def _note(self) -> None:
        if self.map is not None:
            self._neighbours.note(self._holding.count, whole=self.complete)

    def _deliver(self, bits: int | None) -> None:
        self._host.orders.append(Deliver(self.digest, bits))
