"""A host's core: what its blobs share, and when it looks at which of them."""

from __future__ import annotations

from itertools import pairwise

from p2pdist.exchange.frames import Interest, Offer, Request
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, MapId, RequestId, digest_of
from p2pdist.model.members import Role
from p2pdist.model.statements import HashBatch, MapHead
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.host_orders import JoinSwarm, LeaveSwarm, NoteHeld
from p2pdist.swarm.core.lookout import PATIENCE_S, PAUSE_MAX_S, PAUSE_S
from tests.swarm.core.hosts import Orders, host, link_to

SIZE = 8 * 256 * 1024
ONE, TWO = digest_of(b"one"), digest_of(b"two")


def known_map(digest: Digest, letter: bytes = b"m") -> ChunkMap:
    """An open map of `SIZE` bytes with the hashes of all chunks."""
    geometry = geometry_for(SIZE)
    head = MapHead(digest, MapId(letter * 16), SIZE, geometry.chunk_size_bytes, 0)
    chunk_map = ChunkMap(head, b"head")
    hashes = b"".join(bytes([i]) * 32 for i in range(geometry.chunk_count))
    chunk_map.apply(HashBatch(head.map_id, 0, hashes), b"hashes")
    return chunk_map


def in_motion(core: HostCore, digest: Digest, held: int = 0) -> BlobCore:
    blob = core.take_up(digest, SIZE, 0.0)
    blob.map_followed(known_map(digest), held, 0.0)
    return blob


def test_what_happened_at_a_time_is_planned_once() -> None:
    core, source = host(), link_to("a")
    orders, blob = Orders(core), in_motion(core, ONE)
    blob.join(0.0)
    blob.attach(source, 0.0)
    for first in (0, 1, 2):
        blob.hear(source, Offer(ONE, MapId(b"m" * 16), ((first, 1),)), 0.0)
    assert core.woken
    assert orders.said(source, Request) == []

    core.act(0.0)

    assert len(core.requests) == 1
    (request,) = orders.said(source, Request)
    assert isinstance(request, Request)
    core.validate()


def test_without_a_map_others_are_asked_for_less_and_less_often() -> None:
    core, dead_end = host(), link_to("a")
    orders, blob = Orders(core), core.take_up(ONE, SIZE, 0.0)
    blob.join(0.0)
    blob.attach(dead_end, 0.0)
    core.act(0.0)
    orders.take(dead_end)
    assert orders.other == [JoinSwarm(ONE)]
    looked_s: list[float] = []

    while len(looked_s) < 12:
        due_s = core.next_deadline_s()
        assert due_s is not None
        orders.other.clear()
        core.handle_deadline(due_s)
        orders.take(dead_end)
        if orders.other:
            assert orders.other == [JoinSwarm(ONE, [dead_end.host_id])]
            looked_s.append(due_s)

    pauses_s = [later - sooner for sooner, later in pairwise(looked_s)]
    assert PATIENCE_S <= looked_s[0] <= 2 * PATIENCE_S
    assert PAUSE_S <= pauses_s[0] <= 2 * PAUSE_S
    assert all(PAUSE_MAX_S <= pause_s <= 2 * PAUSE_MAX_S for pause_s in pauses_s[-4:])


def test_nobody_looks_further_while_a_proxy_is_at_work_or_when_it_is_known() -> None:
    core, proxy = host(), link_to("a", Role.PROXY)
    orders, blob = Orders(core), core.take_up(ONE, SIZE, 0.0)
    blob.join(0.0)
    blob.attach(proxy, 0.0)
    core.act(0.0)
    orders.take(proxy)
    blob.hear_working(0.9)
    orders.other.clear()

    core.handle_deadline(0.9 + PATIENCE_S - 0.01)
    orders.take(proxy)
    assert orders.other == [], "it was said a moment ago that it comes"

    blob.map_followed(known_map(ONE), 0, 1.4)
    core.act(1.4)
    orders.take(proxy)
    assert orders.other == []
    core.validate()


def test_a_blob_that_nobody_wants_any_more_looks_no_further() -> None:
    core = host()
    orders, blob = Orders(core), core.take_up(ONE, SIZE, 0.0)
    blob.join(0.0)
    core.act(0.0)

    blob.wanting.rest(0.1)

    core.handle_deadline(60.0)
    orders.take(link_to("a"))
    assert orders.other == [JoinSwarm(ONE), LeaveSwarm(ONE)]
    assert core.next_deadline_s() is None


def test_a_link_that_goes_down_takes_its_requests_along() -> None:
    core, source = host(), link_to("a")
    blob = in_motion(core, ONE)
    blob.join(0.0)
    blob.attach(source, 0.0)
    blob.hear(source, Offer(ONE, MapId(b"m" * 16), ((0, 8),)), 0.0)
    core.act(0.0)

    core.link_down(source, 0.1, gone=True)

    assert len(core.requests) == 0
    assert not blob.asks(source)
    core.validate()


