"""Any order of events leaves a host in step with itself; nothing is asked of who did not offer to
be asked, and no last byte goes out before the seal."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pdist.exchange.frames import Interest, Offer, Retract
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import HostId, MapId, RequestId, digest_of
from p2pdist.model.members import Member, Place, Role
from p2pdist.model.statements import HashBatch, MapHead, Revocation, Seal
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.bulk import bulk_bucket
from p2pdist.swarm.core.circle import Circle
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.host_orders import (
    AskRun,
    CloseLink,
    FollowMap,
    JoinSwarm,
    KeepRecords,
    LeaveSwarm,
    RemoveBlob,
    Send,
    SendAll,
    TakeBack,
)
from p2pdist.swarm.core.link_state import LinkState

CHUNKS = 12
CHUNK = 256 * 1024
SIZE = CHUNKS * CHUNK - 1000
BLOB = digest_of(b"layer")
NAMES = "abcf"
PROXY = HostId("f" * 32)
MAPS = [MapId(letter * 16) for letter in (b"m", b"o")]

names, chunks = st.sampled_from(NAMES), st.integers(0, CHUNKS - 1)
bits = st.integers(1, (1 << CHUNKS) - 1)


def head(map_id: MapId) -> MapHead:
    return MapHead(BLOB, map_id, SIZE, geometry_for(SIZE).chunk_size_bytes, 0)


def hashes(map_id: MapId, first: int, count: int) -> HashBatch:
    return HashBatch(map_id, first, b"".join(bytes([i]) * 32 for i in range(first, first + count)))


def seal(map_id: MapId) -> Seal:
    whole = ChunkMap(head(map_id), b"")
    whole.apply(hashes(map_id, 0, CHUNKS), b"")
    return Seal(BLOB, map_id, CHUNKS, whole.root())


class HostMachine(RuleBasedStateMachine):
    """Orders are carried out as the shell does, the disk's when it gets to them."""

    is_proxy = False

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.revoked: set[MapId] = set()
        self.core = HostCore(
            Place("dc1"),
            is_proxy=self.is_proxy,
            rng=Random(1),
            proxy_of_ours=PROXY.__eq__,
            revoked=self.revoked.__contains__,
            servable=lambda digest: True,
        )
        self.links: dict[str, LinkState] = {}
        self.open: dict[tuple[LinkState, RequestId], set[int]] = {}
        self.disk: list[FollowMap | KeepRecords] = []
        self.stored = 0
        """Chunks that lie there, whatever map there is."""
        self.readers: list[int] = []
        self.member = False
        self.blob: BlobCore
        self.take_up()

    def take_up(self) -> None:
        self.blob = self.core.take_up(BLOB, SIZE, self.now_s)

    # --- orders -------------------------------------------------------------------------------

    def carry_out(self) -> None:
        while self.core.orders:
            match self.core.orders.popleft():
                case Send(link=link):
                    assert link.host_id[0] in NAMES
                case SendAll(links=links):
                    assert links
                case AskRun(link, request, sizes):
                    assert not link.closed
                    assert self.blob.map is not None
                    asked = {chunk for chunk, _ in sizes}
                    assert request.map_id == self.blob.map.map_id
                    assert asked <= set(self.blob.map.known)
                    assert len(asked) == request.count
                    self.open[link, request.request_id] = asked
                case TakeBack(link, request_id):
                    del self.open[link, request_id]
                case FollowMap() | KeepRecords() as order:
                    self.disk.append(order)
                    assert len(self.disk) == 1, "two things of one blob are ordered of the disk"
                case JoinSwarm():
                    self.member = True
                case LeaveSwarm():
                    assert self.member
                    self.member = False
                case RemoveBlob():
                    self.stored = 0
                case CloseLink(link=link):
                    self.down(link, gone=True)

    def link(self, name: str) -> LinkState:
        if name not in self.links:
            role = Role.PROXY if name == "f" else Role.PEER
            member = Member(HostId(name * 32), role, Place("dc1"))
            self.links[name] = LinkState(member, lambda: 0, speaks_demand=name != "a")
        return self.links[name]

    def down(self, link: LinkState, *, gone: bool) -> None:
        self.links = {name: each for name, each in self.links.items() if each is not link}
        self.open = {key: left for key, left in self.open.items() if key[0] is not link}
        self.core.link_down(link, self.now_s, gone=gone)

    # --- events -------------------------------------------------------------------------------

    @initialize(known=st.booleans())
    def something_is_known(self, *, known: bool) -> None:
        """Else most runs would be about a blob of which nothing is heard."""
        if known:
            self.blob.hear(None, head(MAPS[0]), self.now_s, b"head")
            self.carry_out()
            self.the_disk_goes_on()
            self.blob.hear(None, hashes(MAPS[0], 0, CHUNKS), self.now_s, b"hashes")
            self.carry_out()
            self.the_disk_goes_on()
            self.blob.join(self.now_s)
            for name in NAMES:
                self.blob.attach(self.link(name), self.now_s)

    @rule(name=names)
    def is_asked(self, name: str) -> None:
        self.blob.join(self.now_s)
        self.blob.attach(self.link(name), self.now_s)

    @rule(name=names, bulk=st.booleans(), hungry=st.booleans(), demand=st.booleans())
    def is_interested(self, name: str, *, bulk: bool, hungry: bool, demand: bool) -> None:
        interest = Interest(BLOB, bulk, hungry, demand)
        self.blob.hear_interest(self.link(name), interest, self.now_s)

    @rule(name=names)
    def is_not(self, name: str) -> None:
        self.blob.neighbours.lose_interest(self.link(name), self.now_s)

    @rule(name=names, which=st.sampled_from(MAPS), some=bits)
    def offers(self, name: str, which: MapId, some: int) -> None:
        offer = Offer(BLOB, which, tuple(ChunkSet(CHUNKS, some).ranges()))
        self.blob.hear(self.link(name), offer, self.now_s)

    @rule(name=names)
    def retracts(self, name: str) -> None:
        self.blob.hear(self.link(name), Retract(BLOB), self.now_s)

    @rule(name=names, gone=st.booleans())
    def goes(self, name: str, *, gone: bool) -> None:
        self.down(self.link(name), gone=gone)

    @rule(name=names, which=st.sampled_from(MAPS), first=chunks, ours=st.booleans())
    def hashes_come(self, name: str, which: MapId, first: int, *, ours: bool) -> None:
        link = None if ours else self.link(name)
        self.blob.hear(link, head(which), self.now_s, b"head")
        self.blob.hear(link, hashes(which, first, CHUNKS - first), self.now_s, b"hashes")

    @rule(name=names, which=st.sampled_from(MAPS))
    def a_seal_comes(self, name: str, which: MapId) -> None:
        self.blob.hear(self.link(name), seal(which), self.now_s, b"seal")

    @rule(which=st.sampled_from(MAPS))
    def a_map_is_revoked(self, which: MapId) -> None:
        self.revoked.add(which)
        self.blob.hear(None, Revocation(BLOB, which, 0), self.now_s, b"revoked")

    @precondition(lambda self: self.disk)
    @rule()
    def the_disk_goes_on(self) -> None:
        order = self.disk.pop(0)
        if isinstance(order, FollowMap):
            self.blob.map_followed(order.chunk_map, self.stored, self.now_s)
        else:
            self.blob.records_kept(self.stored, self.now_s)

    @precondition(lambda self: self.disk)
    @rule(full=st.booleans())
    def the_disk_refuses(self, *, full: bool) -> None:
        self.disk.pop(0)
        if full:
            self.blob.disk_failed()
        self.blob.not_taken(self.now_s)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 1000), good=st.booleans())
    def a_chunk_comes(self, which: int, *, good: bool) -> None:
        link, request_id = sorted(self.open, key=lambda key: key[1])[which % len(self.open)]
        left = self.open[link, request_id]
        chunk = min(left)
        assert self.core.requests.chunk_came(link, request_id) == BLOB
        left.discard(chunk)
        if not left:
            del self.open[link, request_id]
        if good:
            self.stored |= 1 << chunk
        self.blob.arrived(link, request_id, chunk, self.now_s, good=good)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 1000), gone=st.booleans())
    def a_request_is_refused(self, which: int, *, gone: bool) -> None:
        link, request_id = sorted(self.open, key=lambda key: key[1])[which % len(self.open)]
        del self.open[link, request_id]
        assert self.core.requests.refused(link, request_id) == BLOB
        self.blob.refused(link, request_id, self.now_s, gone=gone)

    @rule(chunk=chunks)
    def a_chunk_rots(self, chunk: int) -> None:
        self.stored &= ~(1 << chunk)
        self.blob.lost(1 << chunk, self.now_s)

    @rule(demand=st.booleans())
    def somebody_reads(self, *, demand: bool) -> None:
        self.readers.append(self.blob.wanting.open_reader(self.now_s, demand=demand))

    @precondition(lambda self: self.readers)
    @rule(at=st.integers(0, SIZE), part=st.booleans())
    def a_reader_moves(self, at: int, *, part: bool) -> None:
        until = min(SIZE, at + CHUNK) if part else None
        self.blob.wanting.reader_at(self.readers[0], at, self.now_s, until=until)

    @precondition(lambda self: self.readers)
    @rule()
    def a_reader_leaves(self) -> None:
        self.blob.close_reader(self.readers.pop(), self.now_s)

    @rule(limited=st.booleans())
    def it_is_ordered(self, *, limited: bool) -> None:
        budget = bulk_bucket(10e6, self.now_s) if limited else None
        self.blob.wanting.order_bulk(budget, self.now_s)

    @rule()
    def the_order_ends(self) -> None:
        self.blob.end_bulk(self.now_s)

    @rule()
    def another_blob_is_waited_for(self) -> None:
        self.core.wait_began(self.now_s)
        self.core.wait_ended(self.now_s)

    @rule(name=names, some=bits, sent=bits)
    def runs_go_out(self, name: str, some: int, sent: int) -> None:
        link, held = self.link(name), some & self.blob.held
        if held and not self.blob.refers(link, held, self.now_s):
            self.blob.neighbours.asked(link, held, self.now_s)
            self.blob.neighbours.sent(link, held & sent, held & ~sent, self.now_s)

    @rule(after_s=st.sampled_from([0.0, 0.01, 0.3, 2.0, 12.0]))
    def time_passes(self, after_s: float) -> None:
        until_s = self.now_s + after_s
        for _ in range(200):
            due_s = self.core.next_deadline_s()
            if due_s is None or due_s > until_s:
                break
            self.now_s = max(self.now_s, due_s)
            self.core.handle_deadline(self.now_s)
            self.carry_out()
            self.core.act(self.now_s)
        else:
            raise AssertionError("deadlines without end")
        self.now_s = until_s

    @rule()
    def it_fails(self) -> None:
        self.blob.fail("as a test", self.now_s)

    @rule()
    def it_is_taken_up_anew(self) -> None:
        self.core.let_go(self.blob, self.now_s)
        self.carry_out()
        assert not self.open
        assert not self.member
        self.readers.clear()
        self.disk.clear()
        self.take_up()

    # --- what holds -----------------------------------------------------------------------------

    @invariant()
    def in_step(self) -> None:
        self.carry_out()
        if self.core.woken:
            self.core.act(self.now_s)
            self.carry_out()
        self.core.validate()
        assert len(self.core.requests) == len(self.open)
        sealed = self.blob.map is not None and self.blob.map.sealed
        end = self.blob.deliverable_end(0)
        assert end < SIZE or sealed, "the last byte went out before the seal"
        prefix = ChunkSet(CHUNKS, self.stored).first_missing()
        assert end <= prefix * CHUNK, "what is not on disk went out"


class ProxyMachine(HostMachine):
    is_proxy = True


class CrowdedMachine(HostMachine):
    """Two peers come to it, and one of them has to wait."""

    def take_up(self) -> None:
        super().take_up()
        self.blob._neighbours._circle = Circle(1)


for machine in (HostMachine, ProxyMachine, CrowdedMachine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHostMachine = HostMachine.TestCase
TestProxyMachine = ProxyMachine.TestCase
TestCrowdedMachine = CrowdedMachine.TestCase
