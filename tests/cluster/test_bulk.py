"""Bulk through real daemons: its rate, and what a runtime's pull does to it.

Single seconds and the mean are for a clock of one's own (`tests/swarm/core/test_bulk.py`) and for
whole hosts (`tests/e2e/test_prewarm_rates.py`); here nothing may come that was not due yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.peer.daemon import RunningPeer
from p2pdist.registry_proxy.authority import ProxyAuthority
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core.bulk import BURST_S, bulk_bucket
from p2pdist.swarm.node import Node
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, Fault

MB = 1_000_000
RATE = 20 * MB
CHUNK = 256 * 1024
DEADLINE_S = 30.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # counters have no event
            await asyncio.sleep(0.005)


def received(node: Node) -> int:
    return sum(node.counters.received.values())


async def sampled(node: Node, over: Callable[[], bool]) -> list[tuple[float, int]]:
    """(seconds, bytes received so far), every few milliseconds until `over`."""
    loop, samples = asyncio.get_running_loop(), list[tuple[float, int]]()

    def finished() -> bool:
        samples.append((loop.time(), received(node)))
        return over()

    await until(finished)
    return samples


def ahead_of_rate(samples: list[tuple[float, int]], rate: int, began_s: float) -> float:
    """The most bytes that were ever there before a rate would have brought them."""
    return max(nbytes - rate * (at_s - began_s) for at_s, nbytes in samples)


def in_bulk(peer: RunningPeer, layer: bytes, digest: Digest, rate: int = 0) -> ActiveBlob:
    node = peer.running.node
    budget = bulk_bucket(rate, asyncio.get_running_loop().time()) if rate else None
    active = node.activate(digest, len(layer))
    node.fetch_bulk(active, budget)
    return active


async def test_nothing_comes_before_the_rate_brings_it(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    layers = [random_bytes(40 * MB, seed) for seed in (1, 2)]
    image = registry.add_image("library/app", "1", layers)
    await lab.tracker()
    await lab.proxy()
    source = await lab.peer("source")
    await pull(client, url_of(source.mirror))
    peer = await lab.peer("a")
    node = peer.running.node

    began_s = asyncio.get_running_loop().time()
    budget = bulk_bucket(RATE, began_s)
    actives = [node.activate(d, 40 * MB) for d in image.layer_digests]
    for active in actives:
        node.fetch_bulk(active, budget)
    samples = await sampled(node, lambda: all(a.complete for a in actives))

    # A budget begins with its burst, and the last of it may be a debt of one chunk.
    assert ahead_of_rate(samples, RATE, began_s) <= RATE * BURST_S + CHUNK
    assert node.core.bulk.received_bytes == 80 * MB


async def test_what_is_opened_comes_at_full_speed_and_the_rest_waits_for_it(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """A slow job has begun on both layers when a runtime reads one of them."""
    layers = [random_bytes(30 * MB, seed) for seed in (1, 2)]
    image = registry.add_image("library/app", "1", layers)
    await lab.tracker()
    await lab.proxy()
    source = await lab.peer("source")
    await pull(client, url_of(source.mirror))
    peer = await lab.peer("a")
    budget = bulk_bucket(MB / 4, asyncio.get_running_loop().time())
    actives = [peer.running.node.activate(d, 30 * MB) for d in image.layer_digests]
    for active in actives:
        peer.running.node.fetch_bulk(active, budget)
    await until(lambda: peer.running.node.core.bulk.received_bytes > 0)

    url = f"{url_of(peer.mirror)}/v2/library/app/manifests/1"
    async with client.get(url, raise_for_status=True):
        pass
    async with asyncio.timeout(DEADLINE_S):  # at the job's rate: 120 s
        body = await read_blob(client, url_of(peer.mirror), image.layer_digests[0])

    assert body == layers[0]
    assert peer.running.node.core.bulk.received_bytes < 15 * MB
    assert not actives[1].complete
    await until(lambda: actives[0].complete)


async def test_bulk_makes_room_while_a_reader_waits_and_goes_on_afterwards(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """The reader's source is stuck in the middle, so that it waits for as long as we like."""
    wanted, ahead = random_bytes(4 * MB, 1), random_bytes(60 * MB, 2)
    waited_for = registry.add_image("library/app", "1", [wanted]).layer_digests[0]
    bulk = registry.add_image("library/ahead", "1", [ahead]).layer_digests[0]
    registry.faults[waited_for] = Fault(stall_after=2 * MB)
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    node = peer.running.node
    manifest = f"{url_of(peer.mirror)}/v2/library/app/manifests/1"
    async with client.get(manifest, raise_for_status=True):
        pass
    other = f"{url_of(peer.mirror)}/v2/library/ahead/manifests/1"
    async with client.get(other, raise_for_status=True):
        pass
    read = asyncio.create_task(read_blob(client, url_of(peer.mirror), waited_for))  # noqa: TID251
    await until(lambda: node.core.bulk.gate.shut(asyncio.get_running_loop().time()))

    active = in_bulk(peer, ahead, bulk)
    await until(lambda: node.core.bulk.gate.paused_s > 0.5)
    assert node.core.bulk.received_bytes < 5 * MB
    registry.release()

    assert await read == wanted
    await until(lambda: active.complete)


async def test_a_job_that_ended_asks_for_nothing_more_and_a_reader_takes_it_up(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    layer = random_bytes(10 * MB, 1)
    digest = registry.add_image("library/app", "1", [layer]).layer_digests[0]
    await lab.tracker()
    await lab.proxy()
    source = await lab.peer("source")
    await pull(client, url_of(source.mirror))
    peer = await lab.peer("a")
    node = peer.running.node
    active = in_bulk(peer, layer, digest, rate=2 * MB)
    await until(lambda: node.core.bulk.received_bytes > 0)

    node.end_bulk(active)

    assert not active.in_use
    at_end = received(node)
    await asyncio.sleep(1.0)  # the time in which 2 MB more would come
    assert received(node) <= at_end + MB / 2
    url = f"{url_of(peer.mirror)}/v2/library/app/manifests/1"
    async with client.get(url, raise_for_status=True):
        pass
    assert await read_blob(client, url_of(peer.mirror), digest) == layer


async def test_a_proxy_paces_what_comes_from_upstream_until_somebody_waits_for_it(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    layer, rate = random_bytes(60 * MB, 1), MB
    digest = registry.add_image("library/app", "1", [layer]).layer_digests[0]
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")
    node = proxy.running.node
    name = ImageName("docker.io", "library/app")

    authority = node.authority
    assert isinstance(authority, ProxyAuthority)
    began_s = asyncio.get_running_loop().time()
    active = authority.obtain(digest, len(layer), [name], bulk_bucket(rate, began_s))
    samples = await sampled(node, lambda: received(node) > 2 * rate)

    assert ahead_of_rate(samples, rate, began_s) <= rate * BURST_S + CHUNK
    assert active.bulk
    url = f"{url_of(peer.mirror)}/v2/library/app/manifests/1"
    async with client.get(url, raise_for_status=True):
        pass
    assert await read_blob(client, url_of(peer.mirror), digest) == layer
    assert registry.count("GET", f"/blobs/{digest}") == 2  # the paced body was left for another
    await until(lambda: active.complete)
