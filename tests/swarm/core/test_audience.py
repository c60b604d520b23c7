"""Who hears what of a blob, and when."""

from __future__ import annotations

import pytest

from p2pdist.exchange.frames import Frame, Interest, MapRecord, Offer, Working
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.members import Place, Role
from p2pdist.model.statements import MapHead
from p2pdist.swarm.core.audience import Audience
from p2pdist.swarm.core.link_state import LinkState
from tests.swarm.core.hosts import Orders, host, link_to

ELSEWHERE = Place("dc2", "")
SIZE = 64 * 256 * 1024
GEOMETRY = geometry_for(SIZE)
DIGEST = digest_of(b"layer")
HEAD = MapHead(DIGEST, MapId(b"m" * 16), SIZE, GEOMETRY.chunk_size_bytes, 0)


class Here:
    """An audience at second 0, and what it orders to be said."""

    def __init__(self, *, is_proxy: bool = False) -> None:
        core = host(is_proxy=is_proxy)
        self.audience = Audience(core, DIGEST, GEOMETRY.chunk_size_bytes)
        self.audience.follow(ChunkMap(HEAD, b"head"), 0.0)
        self.orders = Orders(core)
        self.take, self.said = self.orders.take, self.orders.said

    def join(self, link: LinkState, interest: Interest) -> None:
        self.audience.join(link, interest, 0.0)
        self.audience.validate()

    def hold(self, bits: int, *, whole: bool) -> None:
        self.audience.hold(bits, 0.0, whole=whole)
        self.audience.validate()

    def offer(self, *, flush: bool = False) -> None:
        self.audience.offer(0.0, flush=flush)
        self.audience.validate()


def offered(frames: list[Frame]) -> list[tuple[int, int]]:
    return [pair for frame in frames if isinstance(frame, Offer) for pair in frame.ranges]


def test_who_joins_hears_the_map_and_what_is_here() -> None:
    here, reader = Here(), link_to("a")
    here.hold(0b1011, whole=False)
    here.join(reader, Interest(DIGEST))
    here.offer()

    frames = here.take(reader)
    assert frames[0] == MapRecord(b"head")
    assert offered(frames) == [(0, 2), (3, 1)]


def test_a_source_near_by_hears_what_is_here_but_not_the_map() -> None:
    here, proxy, far = Here(), link_to("f", Role.PROXY), link_to("e", Role.PROXY, ELSEWHERE)
    here.audience.read_from(proxy)
    here.audience.read_from(far)
    here.hold(0b1, whole=False)
    here.offer()

    (frame,) = here.take(proxy)
    assert offered([frame]) == [(0, 1)]
    assert here.take(far) == []


def test_sources_hear_the_last_chunks_before_they_are_left() -> None:
    here, proxy = Here(), link_to("f", Role.PROXY)
    here.audience.read_from(proxy)
    here.hold(0b01, whole=False)
    here.offer()
    here.take(proxy)
    here.hold(0b10, whole=True)

    here.audience.read_no_more(0.0)

    assert offered(here.take(proxy)) == [(1, 1)]
    here.hold(0b100, whole=True)
    here.offer(flush=True)
    assert here.take(proxy) == []


def test_hashes_go_to_whom_the_plan_says() -> None:
    here, alone, fed = Here(), link_to("a"), link_to("b")
    for reader in (alone, fed):
        here.join(reader, Interest(DIGEST))
        here.take(reader)
    here.audience.hears_the_map(fed)

    here.audience.relay(b"hashes", 0b1, 0.0)

    assert here.take(alone) == [MapRecord(b"hashes")]
    assert here.take(fed) == []
    assert here.audience.next_deadline_s() is not None


def test_a_reader_that_left_is_sent_no_hashes() -> None:
    here, reader = Here(), link_to("a")
    here.join(reader, Interest(DIGEST))
    here.audience.leave(reader, 0.0)
    here.take(reader)

    here.audience.relay(b"hashes", 0b1, 0.0)

    assert here.take(reader) == []


def test_what_a_lost_reader_was_promised_goes_to_another() -> None:
    here, one, two = Here(is_proxy=True), link_to("a"), link_to("b")
    here.join(one, Interest(DIGEST))
    here.join(two, Interest(DIGEST))
    here.hold(0xFF, whole=True)
    here.offer()
    first = offered(here.take(one))
    here.take(two)

    here.audience.link_down(one, 0.0, gone=True)
    here.offer()

    assert offered(here.take(two)) == first


def test_a_source_is_told_anew_once_it_reads_itself() -> None:
    """Before it said so it may not have had the blob in hand, and heard nothing of it."""
    here, other = Here(), link_to("f", Role.PROXY)
    here.audience.read_from(other)
    here.hold(0b111, whole=False)
    here.offer()
    here.take(other)

    here.join(other, Interest(DIGEST))
    here.offer()

    assert offered(here.take(other)) == [(0, 3)]


def test_what_a_host_was_given_is_still_there_when_its_idle_link_ended() -> None:
    """Else each link that is left would have the seed send its chunks a second time."""
    offers = []
    for gone in (False, True):
        here, one, two = Here(is_proxy=True), link_to("a"), link_to("b")
        here.join(one, Interest(DIGEST))
        here.join(two, Interest(DIGEST))
        here.hold(0xFF, whole=True)
        here.offer()
        (first, count), *_ = offered(here.take(one))
        here.take(two)
        here.audience.host_holds(one, ((1 << count) - 1) << first, 0.0)
        here.audience.leave(one, 0.0)
        here.offer()
        here.take(two)

        here.audience.link_down(one, 0.0, gone=gone)
        here.offer()

        offers.append((first, count) in offered(here.take(two)))

    assert offers == [False, True]


def test_that_it_is_at_work_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called for every piece that comes in from outside."""
    monkeypatch.setattr("p2pdist.swarm.core.audience.WORKING_S", 3600.0)
    here, reader = Here(is_proxy=True), link_to("a")
    here.join(reader, Interest(DIGEST))
    for _ in range(3):
        here.audience.working(0.0)
    assert here.said(reader, Working) == [Working(DIGEST)]

    monkeypatch.setattr("p2pdist.swarm.core.audience.WORKING_S", 0.0)
    here.audience.working(0.0)
    assert len(here.said(reader, Working)) == 2


def test_who_needs_parts_only_is_remembered_as_such() -> None:
    here, reader = Here(is_proxy=True), link_to("a")
    here.join(reader, Interest(DIGEST, demand=True))
    assert here.audience.wishes() == {reader.host_id: Interest(DIGEST, demand=True)}
    assert here.audience.urgent

    here.join(reader, Interest(DIGEST))
    assert here.audience.wishes() == {reader.host_id: Interest(DIGEST)}


def test_a_word_about_its_needs_changes_what_a_reader_is_told() -> None:
    here, reader = Here(is_proxy=True), link_to("a")
    here.hold(0b11, whole=True)
    here.join(reader, Interest(DIGEST, demand=True))
    here.offer()
    assert offered(here.take(reader)) == []

    here.join(reader, Interest(DIGEST))
    here.offer()
    assert offered(here.take(reader)) == [(0, 2)]
