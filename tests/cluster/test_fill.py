"""All of a blob comes to a host in time, because somebody reads parts of it there."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from p2pdist.model.ids import Digest
from p2pdist.peer.daemon import RunningPeer
from p2pdist.registry.ports import FILL_HEADER, HELD_HEADER
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry import FakeRegistry

LARGE, SMALL = random_bytes(9 << 20, 1), random_bytes(40_000, 2)


async def head(client: aiohttp.ClientSession, peer: RunningPeer, digest: str) -> bool | int:
    """Ask for a fill; whether the blob is here, or the status of a refusal."""
    url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{digest}"
    async with client.head(url, headers={FILL_HEADER: "1"}) as answer:
        return answer.headers.get(HELD_HEADER) == "1" if answer.status == 200 else answer.status


async def held(client: aiohttp.ClientSession, peer: RunningPeer, digest: str) -> None:
    async with asyncio.timeout(30):
        while True:
            if await head(client, peer, digest):
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def peer(lab: Lab) -> RunningPeer:
    await lab.tracker()
    await lab.proxy()
    return await lab.peer("a")


@pytest.fixture
def layers(registry: FakeRegistry) -> list[Digest]:
    return registry.add_image("library/app", "1", [LARGE, SMALL]).layer_digests


async def test_it_is_brought_once_whoever_asks_and_is_served_from_here(
    registry: FakeRegistry, peer: RunningPeer, layers: list[Digest], client: aiohttp.ClientSession
) -> None:
    for digest, body in zip(layers, (LARGE, SMALL), strict=True):
        assert await head(client, peer, digest) is False
        await asyncio.gather(*(held(client, peer, digest) for _ in range(3)))

        received = sum(peer.running.node.counters.received.values())
        url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{digest}"
        async with client.get(url) as answer:
            assert await answer.read() == body
        assert sum(peer.running.node.counters.received.values()) == received
        assert registry.count("GET", f"/blobs/{digest}") == 1


async def test_without_being_asked_nothing_is_brought(
    registry: FakeRegistry, peer: RunningPeer, layers: list[Digest], client: aiohttp.ClientSession
) -> None:
    url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{layers[0]}"
    async with client.head(url) as answer:
        assert answer.status == 200
        assert HELD_HEADER not in answer.headers

    assert peer.running.node.store.get(layers[0]) is None


async def test_what_is_nowhere_is_a_refusal(
    registry: FakeRegistry, peer: RunningPeer, client: aiohttp.ClientSession
) -> None:
    assert await head(client, peer, f"sha256:{'0' * 64}") == 404
