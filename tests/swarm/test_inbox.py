"""Who is shut out when many say too much about one blob."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pdist.exchange.frames import Offer, Retract
from p2pdist.exchange.link import Link
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.members import Role
from p2pdist.process.tasks import TaskOwner
from p2pdist.swarm.blob_map import MapStatement
from p2pdist.swarm.inbox import Inbox
from tests.swarm.active_parts import SignedMap, some_bytes
from tests.swarm.links import link, real

DIGEST = digest_of(b"layer")
OFFER = Offer(DIGEST, MapId(b"m" * 16), ((0, 1),))
TRUE = SignedMap(some_bytes(4.5), b"t")


class Disk:
    """Takes statements in while it is `free`."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.offers: list[Link] = []
        self.statements = 0

    async def take(self, link: Link | None, statement: MapStatement, record: bytes) -> None:
        await self.free.wait()
        self.statements += 1

    def take_offer(self, link: Link, offer: Offer | Retract) -> None:
        self.offers.append(link)


@asynccontextmanager
async def inbox(disk: Disk) -> AsyncIterator[Inbox]:
    tasks = TaskOwner("test")
    box = Inbox(
        tasks,
        DIGEST,
        take=disk.take,
        take_offer=disk.take_offer,
        punish=lambda link, fault: pytest.fail(str(fault)),
        disk_failed=lambda error: pytest.fail(str(error)),
        configured=lambda link: link.session.member.role is Role.PROXY,
    )
    yield box
    box.end()
    await tasks.close()


async def test_rogue_links_that_fill_it_are_closed_and_the_proxy_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever came to a full inbox used to be closed: three rogues had the proxy thrown out."""
    monkeypatch.setattr("p2pdist.swarm.inbox.INBOX_MAX", 30)
    disk, proxy = Disk(), link("p", role=Role.PROXY)
    rogues = [link(name) for name in "abc"]
    async with inbox(disk) as box:
        box.hear(real(proxy), TRUE.head, b"head")
        for _ in range(40):
            for rogue in rogues:
                if not rogue.closed:
                    box.hear(real(rogue), OFFER, b"")
        box.hear(real(proxy), TRUE.seal, b"seal")
        disk.free.set()
        async with asyncio.timeout(10):
            await box.settle()

    assert disk.statements == 2
    assert not proxy.closed
    assert [rogue.closed for rogue in rogues].count(True) >= 2
    gone = [real(rogue) for rogue in rogues if rogue.closed]
    assert not set(gone) & set(disk.offers)


async def test_an_offer_behind_nothing_is_taken_in_at_once() -> None:
    disk, peer = Disk(), link("a")
    async with inbox(disk) as box:
        box.hear(real(peer), OFFER, b"")

        assert disk.offers == [real(peer)]
        assert box.settled


async def test_an_offer_waits_for_what_was_said_before_it() -> None:
    disk, peer = Disk(), link("a")
    async with inbox(disk) as box:
        box.hear(None, TRUE.head, b"head")
        box.hear(real(peer), OFFER, b"")
        assert (disk.offers, box.settled) == ([], False)

        disk.free.set()
        async with asyncio.timeout(10):
            await box.settle()
        assert disk.offers == [real(peer)]
