"""A proxy that takes connections and says nothing, in front of real daemons."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from p2pdist.model.health import Reason
from p2pdist.peer.daemon import RunningPeer
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

LAYERS = [random_bytes(3_000_000, 71), random_bytes(900, 72)]


@dataclass
class Tarpit:
    """Takes whatever comes, and lets nobody go."""

    url: str = ""
    taken: int = 0

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        try:
            while await reader.read(65536):
                pass
        finally:
            writer.close()


@asynccontextmanager
async def tarpit() -> AsyncIterator[Tarpit]:
    pit = Tarpit()
    server = await asyncio.start_server(pit.hold, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    pit.url = f"http://{host}:{port}"
    try:
        yield pit
    finally:
        server.close()


async def until_degraded(peer: RunningPeer) -> None:
    async with asyncio.timeout(30):
        while Reason.PROXY_HUNG.value not in peer.running.node.health.names():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_pull_goes_on_by_the_other_proxy(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    with recorded(58, "proxy hangs", "first of two, a cold image") as record:
        await lab.tracker()
        async with tarpit() as pit:
            lab.proxies.append(pit.url)
            await lab.proxy()
            peer = await lab.peer("a")

            pulled = await pull(client, url_of(peer.mirror))
            await until_degraded(peer)

        assert pit.taken
        assert peer.running.node.proxy_links.answering.book.hanging == [pit.url]
        assert peer.running.node.counters.fallbacks == {}
        assert registry.count("GET", f"/blobs/{image.layer_digests[0]}") == 1
        assert set(image.layer_digests) <= set(pulled)
        record.outcome = "served by the other one, read once; named in degraded"


async def test_a_host_with_no_other_proxy_goes_to_the_registry(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    with recorded(58, "proxy hangs", "the only one, a registry to go to") as record:
        async with tarpit() as pit:
            lab.proxies.append(pit.url)
            peer = await lab.peer("a", direct=True)

            pulled = await pull(client, url_of(peer.mirror))
            await until_degraded(peer)

        assert set(image.layer_digests) <= set(pulled)
        assert peer.running.node.proxy_links.answering.hangs_total == 1
        record.outcome = "served from the registry; named in degraded"
