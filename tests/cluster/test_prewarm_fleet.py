"""The benchmark's simulated hosts: their protocol against a real tracker, their conduct."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import pytest

from bench.prewarm.content import make_content
from bench.prewarm.hosts import Conduct, Fleet, SimHost, fill
from p2pdist.model.control import FromTracker, Prewarm, ProofPart, Prove
from p2pdist.tracker.server import TrackerServer
from tests.tracker.servers import SECRET, running, tracker_server, wait_until

HOSTS: Final = 500
CONTENT: Final = make_content(Random(1))
ORDER: Final = Prewarm("job-1", [])


@asynccontextmanager
async def connected_fleet(
    count: int, *, wronged: float = 0.0, slow: float = 0.0
) -> AsyncIterator[tuple[TrackerServer, Fleet]]:
    server = tracker_server()
    async with running(server) as url:
        port = int(url.rpartition(":")[2])
        fleet = Fleet("127.0.0.1", port, SECRET, CONTENT, Random(2), fetch_s=(0.2, 0.4))
        fill(fleet, count=count, dcs=("dc1", "dc2"), wronged=wronged, slow=slow, proxies=1)
        try:
            await fleet.connect(at_once=64)
            yield server, fleet
        finally:
            await fleet.close()


def holders(server: TrackerServer) -> int:
    """Hosts that the tracker knows to hold the whole image."""
    records = [server.core.export(host) for host in server.core.host_ids()]
    needed = set(CONTENT.keys)
    complete = [{d.key for d in r.deltas if d.complete} for r in records if r is not None]
    return sum(needed <= keys for keys in complete)


def give(host: SimHost, message: FromTracker) -> None:
    assert host.line is not None
    host.take(host.line, message)


def order_all(fleet: Fleet) -> None:
    for host in fleet.hosts:
        give(host, ORDER)


def ask(offset: int = 4096) -> Prove:
    return Prove(1, bytes(range(32)), [ProofPart(CONTENT.layers[1], offset, 4096)])


async def test_a_tracker_knows_what_five_hundred_hosts_announced() -> None:
    async with connected_fleet(HOSTS) as (server, fleet):
        assert server.core.hosts_connected == HOSTS + 2

        order_all(fleet)

        await wait_until(lambda: holders(server) == HOSTS + 2)
        assert server.core.counters.protocol_faults_total == 0
        assert not fleet.seen.lost


async def test_hosts_come_back_to_a_tracker_that_starts_again_and_announce_anew() -> None:
    first = tracker_server()
    address = await first.start()
    fleet = Fleet("127.0.0.1", address.port, SECRET, CONTENT, Random(3), fetch_s=(0.1, 0.2))
    fill(fleet, count=20, dcs=("dc1",), wronged=0.0, slow=0.0, proxies=1)
    try:
        await fleet.connect(at_once=8)
        order_all(fleet)
        await wait_until(lambda: holders(first) == 21)
        await first.close()
        second = tracker_server(address.port)
        async with running(second):
            await wait_until(lambda: holders(second) == 21)
    finally:
        await fleet.close()


async def test_a_slow_host_keeps_its_last_part_until_it_is_let_go() -> None:
    async with connected_fleet(10, slow=0.2) as (server, fleet):
        order_all(fleet)
        await wait_until(lambda: holders(server) == 10)
        assert {host.truth.complete_s is None for host in fleet.of(Conduct.SLOW)} == {True}

        fleet.release_slow()

        await wait_until(lambda: holders(server) == 12)


@pytest.fixture
async def wronged() -> AsyncIterator[tuple[TrackerServer, Fleet]]:
    """One host of each conduct, all of which hold the image but the one without room."""
    async with connected_fleet(6, wronged=1.0) as (server, fleet):
        order_all(fleet)
        await wait_until(lambda: holders(server) == 7)
        for host in fleet.hosts:
            give(host, ask())
        yield server, fleet


def one(fleet: Fleet, conduct: Conduct) -> SimHost:
    (host,) = fleet.of(conduct)
    return host


async def test_a_host_without_room_never_holds_anything(
    wronged: tuple[TrackerServer, Fleet],
) -> None:
    truth = one(wronged[1], Conduct.NO_SPACE).truth

    assert truth.complete_s is None
    assert truth.proven_s is None


@pytest.mark.parametrize("conduct", [Conduct.WIPE, Conduct.EVICT])
async def test_a_loss_is_announced(wronged: tuple[TrackerServer, Fleet], conduct: Conduct) -> None:
    server, fleet = wronged

    assert fleet.misbehave([conduct]) == 1

    await wait_until(lambda: holders(server) == 6)
    assert one(fleet, conduct).truth.ended_s is not None


async def test_a_host_that_vanished_does_not_come_back(
    wronged: tuple[TrackerServer, Fleet],
) -> None:
    server, fleet = wronged

    assert fleet.misbehave([Conduct.VANISH]) == 1

    await wait_until(lambda: server.core.hosts_connected == 7)
    host = one(fleet, Conduct.VANISH)
    host.dial()
    assert host.line is None


@pytest.mark.parametrize("conduct", [Conduct.LIE_WRONG, Conduct.LIE_SILENT])
async def test_a_liar_announces_nothing(
    wronged: tuple[TrackerServer, Fleet], conduct: Conduct
) -> None:
    server, fleet = wronged

    assert fleet.misbehave([conduct, Conduct.WIPE]) == 2

    await wait_until(lambda: holders(server) == 6)
    assert one(fleet, conduct).truth.ended_s is not None


async def test_a_liar_has_no_right_proof_and_a_good_host_has() -> None:
    async with connected_fleet(6, wronged=1.0) as (_, fleet):
        order_all(fleet)
        hosts = [*fleet.of(Conduct.LIE_WRONG), *fleet.of(Conduct.LIE_SILENT), fleet.hosts[0]]
        await wait_until(lambda: all(host.truth.complete_s is not None for host in hosts))
        for host in hosts[:2]:
            host.misbehave()

        for host in hosts:
            give(host, ask())

        assert [host.truth.proven_s is not None for host in hosts] == [False, False, True]


def test_a_proof_is_empty_for_bytes_that_are_not_there() -> None:
    assert len(CONTENT.prove(ask())) == 32
    assert CONTENT.prove(ask()) != CONTENT.prove(ask(offset=4097))
    nowhere = ProofPart("sha256:" + "0" * 64, 0, 1)
    assert CONTENT.prove(Prove(1, bytes(32), [nowhere])) == b""


async def test_connections_are_refused_without_the_secret() -> None:
    server = tracker_server()
    async with running(server) as url:
        port = int(url.rpartition(":")[2])
        fleet = Fleet("127.0.0.1", port, b"x" * 32, CONTENT, Random(4), fetch_s=(0.1, 0.2))
        fill(fleet, count=1, dcs=("dc1",), wronged=0.0, slow=0.0, proxies=0)
        try:
            fleet.hosts[0].dial()
            await wait_until(lambda: fleet.seen.lost)
        finally:
            await fleet.close()
        assert not fleet.hosts[0].welcomed.is_set()


async def test_ten_thousand_names_are_no_two_alike() -> None:
    fleet = Fleet("127.0.0.1", 1, SECRET, CONTENT, Random(5), fetch_s=(0.1, 0.2))

    fill(fleet, count=10_000, dcs=("dc1", "dc2"), wronged=0.05, slow=0.005, proxies=2)
    assert len({host.member.host_id for host in fleet.hosts}) == 10_004
    assert len(fleet.of(Conduct.EVICT)) == 83
    assert len(fleet.of(Conduct.SLOW)) == 50
