"""Several proxies: one of them reads the registry, the others copy; another one takes over."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import aiohttp

from p2pdist.demo.processes import free_ports
from p2pdist.model.members import Address
from p2pdist.registry_proxy.daemon import RunningProxy
from p2pdist.tracker.daemon import RunningTracker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry

MIB = 1 << 20
LAYERS = [random_bytes(6 * MIB + 5, 51), random_bytes(4 * MIB, 52), random_bytes(700, 53)]
BIG = random_bytes(32 * MIB, 54)


def bodies(registry: FakeRegistry, digest: str) -> int:
    return registry.count("GET", f"/blobs/{digest}")


async def connected(*proxies: RunningProxy) -> None:
    async with asyncio.timeout(10):
        while not all(p.running.tracker.connected for p in proxies):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_two_proxies_of_a_datacenter_read_each_blob_once(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    proxies = [await lab.proxy(name) for name in ("one", "two")]
    await connected(*proxies)

    await asyncio.gather(*(pull(client, url_of(p.registry)) for p in proxies))

    assert [bodies(registry, d) for d in image.layer_digests[:2]] == [1, 1]


async def test_peers_ask_one_proxy_for_a_blob_whatever_their_order(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    proxies = [await lab.proxy(name) for name in ("one", "two")]
    first = await lab.peer("a")
    lab.proxies.reverse()
    second = await lab.peer("b")
    await connected(*proxies)

    await asyncio.gather(*(pull(client, url_of(p.mirror)) for p in (first, second)))

    assert [bodies(registry, d) for d in image.layer_digests[:2]] == [1, 1]
    copied = sum(p.running.node.counters.received["proxy"] for p in proxies)
    assert copied == 0, "a proxy copied from the other what no peer asked it for"


async def test_the_other_proxy_takes_over_in_the_middle(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """The proxy that reads the registry dies: one response at the client, few bytes again."""
    image = registry.add_image("library/app", "1", [BIG])
    digest = image.layer_digests[0]
    registry.bandwidth_bytes_per_s = 16 * MIB
    await lab.tracker()
    async with AsyncExitStack() as first_life, AsyncExitStack() as second_life:
        one = await first_life.enter_async_context(lab.proxy_context("one"))
        two = await second_life.enter_async_context(lab.proxy_context("two"))
        lives = {one: first_life, two: second_life}
        peer = await lab.peer("a")
        await connected(one, two)
        reading = asyncio.get_running_loop().create_task(
            read_blob(client, url_of(peer.mirror), digest), name="read"
        )
        async with asyncio.timeout(20):
            while registry.payload_bytes[digest] < len(BIG) // 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        lessee = max(lives, key=lambda proxy: proxy.running.node.counters.received["upstream"])
        await lives[lessee].aclose()

        body = await reading

    assert body == BIG
    assert registry.payload_bytes[digest] <= 1.1 * len(BIG)


async def two_datacenters(lab: Lab) -> tuple[Lab, Lab, list[RunningTracker]]:
    """Two federated datacenters, without `parents`."""
    addresses = [Address("127.0.0.1", port) for port in free_ports(2)]
    here, there = lab.datacenter("dc1"), lab.datacenter("dc2")
    here.federation = (url_of(addresses[1], "tcp"),)
    there.federation = (url_of(addresses[0], "tcp"),)
    trackers = [await here.tracker(listen=addresses[0]), await there.tracker(listen=addresses[1])]
    async with asyncio.timeout(10):
        while not all(t.server.core.grants.remotes for t in trackers):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return here, there, trackers


async def test_federated_datacenters_read_the_registry_once(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    here, there, _ = await two_datacenters(lab)
    proxies = [await here.proxy(), await there.proxy()]
    peers = [await here.peer("a"), await there.peer("b")]
    await connected(*proxies)

    await asyncio.gather(*(pull(client, url_of(p.mirror)) for p in peers))

    assert [bodies(registry, d) for d in image.layer_digests[:2]] == [1, 1]
    across = sum(p.running.node.counters.received["wan"] for p in proxies)
    assert across <= 1.05 * sum(map(len, LAYERS))


async def test_a_later_datacenter_copies_from_the_one_that_has_it(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    here, there, _ = await two_datacenters(lab)
    proxies = [await here.proxy(), await there.proxy()]
    await connected(*proxies)

    for proxy in proxies:
        await pull(client, url_of(proxy.registry))

    assert [bodies(registry, d) for d in image.layer_digests[:2]] == [1, 1]
    assert proxies[1].running.node.counters.received["wan"] > 0
