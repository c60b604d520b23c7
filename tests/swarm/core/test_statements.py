"""What is said of one blob waits for the disk, in its order; who says too much leaves."""

from __future__ import annotations

import pytest

from p2pdist.exchange.frames import Interest, Offer, Request
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.members import Role
from p2pdist.model.statements import HashBatch, MapHead, Seal
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.host_orders import (
    CloseLink,
    CountFault,
    Fail,
    FollowMap,
    KeepRecords,
    Order,
)
from p2pdist.swarm.core.statements import WAITING_MAX
from tests.swarm.core.hosts import Orders, host, link_to

SIZE = 8 * 256 * 1024
GEOMETRY = geometry_for(SIZE)
BLOB = digest_of(b"layer")
HEAD = MapHead(BLOB, MapId(b"m" * 16), SIZE, GEOMETRY.chunk_size_bytes, 0)
BATCH = HashBatch(HEAD.map_id, 0, b"h" * 32 * 8)
OFFER = Offer(BLOB, HEAD.map_id, ((0, 1),))


def seal() -> Seal:
    whole = ChunkMap(HEAD, b"head")
    whole.apply(BATCH, b"hashes")
    return Seal(BLOB, HEAD.map_id, GEOMETRY.chunk_count, whole.root())


class Here:
    """A blob at second 0, whose disk does what it is told to when it is told to."""

    def __init__(self) -> None:
        self.proxy = link_to("f", Role.PROXY)
        self.core = host(proxies={self.proxy.host_id})
        self.orders = Orders(self.core)
        self.blob: BlobCore = self.core.take_up(BLOB, SIZE, 0.0)

    def ordered(self) -> list[Order]:
        """What was ordered beside frames since this was asked last."""
        self.orders.take(link_to("z"))
        other, self.orders.other = self.orders.other, []
        self.core.validate()
        return other

    def follow(self) -> None:
        """Carry the order out that there is."""
        (order,) = self.ordered()
        assert isinstance(order, FollowMap)
        self.blob.map_followed(order.chunk_map, 0, 0.0)


def test_what_follows_a_head_waits_until_the_blob_is_there() -> None:
    here, peer = Here(), link_to("a")
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.blob.hear(None, BATCH, 0.0, b"hashes")
    here.blob.hear(peer, OFFER, 0.0)
    assert not here.blob.settled
    assert here.blob.proven_size_bytes is None

    here.follow()

    assert here.ordered() == [KeepRecords(BLOB, (b"hashes",))]
    here.blob.records_kept(0, 0.0)
    assert here.blob.map is not None
    assert here.blob.map.known.complete


def test_an_offer_behind_nothing_is_taken_in_at_once() -> None:
    here, peer = Here(), link_to("a")
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.follow()
    here.blob.hear(None, BATCH, 0.0, b"hashes")
    here.blob.records_kept(0, 0.0)
    here.blob.join(0.0)
    here.blob.attach(peer, 0.0)
    here.blob.hear(peer, OFFER, 0.0)
    here.core.act(0.0)

    assert here.blob.settled
    assert here.orders.said(peer, Request)


def test_a_map_in_many_records_is_kept_in_one_write() -> None:
    """As a proxy makes it that reads a slow registry: a record for each chunk."""
    here, peers = Here(), [link_to(name) for name in "abc"]
    here.blob.join(0.0)
    for peer in peers:
        here.blob.attach(peer, 0.0)
    here.ordered()
    here.blob.hear(None, HEAD, 0.0, b"head")
    singles = [HashBatch(HEAD.map_id, i, b"h" * 32) for i in range(8)]
    for i, batch in enumerate(singles):
        for peer in peers:
            here.blob.hear(peer, batch, 0.0, b"hashes %d" % i)
    here.blob.hear(peers[0], seal(), 0.0, b"seal")

    here.follow()

    records = (*(b"hashes %d" % i for i in range(8)), b"seal")
    assert here.ordered() == [KeepRecords(BLOB, records)]
    for peer in peers:
        here.blob.hear(peer, singles[0], 0.0, b"hashes 0")
    here.blob.records_kept(0, 0.0)
    assert here.blob.settled
    assert here.blob.map is not None
    assert here.blob.map.sealed


