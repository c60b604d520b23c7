"""Who hears what of a blob, over links that only remember what was sent to them."""

from __future__ import annotations

import pytest

from p2pdist.exchange.frames import Frame, Interest, MapRecord, Offer, Working
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.members import Place, Role
from p2pdist.model.statements import MapHead
from p2pdist.swarm.audience import Audience
from p2pdist.swarm.core.uplink import Uplink
from tests.swarm.links import PLACE, link, real

ELSEWHERE = Place("dc2", "")
SIZE = 64 * 256 * 1024
GEOMETRY = geometry_for(SIZE)
DIGEST = digest_of(b"layer")
HEAD = MapHead(DIGEST, MapId(b"m" * 16), SIZE, GEOMETRY.chunk_size_bytes, 0)


def audience(*, is_proxy: bool = False) -> Audience:
    made = Audience(DIGEST, PLACE, GEOMETRY.chunk_size_bytes, Uplink(), is_proxy=is_proxy)
    made.follow(ChunkMap(HEAD, b"head"))
    return made


def offered(frames: list[Frame]) -> list[tuple[int, int]]:
    return [pair for frame in frames if isinstance(frame, Offer) for pair in frame.ranges]


async def test_who_joins_hears_the_map_and_what_is_here() -> None:
    here, reader = audience(), link("a")
    here.hold(0b1011, whole=False)
    here.join(real(reader), Interest(DIGEST))
    here.offer()

    frames = reader.take()
    assert frames[0] == MapRecord(b"head")
    assert offered(frames) == [(0, 2), (3, 1)]


async def test_a_source_near_by_hears_what_is_here_but_not_the_map() -> None:
    here, proxy, far = audience(), link("f", Role.PROXY), link("e", Role.PROXY, ELSEWHERE)
    here.read_from(real(proxy))
    here.read_from(real(far))
    here.hold(0b1, whole=False)
    here.offer()

    assert offered(proxy.sent) == [(0, 1)]
    assert len(proxy.sent) == 1
    assert far.sent == []


async def test_sources_hear_the_last_chunks_before_they_are_left() -> None:
    here, proxy = audience(), link("f", Role.PROXY)
    here.read_from(real(proxy))
    here.hold(0b01, whole=False)
    here.offer()
    proxy.take()
    here.hold(0b10, whole=True)

    here.read_no_more()

    assert offered(proxy.take()) == [(1, 1)]
    here.hold(0b100, whole=True)
    here.offer(flush=True)
    assert proxy.sent == []


async def test_hashes_go_to_whom_the_plan_says() -> None:
    here, alone, fed = audience(), link("a"), link("b")
    for reader in (alone, fed):
        here.join(real(reader), Interest(DIGEST))
        reader.take()
    here.hears_the_map(real(fed))

    here.relay(b"hashes", 0b1)

    assert alone.take() == [MapRecord(b"hashes")]
    assert fed.take() == []
    assert here.next_deadline_s() is not None


async def test_a_reader_that_left_is_sent_no_hashes() -> None:
    here, reader = audience(), link("a")
    here.join(real(reader), Interest(DIGEST))
    here.leave(real(reader))
    reader.take()

    here.relay(b"hashes", 0b1)

    assert reader.take() == []


async def test_what_a_lost_reader_was_promised_goes_to_another() -> None:
    here, one, two = audience(is_proxy=True), link("a"), link("b")
    here.join(real(one), Interest(DIGEST))
    here.join(real(two), Interest(DIGEST))
    here.hold(0xFF, whole=True)
    here.offer()
    first = offered(one.take())
    two.take()

    here.link_down(real(one), gone=True)
    here.offer()

    assert offered(two.take()) == first


async def test_a_source_is_told_anew_once_it_reads_itself() -> None:
    """Before it said so it may not have had the blob in hand, and heard nothing of it."""
    here, other = audience(), link("f", Role.PROXY)
    here.read_from(real(other))
    here.hold(0b111, whole=False)
    here.offer()
    other.take()

    here.join(real(other), Interest(DIGEST))
    here.offer()

    assert offered(other.take()) == [(0, 3)]


async def test_what_a_host_was_given_is_still_there_when_its_idle_link_ended() -> None:
    """Else each link that is left would have the seed send its chunks a second time."""
    offers = []
    for gone in (False, True):
        here, one, two = audience(is_proxy=True), link("a"), link("b")
        here.join(real(one), Interest(DIGEST))
        here.join(real(two), Interest(DIGEST))
        here.hold(0xFF, whole=True)
        here.offer()
        (first, count), *_ = offered(one.take())
        two.take()
        here.host_holds(real(one), ((1 << count) - 1) << first)
        here.leave(real(one))
        here.offer()
        two.take()

        here.link_down(real(one), gone=gone)
        here.offer()

        offers.append((first, count) in offered(two.take()))

    assert offers == [False, True]


async def test_that_it_is_at_work_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called for every piece that comes in from outside."""
    monkeypatch.setattr("p2pdist.swarm.audience.WORKING_S", 3600.0)
    here, reader = audience(is_proxy=True), link("a")
    here.join(real(reader), Interest(DIGEST))
    for _ in range(3):
        here.working()
    assert reader.said(Working) == [Working(DIGEST)]

    monkeypatch.setattr("p2pdist.swarm.audience.WORKING_S", 0.0)
    here.working()
    assert len(reader.said(Working)) == 2


async def test_who_needs_parts_only_is_remembered_as_such() -> None:
    here, reader = audience(is_proxy=True), link("a")
    here.join(real(reader), Interest(DIGEST, demand=True))
    assert here.wishes() == {reader.session.member.host_id: Interest(DIGEST, demand=True)}
    assert here.urgent

    here.join(real(reader), Interest(DIGEST))
    assert here.wishes() == {reader.session.member.host_id: Interest(DIGEST)}


async def test_a_word_about_its_needs_changes_what_a_reader_is_told() -> None:
    here, reader = audience(is_proxy=True), link("a")
    here.hold(0b11, whole=True)
    here.join(real(reader), Interest(DIGEST, demand=True))
    here.offer()
    assert offered(reader.take()) == []

    here.join(real(reader), Interest(DIGEST))
    here.offer()
    assert offered(reader.take()) == [(0, 2)]
