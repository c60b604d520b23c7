"""An image through real daemons: who fetches what, and how often."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from p2pdist.swarm.core.circle import Circle
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, Fault

MIB = 1 << 20
LAYERS = [random_bytes(5 * MIB + 17, 1), random_bytes(3 * MIB, 2), random_bytes(900, 3), b""]


def blob_bodies(registry: FakeRegistry, digest: str) -> int:
    return registry.count("GET", f"/blobs/{digest}")


async def test_two_peers_share_one_upstream_body_per_blob(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    proxy = await lab.proxy()
    peers = [await lab.peer(name) for name in ("a", "b")]

    await asyncio.gather(*(pull(client, url_of(p.mirror)) for p in peers))

    size = sum(map(len, LAYERS))
    assert [blob_bodies(registry, d) for d in image.layer_digests[:3]] == [1, 1, 1]
    counters = [p.running.node.counters for p in peers]
    from_peers = sum(c.received["dc"] for c in counters)
    from_proxy = sum(c.received["proxy"] for c in counters)
    # One copy each; a proxy that would be idle brings second copies, and nothing limits it here.
    assert from_peers > size / 4
    assert from_proxy < 1.75 * size
    assert proxy.running.node.counters.sent["peer"] < 1.75 * size


async def test_fifty_cold_requests_at_one_peer_are_one_upstream_body(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    digest = image.layer_digests[0]

    url = url_of(peer.mirror)
    bodies = await asyncio.gather(*(read_blob(client, url, digest) for _ in range(50)))

    assert all(body == LAYERS[0] for body in bodies)
    assert blob_bodies(registry, digest) == 1
    assert sum(peer.running.node.counters.received.values()) <= 1.05 * len(LAYERS[0])


async def test_fifty_cold_requests_at_the_proxy_are_one_upstream_body(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    proxy = await lab.proxy()
    digest = image.layer_digests[0]

    url = url_of(proxy.registry)
    bodies = await asyncio.gather(*(read_blob(client, url, digest) for _ in range(50)))

    assert all(body == LAYERS[0] for body in bodies)
    assert blob_bodies(registry, digest) == 1


async def test_the_second_datacenter_copies_from_the_first_one(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    first = await lab.proxy("first", dc="dc1")
    second = await lab.proxy("second", dc="dc2", parents=[url_of(first.registry)])

    await pull(client, url_of(second.registry))

    chunked = len(LAYERS[0]) + len(LAYERS[1])
    assert [blob_bodies(registry, d) for d in image.layer_digests[:2]] == [1, 1]
    received = second.running.node.counters.received
    assert chunked <= received["wan"] <= 1.05 * chunked + MIB // 4
    assert received["upstream"] == 0


async def test_a_dead_parent_costs_time_and_no_pull(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS)
    second = await lab.proxy("second", dc="dc2", parents=["http://127.0.0.1:1"])

    bodies = await pull(client, url_of(second.registry))

    assert sorted(map(len, bodies.values()))[-1] == len(LAYERS[0])


async def test_a_swarm_serves_after_registry_and_proxy_are_gone(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Manifest, tag and blobs come from a peer alone."""
    registry.add_image("library/app", "1", LAYERS)
    tracker = await lab.tracker()
    async with lab.proxy_context():
        first = await lab.peer("first")
        await pull(client, url_of(first.mirror))
    await announced(tracker, first)
    for digest in list(registry.payload_bytes):
        registry.faults[digest] = Fault(status=500)
    third = await lab.peer("third")

    await pull(client, url_of(third.mirror))

    received = third.running.node.counters.received
    assert received["dc"] >= sum(map(len, LAYERS))
    assert received["proxy"] == received["upstream"] == 0


async def test_without_proxy_and_swarm_the_peer_goes_to_the_registry_itself(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """The bytes reach the runtime, checked as a whole, and are not kept or offered."""
    registry.add_image("library/app", "1", LAYERS)
    lab.proxies.append("http://127.0.0.1:1")
    peer = await lab.peer("alone", direct=True)

    await pull(client, url_of(peer.mirror))

    assert peer.running.node.counters.fallbacks["upstream"] >= len(LAYERS[0]) + len(LAYERS[1])
    assert peer.running.store.blobs() == []


async def test_a_client_that_leaves_does_not_stop_the_blob(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    digest = image.layer_digests[0]
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{digest}"
    async with client.get(url) as answer:
        await answer.content.readexactly(1000)

    body = await read_blob(client, url_of(peer.mirror), digest)

    assert body == LAYERS[0]
    assert blob_bodies(registry, digest) == 1


async def test_a_tracker_that_goes_away_stops_no_pull(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS)
    lab.trackers.append("tcp://127.0.0.1:1")
    await lab.proxy()
    peer = await lab.peer("a")

    async with asyncio.timeout(20):
        await pull(client, url_of(peer.mirror))


async def test_a_slow_registry_is_not_asked_by_every_host_as_well(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """The first chunk takes longer than a reader's patience, but the proxy makes progress."""
    slow = random_bytes(300_000, 9)
    image = registry.add_image("library/app", "1", [slow])
    digest = image.layer_digests[0]
    registry.faults[digest] = Fault(bytes_per_s=40_000)
    await lab.tracker()
    await lab.proxy()
    peers = [await lab.peer(name, direct=True) for name in ("a", "b")]

    await asyncio.gather(*(pull(client, url_of(p.mirror)) for p in peers))

    assert blob_bodies(registry, digest) == 1
    assert [dict(p.running.node.counters.fallbacks) for p in peers] == [{}, {}]


@pytest.mark.parametrize("part", [(0, 99), (3 * MIB, 3 * MIB + 500), (5 * MIB, None)])
async def test_a_range_of_a_cold_blob_is_served(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, part: tuple[int, int | None]
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    digest = image.layer_digests[0]
    await lab.proxy()
    peer = await lab.peer("a")
    first, last = part
    headers = {"Range": f"bytes={first}-{'' if last is None else last}"}

    url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{digest}"
    async with client.get(url, headers=headers) as answer:
        body = await answer.read()

    assert answer.status == 206
    assert body == LAYERS[0][first : None if last is None else last + 1]


async def test_everything_works_over_ipv6(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    lab.loopback, lab.proxy_upload_rate = "::1", 2 * sum(map(len, LAYERS))
    tracker = await lab.tracker()
    await lab.proxy()
    peers = [await lab.peer(name) for name in ("a", "b")]

    for peer in peers:
        await pull(client, url_of(peer.mirror))
        await announced(tracker, peer)

    assert peers[0].mirror.host == "::1"
    assert [blob_bodies(registry, d) for d in image.layer_digests[:3]] == [1, 1, 1]
    assert peers[1].running.node.counters.received["dc"] > 0


async def test_hosts_that_take_no_more_neighbours_still_get_everything(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    circles: list[Circle] = []

    def smallest() -> Circle:
        circles.append(Circle(size_max=1))
        return circles[-1]

    monkeypatch.setattr("p2pdist.swarm.core.neighbours.Circle", smallest)
    registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    await lab.proxy()
    peers = [await lab.peer(name) for name in "abcde"]

    pulled = await asyncio.gather(*(pull(client, url_of(p.mirror)) for p in peers))

    assert all(
        sorted(map(len, bodies.values())) == sorted(map(len, pulled[0].values()))
        for bodies in pulled
    )
    assert max(map(len, circles)) == 1
    assert sum(p.running.node.counters.received["dc"] for p in peers) > 0
