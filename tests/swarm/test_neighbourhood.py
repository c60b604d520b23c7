"""Dialling hosts with several addresses, of which some do not answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest

from p2pdist.exchange.link import Link
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport, Watchers
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.process.health import Health
from p2pdist.process.tasks import TaskOwner
from p2pdist.swarm.core.refusals import RefusalBook
from p2pdist.swarm.core.trust import TrustBook
from p2pdist.swarm.neighbourhood import Neighbourhood
from tests.fakes.secrets import always

SECRET = b"the secret of the test cluster"


class Listener:
    """Takes in links and hears nothing else."""

    def __init__(self) -> None:
        self.neighbourhood: Neighbourhood | None = None

    def link_up(self, link: Link) -> None:
        if self.neighbourhood is not None:
            self.neighbourhood.add(link)

    def link_down(self, link: Link, reason: str) -> None: ...


def transport_of(
    listener: Listener, name: str, *, secret: bytes = SECRET, watchers: Watchers | None = None
) -> ExchangeTransport:
    member = Member(HostId(name * 32), Role.PEER, Place("dc1"))
    return ExchangeTransport(
        listener,  # type: ignore[arg-type]  # what is used of one
        secret=always(secret),
        me=lambda: member,
        limits=ExchangeLimits(),
        watchers=watchers,
    )


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def dialler(health: Health) -> AsyncIterator[Neighbourhood]:
    listener, tasks = Listener(), TaskOwner("dialler")
    transport = transport_of(listener, "a")
    neighbourhood = Neighbourhood(transport, tasks, TrustBook(), RefusalBook(Random(1)), health)
    listener.neighbourhood = neighbourhood
    yield neighbourhood
    await tasks.close()
    await transport.close()


@pytest.fixture
async def addresses() -> AsyncIterator[tuple[Address, Address]]:
    """Where the other host listens, on both families."""
    transport = transport_of(Listener(), "b")
    yield await transport.listen("127.0.0.1", 0), await transport.listen("::1", 0)
    await transport.close()


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address(*server.getsockname()[:2])


def host(*addresses: Address) -> Member:
    return Member(HostId("b" * 32), Role.PEER, Place("dc1"), addresses)


async def test_a_silent_address_costs_a_moment(
    dialler: Neighbourhood,
    addresses: tuple[Address, Address],
    silent: Address,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next one is dialled while the first may still answer, which it may here for ever."""
    monkeypatch.setattr("p2pdist.swarm.neighbourhood.DIAL_TIMEOUT_S", None)

    async with asyncio.timeout(10):
        assert await dialler.reach(host(silent, addresses[0])) is not None


async def test_a_refused_address_costs_nothing(
    dialler: Neighbourhood, addresses: tuple[Address, Address]
) -> None:
    assert await dialler.reach(host(Address("127.0.0.1", 1), addresses[0])) is not None


async def test_a_host_is_reached_over_ipv6(
    dialler: Neighbourhood, addresses: tuple[Address, Address]
) -> None:
    assert await dialler.reach(host(addresses[1])) is not None


async def test_a_host_without_a_live_address_is_not_reached(
    dialler: Neighbourhood, silent: Address
) -> None:
    assert await dialler.reach(host(Address("127.0.0.1", 1), silent)) is None
    assert await dialler.reach(host()) is None


async def test_another_host_that_has_the_address_by_now_is_left(
    dialler: Neighbourhood, addresses: tuple[Address, Address]
) -> None:
    """What would be asked of the one that was named is not asked of whoever is there."""
    listener = Listener()
    other = transport_of(listener, "c")
    try:
        reused = await other.listen("127.0.0.1", 0)

        assert await dialler.reach(host(reused)) is None
        assert dialler.links == {}

        found = await dialler.reach(host(reused, addresses[0]))
        assert found is not None
        assert found.session.member.host_id == "b" * 32
        assert list(dialler.links) == ["b" * 32]
    finally:
        await other.close()


async def test_both_ends_hear_of_another_secret(dialler: Neighbourhood, health: Health) -> None:
    strangers: asyncio.Queue[str] = asyncio.Queue()
    watchers = Watchers(stranger=strangers.put_nowait)
    other = transport_of(Listener(), "b", secret=b"another secret, long enough", watchers=watchers)
    try:
        address = await other.listen("127.0.0.1", 0)

        assert await dialler.reach(host(address)) is None

        async with asyncio.timeout(10):
            assert await strangers.get() == "127.0.0.1"
    finally:
        await other.close()
    assert health.names() == ["wrong_secret"]
    ours = transport_of(Listener(), "b")
    try:
        await ours.listen(address.host, address.port)
        assert await dialler.reach(host(address)) is not None
    finally:
        await ours.close()
    assert health.names() == []


async def test_who_waits_for_a_dial_gets_the_link_that_took_its_place(
    dialler: Neighbourhood, addresses: tuple[Address, Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts dial each other at once: one of both links goes before its callers go on."""
    member = host(addresses[0])
    dial, lost = dialler._dial, []

    async def crossed(host_id: HostId, where: list[Address]) -> Link | None:
        first = await dial(host_id, where)
        assert first is not None
        lost.append(first)
        del dialler.links[host_id]
        first.close("replaced")
        dialler.links[host_id] = await dialler.dial_at(addresses[1]) or first
        return first

    monkeypatch.setattr(dialler, "_dial", crossed)
    reached = await dialler.reach(member)
    assert reached is dialler.links[member.host_id]
    assert reached is not lost[0]
