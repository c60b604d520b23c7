"""What a node keeps of its requests when they were answered, or nobody wants the answer."""

from __future__ import annotations

import asyncio

import aiohttp

from p2pdist.swarm.node import Node
from tests.cluster.test_links import until
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry

MIB = 1 << 20
LAYERS = [random_bytes(size, seed) for seed, size in enumerate((5 * MIB + 17, 3 * MIB, 2 * MIB))]


async def test_nothing_is_kept_of_requests_that_were_answered(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    await lab.proxy()
    peers = [await lab.peer(name) for name in ("a", "b")]

    await asyncio.gather(*(pull(client, url_of(p.mirror)) for p in peers))

    for peer in peers:
        node = peer.running.node
        assert sum(node.counters.received.values()) >= sum(map(len, LAYERS))
        assert all(active.complete for active in node.actives.values())
        assert len(node.core.requests) == 0
        await idle(node)


async def idle(node: Node) -> None:
    await until(lambda: not any(link.busy for link in node.neighbourhood.links.values()))
