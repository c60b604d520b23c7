"""A blob in motion and its neighbours: whose word counts, and when they are let go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from p2pdist.errors import ErrorReason
from p2pdist.exchange.frames import Interest, Offer, Request, Retract, Uninterest
from p2pdist.model.handshake import DEMAND
from p2pdist.model.members import Role
from p2pdist.model.statements import HashBatch, Seal
from tests.swarm.active_parts import SIGNER, Motion, SignedMap, in_motion, some_bytes
from tests.swarm.links import FakeLink, link, real

DATA = some_bytes(4.5)
TRUE, OTHER = SignedMap(DATA, b"t"), SignedMap(DATA, b"o")


async def turn() -> None:
    """What a blob plans, it plans once for all that happened in a turn of the loop."""
    await asyncio.sleep(0)


def offers(motion: Motion, neighbour: FakeLink, signed: SignedMap, first: int, count: int) -> None:
    offer = Offer(TRUE.digest, signed.head.map_id, ((first, count),))
    motion.active.hear(real(neighbour), offer)


async def test_only_what_is_offered_under_our_map_is_asked_for(tmp_path: Path) -> None:
    neighbour = link("a")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        motion.active.attach(real(neighbour))
        offers(motion, neighbour, OTHER, 0, 5)
        await turn()
        assert neighbour.said(Request) == []

        offers(motion, neighbour, TRUE, 3, 1)
        await turn()
        (request,) = neighbour.said(Request)
        assert isinstance(request, Request)
        assert (request.map_id, request.first, request.count) == (TRUE.head.map_id, 3, 1)


async def test_who_speaks_of_a_map_that_we_left_is_no_liar(tmp_path: Path) -> None:
    """What it said crossed what we said."""
    neighbour = link("a")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head)
        statements: list[HashBatch | Seal] = [*OTHER.batches, OTHER.seal]
        for statement in statements:
            motion.active.hear(real(neighbour), statement, SIGNER.sign(statement))
        await motion.active.settle()

        assert motion.node.punished == []


async def test_a_blob_that_failed_wants_nothing_more_of_its_neighbours(tmp_path: Path) -> None:
    neighbour = link("a")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head)
        motion.active.attach(real(neighbour))
        assert neighbour.take() == [Interest(TRUE.digest)]

        motion.active.fail("upstream gave out")

        assert neighbour.said(Uninterest) == [Uninterest(TRUE.digest)]
        assert not motion.active.asks(real(neighbour))


# --- a word that nothing comes --------------------------------------------------------------------


@pytest.mark.parametrize(("role", "counts"), [(Role.PROXY, True), (Role.PEER, False)])
async def test_a_proxy_says_that_nothing_comes(tmp_path: Path, role: Role, counts: bool) -> None:
    neighbour = link("a", role=role)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        if role is Role.PROXY:
            motion.node.proxies.add(neighbour.session.member.host_id)
        motion.active.hear(real(neighbour), Retract(TRUE.digest))
        await motion.active.settle()
        assert motion.active.denied is counts

        motion.active.attach(real(neighbour))  # it is asked once more
        assert not motion.active.denied


async def test_what_a_map_is_known_of_may_come_from_others(tmp_path: Path) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head)
        motion.active.hear(real(link("a", role=Role.PROXY)), Retract(TRUE.digest))
        await motion.active.settle()

        assert not motion.active.denied


@pytest.mark.parametrize(
    ("refusal", "said"), [(ErrorReason.UNKNOWN, [Retract(TRUE.digest)]), (None, [])]
)
async def test_who_waits_for_what_every_registry_refuses_is_told(
    tmp_path: Path, refusal: ErrorReason | None, said: list[Retract]
) -> None:
    listener = link("b")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        motion.told(real(listener), Interest(TRUE.digest))
        motion.active.fail("upstream gave out", refusal)

        assert listener.said(Retract) == said


# --- parts of it ----------------------------------------------------------------------------------


async def test_what_only_a_part_is_needed_of_is_said_to_those_who_understand_it(
    tmp_path: Path,
) -> None:
    new, old = link("a"), link("b")
    new.session.features = DEMAND
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head)
        reader = motion.active.open_reader(demand=True)
        for neighbour in (new, old):
            motion.active.attach(real(neighbour))
        motion.active.reader_at(reader, 0, until=5)

        assert new.take() == [Interest(TRUE.digest, demand=True)]
        assert old.take() == [Interest(TRUE.digest)]

        motion.active.open_reader()
        assert new.take() == [Interest(TRUE.digest)]


async def test_a_neighbours_interest_fetches_nothing_that_nobody_here_wants(
    tmp_path: Path,
) -> None:
    neighbour = link("a")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        await motion.land(TRUE, 0)
        motion.told(real(neighbour), Interest(TRUE.digest))
        assert not neighbour.said(Interest)
        motion.told(real(neighbour), Uninterest(TRUE.digest))
        assert not motion.active.in_use


async def test_whoever_wanted_it_before_anybody_here_did_is_asked_when_somebody_does(
    tmp_path: Path,
) -> None:
    early, late = link("a"), link("b")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        motion.told(real(early), Interest(TRUE.digest))
        assert not early.said(Interest)

        motion.active.join()
        motion.told(real(late), Interest(TRUE.digest))

        assert early.said(Interest) == late.said(Interest) == [Interest(TRUE.digest)]


async def test_a_reader_of_a_part_wants_no_chunk_beside_it(tmp_path: Path) -> None:
    """Where its range ends within a chunk, that is the last one; where it begins, the first."""
    neighbour, size = link("a"), TRUE.geometry.chunk_size_bytes
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        reader = motion.active.open_reader(demand=True)
        motion.active.attach(real(neighbour))
        offers(motion, neighbour, TRUE, 0, TRUE.geometry.chunk_count)
        await motion.active.settle()
        motion.active.reader_at(reader, size + 5, until=2 * size)
        await turn()

        asked = [f for f in neighbour.take() if isinstance(f, Request)]
        assert [(request.first, request.count) for request in asked] == [(1, 1)]
        await motion.land(TRUE, 1)
        motion.active.reader_at(reader, 2 * size, until=2 * size)
        motion.active.close_reader(reader)
        await turn()
        assert not neighbour.said(Request)


async def test_a_blob_that_nobody_reads_a_part_of_any_more_comes_to_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.swarm.core.scope.REST_S", 0.0)
    neighbour, listener = link("a"), link("b")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        reader = motion.active.open_reader(demand=True)
        motion.active.join()
        motion.active.attach(real(neighbour))
        motion.told(real(listener), Interest(TRUE.digest))
        await motion.land(TRUE, 2)
        motion.active.close_reader(reader)
        async with asyncio.timeout(10):
            while motion.active.member:  # noqa: ASYNC110  # a rest has no event
                await asyncio.sleep(0)

        assert neighbour.said(Uninterest) == [Uninterest(TRUE.digest)]
        assert [f.ranges for f in listener.sent if isinstance(f, Offer)] == [((2, 1),)]
        assert not listener.said(Retract)


async def test_an_order_that_ends_leaves_demand_readers_their_parts(tmp_path: Path) -> None:
    neighbour, size = link("a"), TRUE.geometry.chunk_size_bytes
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        reader = motion.active.open_reader(demand=True)
        motion.active.order_bulk(None)
        motion.active.end_bulk()
        motion.active.attach(real(neighbour))
        motion.active.reader_at(reader, 3 * size, until=4 * size)
        offers(motion, neighbour, TRUE, 0, TRUE.geometry.chunk_count)
        await turn()

        asked = [f for f in neighbour.take() if isinstance(f, Request)]
        assert [(request.first, request.count) for request in asked] == [(3, 1)]
