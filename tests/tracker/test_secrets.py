"""Control connections while one cluster secret takes another one's place: real tracker, real host.

Each end takes up a file of its own, as two hosts do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest

from p2pdist.control.client import TrackerClient
from p2pdist.control.core import state
from p2pdist.errors import PeerFault
from p2pdist.model.control_wire import MAGIC, Kind
from p2pdist.model.handshake import PROOF_BYTES, ClientHandshake
from p2pdist.model.members import Address
from p2pdist.process.proxy_key_holder import ProxyKeyHolder
from p2pdist.process.secret_holder import SecretHolder
from p2pdist.tracker.server import TrackerServer
from tests.control.test_client import Host
from tests.fakes.secrets import held, only
from tests.tracker.hosts import member
from tests.tracker.servers import SIGNER, TRACKER, connected, dialled, running, wait_until

OLD, NEW = b"the old secret of the cluster", b"the new secret of the cluster"


def tracker_with(holder: SecretHolder) -> TrackerServer:
    return TrackerServer(
        Address("127.0.0.1", 0),
        secret=holder,
        me=TRACKER,
        proxy_keys=ProxyKeyHolder(None, [SIGNER.public_key_bytes]),
        rng=Random(1),
    )


async def now(holder: SecretHolder, *each: bytes) -> None:
    await holder._take(only(*each))


@dataclass
class Both:
    at_tracker: SecretHolder
    at_host: SecretHolder
    host: Host
    client: TrackerClient


@asynccontextmanager
async def client_of(url: str, at_host: SecretHolder, host: Host) -> AsyncIterator[TrackerClient]:
    client = TrackerClient(
        [url],
        secret=at_host.believed,
        me=lambda: host.me,
        listener=host,
        rng=Random(2),
        numbers=dict,
    )

    async def cut() -> None:
        client.cut_unbelieved()

    at_host.on_taken.append(cut)
    client.start()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def connected_under(*each: bytes) -> AsyncIterator[Both]:
    at_tracker, at_host, host = held(*each), held(*each), Host(member(1))
    async with (
        running(tracker_with(at_tracker)) as url,
        client_of(url, at_host, host) as client,
    ):
        await wait_until(lambda: host.ups == 1)
        yield Both(at_tracker, at_host, host, client)


async def test_a_host_stays_until_the_secret_it_came_by_is_gone_and_comes_by_the_other() -> None:
    async with connected_under(OLD) as both:
        for each in ((OLD, NEW), (NEW, OLD)):
            await now(both.at_tracker, *each)
            await now(both.at_host, *each)
        assert (both.client.connected, both.host.downs) == (True, 0)

        await now(both.at_tracker, NEW)
        await wait_until(lambda: both.host.ups == 2)
        assert both.host.downs == 1

        await now(both.at_host, NEW)
        assert (both.client.connected, both.host.downs) == (True, 1)


async def test_a_host_that_drops_a_secret_first_connects_anew_by_the_other() -> None:
    async with connected_under(OLD, NEW) as both:
        await now(both.at_host, NEW)
        await wait_until(lambda: both.host.ups == 2)

        await now(both.at_host, NEW, OLD)
        await now(both.at_tracker, NEW)
        assert (both.client.connected, both.host.downs) == (True, 1)


async def test_what_was_dropped_opens_nothing_and_ends_what_it_had_opened() -> None:
    holder = held(OLD, NEW)
    server = tracker_with(holder)
    async with running(server) as url:
        async with dialled(url, member(1), secret=OLD) as host:
            await now(holder, NEW)
            await host.wait_closed()
        with pytest.raises(PeerFault):
            async with dialled(url, member(1), secret=OLD):
                pass
        async with dialled(url, member(2), secret=NEW):
            await wait_until(lambda: server.core.hosts_connected == 1)


async def test_who_began_with_a_secret_that_goes_meanwhile_is_not_taken_in() -> None:
    holder = held(OLD, NEW)
    server = tracker_with(holder)
    async with running(server) as url, connected(url) as host:
        handshake = ClientHandshake(only(OLD), member(1), os.urandom)
        await host.send_bytes(MAGIC)
        await host.send_frame(Kind.HELLO, handshake.hello)
        _, answer = await host.receive_frame()
        proof, _ = handshake.finish(answer[PROOF_BYTES:], answer[:PROOF_BYTES])
        await now(holder, NEW)

        await host.send_frame(Kind.PROOF, proof)

        await host.wait_closed()
        assert server.core.counters.strangers_total == 1
        assert server.core.hosts_connected == 0


async def test_a_dial_that_began_with_a_secret_that_goes_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "CONNECT_S", 3600.0)  # else it is given up for its time
    hellos = list[bytes]()

    async def heard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hellos.append(await reader.read(4096))
        await reader.read()  # until the host ends it
        writer.close()

    async with await asyncio.start_server(heard, "127.0.0.1", 0) as server:
        address = Address(*server.sockets[0].getsockname())
        at_host, host = held(OLD), Host(member(1))
        async with client_of(f"tcp://{address}", at_host, host):
            await wait_until(lambda: len(hellos) == 1)
            await now(at_host, NEW)
            await wait_until(lambda: len(hellos) == 2)