def test_neighbours_that_pass_the_same_on_are_not_parted_with() -> None:
    here, peers = Here(), [link_to(name) for name in "abcdefgh"]
    here.blob.hear(None, HEAD, 0.0, b"head")
    for i in range(WAITING_MAX):
        for peer in peers:
            here.blob.hear(peer, BATCH, 0.0, b"hashes %d" % i)

    (order,) = here.ordered()
    assert isinstance(order, FollowMap), "and no CloseLink"


def test_an_order_of_the_disk_that_runs_takes_no_more_in() -> None:
    here, peer = Here(), link_to("a")
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.follow()
    singles = [HashBatch(HEAD.map_id, i, b"h" * 32) for i in range(3)]
    here.blob.hear(peer, singles[0], 0.0, b"0")
    assert here.ordered() == [KeepRecords(BLOB, (b"0",))]
    here.blob.hear(peer, singles[1], 0.0, b"1")
    here.blob.hear(peer, OFFER, 0.0)
    here.blob.hear(peer, singles[2], 0.0, b"2")
    assert here.ordered() == []

    here.blob.records_kept(0, 0.0)
    assert here.ordered() == [KeepRecords(BLOB, (b"1",))], "what comes after the offer waits"
    here.blob.records_kept(0, 0.0)
    assert here.ordered() == [KeepRecords(BLOB, (b"2",))]


def test_another_map_that_is_taken_up_has_the_disk_do_one_thing_at_a_time() -> None:
    here, peer = Here(), link_to("a")
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.follow()
    here.blob.hear(peer, HashBatch(HEAD.map_id, 0, b"h" * 32), 0.0, b"0")
    other = MapHead(BLOB, MapId(b"o" * 16), SIZE, GEOMETRY.chunk_size_bytes, 0)
    here.blob.hear(peer, HashBatch(other.map_id, 0, b"h" * 32), 0.0, b"of the other")
    assert here.ordered() == [KeepRecords(BLOB, (b"0",))]

    here.blob.map_followed(ChunkMap(other, b"other"), 0, 0.0)
    assert here.ordered() == []
    here.blob.records_kept(0, 0.0)
    assert here.ordered() == [KeepRecords(BLOB, (b"of the other",))]


def test_a_seal_that_came_before_the_hashes_is_kept_after_them() -> None:
    here = Here()
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.follow()
    here.blob.hear(None, seal(), 0.0, b"seal")
    assert here.ordered() == []

    here.blob.hear(None, BATCH, 0.0, b"hashes")
    assert here.ordered() == [KeepRecords(BLOB, (b"hashes",))]
    here.blob.records_kept(0, 0.0)
    assert here.ordered() == [KeepRecords(BLOB, (b"seal",))]
    here.blob.records_kept(0, 0.0)

    assert here.blob.map is not None
    assert here.blob.map.sealed


def test_what_the_disk_refuses_does_not_stop_what_waits() -> None:
    here, peer = Here(), link_to("a")
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.blob.hear(peer, OFFER, 0.0)
    here.ordered()

    here.blob.disk_failed()
    here.blob.not_taken(0.0)

    assert here.blob.settled
    assert here.blob.unkept
    assert here.blob.map is None


def test_a_record_of_a_map_that_was_left_meanwhile_changes_nothing() -> None:
    here, other = Here(), ChunkMap(MapHead(BLOB, MapId(b"o" * 16), SIZE, 256 * 1024, 0), b"other")
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.follow()
    here.blob.hear(None, BATCH, 0.0, b"hashes")
    here.blob.map_followed(other, 0, 0.0)  # as our own ingest wants it

    here.blob.records_kept(0b1, 0.0)

    assert here.blob.map is other
    assert here.blob.held == 0
    assert here.blob.settled


def test_who_contradicts_the_map_is_punished_and_our_own_ingest_is_not() -> None:
    here, liar = Here(), link_to("a")
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.follow()
    wrong = Seal(BLOB, HEAD.map_id, 1, b"r" * 32)
    here.blob.hear(liar, wrong, 0.0, b"wrong")
    here.blob.hear(None, wrong, 0.0, b"wrong")

    counted, closed = here.ordered()
    assert isinstance(counted, CountFault)
    assert isinstance(closed, CloseLink)
    assert counted.link is closed.link is liar


