"""A blob in motion and its neighbours: whose word counts, and when they are let go."""

from __future__ import annotations

import asyncio
from pathlib import Path

from p2pdist.exchange.frames import Interest, Offer, Request, Uninterest
from p2pdist.model.statements import HashBatch, Seal
from tests.peer.active_parts import SIGNER, Motion, SignedMap, in_motion, some_bytes
from tests.peer.links import FakeLink, link, real

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
        assert not motion.active.neighbours.asks(real(neighbour))