def test_only_the_blob_that_is_due_is_looked_at() -> None:
    core = host()
    quiet, busy = core.take_up(ONE, SIZE, 0.0), in_motion(core, TWO)
    assert core.next_deadline_s() is None
    busy.wanting.open_reader(0.0)
    busy.join(0.0)
    busy.attach(link_to("a"), 0.0)
    core.act(0.0)

    due_s = core.next_deadline_s()
    assert due_s is not None
    core.handle_deadline(due_s)

    later_s = core.next_deadline_s()
    assert later_s is not None
    assert later_s > due_s
    assert quiet.next_deadline_s() is None


def test_a_blob_that_was_let_go_is_not_looked_at() -> None:
    core = host()
    blob = in_motion(core, ONE)
    blob.wanting.open_reader(0.0)
    blob.join(0.0)
    blob.attach(link_to("a"), 0.0)
    core.act(0.0)
    assert core.next_deadline_s() is not None

    core.let_go(blob, 0.0)

    assert core.next_deadline_s() is None
    core.wake(ONE)
    core.act(0.0)
    assert core.blobs == {}


def test_who_waits_makes_the_bulk_of_other_blobs_wait() -> None:
    core, source = host(), link_to("a")
    orders, bulk = Orders(core), in_motion(core, ONE)
    bulk.wanting.order_bulk(TokenBucket(1e9, 1e9, 0.0), 0.0)
    bulk.join(0.0)
    bulk.attach(source, 0.0)
    bulk.hear(source, Offer(ONE, MapId(b"m" * 16), ((0, 8),)), 0.0)
    core.act(0.0)
    assert len(core.requests) > 0

    core.wait_began(0.1)

    assert len(core.requests) == 0
    assert bool(bulk.bulk)
    assert orders.take(source)


def test_membership_and_what_is_held_are_told_once_each() -> None:
    core = host()
    orders, blob = Orders(core), in_motion(core, ONE)
    blob.join(0.0)
    blob.join(0.0)
    blob.landed(0b11, 0.0)
    core.let_go(blob, 0.0)
    orders.take(link_to("z"))

    assert orders.other[0] == JoinSwarm(ONE)
    assert NoteHeld(ONE, 2, whole=False) in orders.other
    assert [o for o in orders.other if isinstance(o, LeaveSwarm)] == [LeaveSwarm(ONE)]


def test_what_no_map_vouches_for_is_not_held() -> None:
    core = host()
    blob = core.take_up(ONE, SIZE, 0.0)
    geometry = geometry_for(SIZE)
    bare = ChunkMap(MapHead(ONE, MapId(b"m" * 16), SIZE, geometry.chunk_size_bytes, 0), b"head")
    blob.map_followed(bare, 0b1, 0.0)
    blob.landed(0b10, 0.0)
    assert blob.held == 0
    assert blob.deliverable_end(0) == 0

    batch = HashBatch(bare.map_id, 0, b"h" * 64)
    bare.apply(batch, b"hashes")
    blob.map_grew(b"hashes", 0b11, 0b11, 0.0)

    assert blob.held == 0b11
    core.validate()


def test_an_answer_that_nobody_waits_for_is_nobodys() -> None:
    core, source = host(), link_to("a")
    blob = in_motion(core, ONE)
    blob.join(0.0)
    blob.attach(source, 0.0)
    blob.hear(source, Offer(ONE, MapId(b"m" * 16), ((0, 1),)), 0.0)
    core.act(0.0)
    assert core.requests.chunk_came(source, RequestId(1)) == ONE
    assert core.requests.chunk_came(source, RequestId(1)) is None


def test_interest_is_said_once_for_a_link_and_anew_for_the_next() -> None:
    core, first, second = host(), link_to("a"), link_to("a")
    orders, blob = Orders(core), in_motion(core, ONE)
    blob.join(0.0)
    blob.attach(first, 0.0)
    assert orders.take(first) == [Interest(ONE)]

    core.link_down(first, 0.0, gone=False)
    blob.attach(second, 0.0)

    assert orders.take(second) == [Interest(ONE)]
    assert orders.take(first) == []


def test_who_left_the_swarm_is_not_brought_back_to_look_for_neighbours() -> None:
    """It would never leave again: the tracker would name a host that wants nothing."""
    core = host()
    orders, blob = Orders(core), in_motion(core, ONE)
    blob.wanting.order_bulk(None, 0.0)
    blob.join(0.0)
    blob.end_bulk(0.0)
    blob.wanting.order_bulk(None, 0.0)
    now_s = 0.0
    while (due_s := core.next_deadline_s()) is not None and due_s < 30.0:
        now_s = due_s
        core.handle_deadline(now_s)
        core.act(now_s)
    orders.take(link_to("z"))

    assert [type(order) for order in orders.other if not isinstance(order, NoteHeld)] == [
        JoinSwarm,
        LeaveSwarm,
    ]