def test_chunks_outside_of_the_blob_are_no_offer() -> None:
    here, liar = Here(), link_to("a")
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.follow()
    here.blob.hear(liar, Offer(BLOB, HEAD.map_id, ((7, 2),)), 0.0)

    counted, closed = here.ordered()
    assert isinstance(counted, CountFault)
    assert isinstance(closed, CloseLink)


def test_rogue_links_that_fill_the_queue_are_closed_and_the_proxy_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever came to a full inbox used to be closed: three rogues had the proxy thrown out."""
    monkeypatch.setattr("p2pdist.swarm.core.statements.WAITING_MAX", 30)
    here, rogues = Here(), [link_to(name) for name in "abc"]
    here.blob.hear(here.proxy, HEAD, 0.0, b"head")
    (follow,) = here.ordered()
    assert isinstance(follow, FollowMap)
    closed = set()
    for _ in range(40):
        for rogue in rogues:
            if rogue not in closed:
                here.blob.hear(rogue, OFFER, 0.0)
            closed |= {order.link for order in here.ordered() if isinstance(order, CloseLink)}
    here.blob.hear(here.proxy, BATCH, 0.0, b"hashes")
    closed |= {order.link for order in here.ordered() if isinstance(order, CloseLink)}

    here.blob.map_followed(follow.chunk_map, 0, 0.0)

    assert len(closed) >= 2
    assert here.proxy not in closed
    assert here.ordered() == [KeepRecords(BLOB, (b"hashes",))]


def test_a_blob_that_fails_is_told_of_once() -> None:
    here = Here()
    here.blob.hear(None, HEAD, 0.0, b"head")
    here.follow()
    here.blob.fail("as a test", 0.0)

    assert [order for order in here.ordered() if isinstance(order, Fail)] == [
        Fail(BLOB, "as a test")
    ]


# --- other keys -----------------------------------------------------------------------------------

NEW_HEAD = MapHead(BLOB, MapId(b"n" * 16), SIZE, GEOMETRY.chunk_size_bytes, 1)
OLD_KEY, NEW_KEY = b"o" * 8, b"n" * 8


def by(key: bytes) -> bytes:
    """What a record by it begins with."""
    return b"\1" + key + b"..."


def followed() -> Here:
    here = Here()
    here.blob.hear(None, HEAD, 0.0, by(OLD_KEY))
    here.follow()
    return here


def test_a_map_of_a_dropped_key_gives_way_to_the_next_one_at_once() -> None:
    here = followed()
    here.blob.keys_changed(lambda signer: signer == NEW_KEY)
    assert here.ordered() == []

    here.blob.hear(None, NEW_HEAD, 0.0, by(NEW_KEY))

    (order,) = here.ordered()
    assert isinstance(order, FollowMap)
    assert (order.chunk_map.map_id, order.rival) == (NEW_HEAD.map_id, True)


def test_or_to_one_that_was_heard_of_before() -> None:
    here = followed()
    here.blob.hear(None, NEW_HEAD, 0.0, by(NEW_KEY))
    assert here.ordered() == []

    here.blob.keys_changed(lambda signer: signer == NEW_KEY)

    (order,) = here.ordered()
    assert isinstance(order, FollowMap)
    assert order.chunk_map.map_id == NEW_HEAD.map_id


def test_until_then_what_is_said_of_it_is_taken_in() -> None:
    here = followed()
    here.blob.keys_changed(lambda signer: False)

    here.blob.hear(None, BATCH, 0.0, by(OLD_KEY))

    assert here.ordered() == [KeepRecords(BLOB, (by(OLD_KEY),))]


def test_a_map_whose_key_stays_gives_way_to_none() -> None:
    here = followed()
    here.blob.keys_changed(lambda signer: True)

    here.blob.hear(None, NEW_HEAD, 0.0, by(NEW_KEY))

    assert here.ordered() == []
    assert here.blob.tells(link_to("a"))


def test_who_asks_for_it_only_now_is_not_told_of_a_map_of_a_dropped_key() -> None:
    here, early, late = followed(), link_to("a"), link_to("b")
    interest = Interest(BLOB)
    here.blob.hear_interest(early, interest, 0.0)

    here.blob.keys_changed(lambda signer: False)

    assert here.blob.tells(early)
    assert not here.blob.tells(late)
