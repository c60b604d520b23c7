"""Row 105: a host that says that it is somewhere else has nobody dial there."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from ipaddress import ip_network

import aiohttp
import pytest

from p2pdist.exchange import dialling, transport
from p2pdist.model.health import Reason
from p2pdist.model.members import Address
from p2pdist.peer.daemon import running_peer
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded
from tests.tracker.servers import wait_until

pytestmark = pytest.mark.faults

LAYER = random_bytes(2_000_000, 105)
# Addresses for documentation: no host has them, nothing is sent there.
FOREIGN = (Address("192.0.2.9", 5301), Address("198.51.100.9", 22))


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """Whom hosts dialled; who is no host of ours does not answer."""
    told: list[Address] = []
    connect = dialling.connected

    async def connected(address: Address) -> socket.socket:
        told.append(address)
        if address in FOREIGN:
            raise ConnectionRefusedError
        return await connect(address)

    monkeypatch.setattr(transport, "connected", connected)
    return told


async def test_a_host_with_foreign_addresses_pulls_and_leads_nobody_anywhere(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    dialled: list[Address],
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    tracker = await lab.tracker()
    await lab.proxy()
    stolen = lab.settings("stolen")
    stolen = replace(stolen, host=replace(stolen.host, advertise=FOREIGN))
    async with running_peer(stolen) as liar:
        with recorded(105, "addresses that are not its own") as record:
            await wait_until(lambda: liar.running.tracker.connected)
            await pull(client, url_of(liar.mirror))
            reader = await lab.peer("reader")
            await wait_until(lambda: reader.running.tracker.connected)
            await pull(client, url_of(reader.mirror))

            assert not set(FOREIGN) & set(dialled)
            (trouble,) = liar.running.node.health.look()
            assert trouble.reason is Reason.ADDRESS_REFUSED
            assert str(FOREIGN[0]) in trouble.detail
            assert "seen from 127.0.0.1" in trouble.detail
            assert "cluster.member_networks" in trouble.fix
            assert Reason.ADDRESS_REFUSED in tracker.server.health.names()
            async with client.get(f"http://{liar.admin}/api/v1/status") as answer:
                assert "address_refused" in json.dumps(await answer.json())
            record.outcome = "both pulled; nobody dialled them; named at host and tracker"


async def test_what_the_operator_names_is_dialled(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    dialled: list[Address],
) -> None:
    """Two networks, NAT, a load balancer: the setting brings back what was before."""
    registry.add_image("library/app", "1", [LAYER])
    lab.member_networks = (ip_network("192.0.2.0/24"),)
    await lab.tracker()
    await lab.proxy()
    settings = lab.settings("moved")
    settings = replace(settings, host=replace(settings.host, advertise=FOREIGN))
    async with running_peer(settings) as moved:
        await wait_until(lambda: moved.running.tracker.connected)
        await pull(client, url_of(moved.mirror))
        reader = await lab.peer("reader")
        await wait_until(lambda: reader.running.tracker.connected)
        await pull(client, url_of(reader.mirror))
        async with asyncio.timeout(10):
            await wait_until(lambda: FOREIGN[0] in dialled)

    assert FOREIGN[1] not in dialled
