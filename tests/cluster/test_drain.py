"""SIGTERM: what runs goes on to its end, nothing new is taken in."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from p2pdist.model.control import digest_key
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry

MIB = 1 << 20
LAYER = random_bytes(24 * MIB, 61)


async def test_a_body_on_its_way_is_finished_and_new_ones_are_not_taken(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    registry.bandwidth_bytes_per_s = 24 * MIB
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{image.layer_digests[0]}"

    async with client.get(url) as answer:
        begun = await answer.content.readexactly(MIB)
        draining = asyncio.get_running_loop().create_task(
            peer.mirror_server.close(), name="drain mirror"
        )
        rest = await answer.read()
    await draining

    assert begun + rest == LAYER
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get(url)


async def test_a_draining_peer_is_named_to_nobody_and_finishes_what_it_sends(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    tracker = await lab.tracker()
    await lab.proxy()
    leaving, staying = await lab.peer("a"), await lab.peer("b")
    await pull(client, url_of(leaving.mirror))
    reading = asyncio.get_running_loop().create_task(
        read_blob(client, url_of(staying.mirror), image.layer_digests[0]), name="read"
    )
    async with asyncio.timeout(10):
        while not staying.running.node.counters.received["dc"]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    await leaving.running.drain()

    swarm = tracker.server.core.swarms.get(digest_key(image.layer_digests[0]))
    assert swarm is not None
    assert await reading == LAYER
    assert leaving.running.me().host_id not in tracker.server.core.host_ids()
    assert staying.running.node.counters.wasted_bytes == 0
