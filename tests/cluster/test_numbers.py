"""Questions that operators ask of Prometheus, answered by real daemons after real pulls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

import aiohttp
import pytest

from p2pdist.process.clock import unix_s
from p2pdist.registry.serving import blobs
from p2pdist.registry_proxy.daemon import running_proxy
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, Fault
from tests.fakes.scraping import Series, scraped, series, total
from tests.faults.records import recorded

MIB = 1 << 20
LAYERS = [random_bytes(5 * MIB + 17, 1), random_bytes(3 * MIB, 2), random_bytes(900, 3), b""]
DELIVERED = "p2pdist_delivered_bytes_total"
PULLS = "p2pdist_pulls_total"


def saved(pages: Sequence[dict[Series, float]], registry: str) -> float:
    """docs/metrics.md: bytes that a registry did not have to send."""
    delivered = sum(total(page, DELIVERED, upstream=registry) for page in pages)
    read = sum(
        total(page, "p2pdist_upstream_payload_bytes_total", upstream=registry) for page in pages
    )
    return delivered - read


async def test_bytes_saved_per_registry_are_the_copies_that_it_did_not_send(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Two hosts with a peer, one of them twice, and one that pulls from the proxy."""
    image = registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    proxy = await lab.proxy()
    peers = [await lab.peer(name, direct=True) for name in ("a", "b")]

    for endpoint in (peers[0].mirror, peers[1].mirror, peers[0].mirror, proxy.registry):
        blobs = await pull(client, url_of(endpoint))
    size = len(image.manifest_body) + sum(map(len, blobs.values()))

    admins = [proxy.admin, *(peer.admin for peer in peers)]
    pages = [await scraped(client, admin) for admin in admins]
    assert [total(page, DELIVERED) for page in pages] == [size, 2 * size, size]
    assert total(pages[1], DELIVERED, source="proxy") == size
    assert total(pages[1], DELIVERED, source="cache") == size
    assert total(pages[0], DELIVERED, source="cache") == size
    assert saved(pages, "docker.io") == 3 * size


async def test_introductions_are_no_pulls_of_the_proxy(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS)
    proxy, peer = await lab.proxy(), await lab.peer("a")

    await pull(client, url_of(peer.mirror))

    page = await scraped(client, proxy.admin)
    assert total(page, PULLS, kind="blob") == 0
    assert total(page, "p2pdist_pull_duration_seconds_count", kind="blob") == 0
    assert total(page, PULLS, kind="manifest", outcome="served") == 1


@pytest.mark.faults
async def test_a_pull_that_is_cut_and_one_that_fails_are_told_apart(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    proxy = await lab.proxy()
    url = url_of(proxy.registry)
    registry.faults[image.layer_digests[0]] = Fault(corrupt_at=4 * MIB)

    with recorded(83, "pull that is cut, and one of what is not there") as record:
        async with client.get(f"{url}/v2/library/app/manifests/1", raise_for_status=True):
            pass
        async with client.get(f"{url}/v2/library/app/manifests/none") as answer:
            assert answer.status == 404
        with contextlib.suppress(aiohttp.ClientError):
            await read_blob(client, url, image.layer_digests[0])

        page = await scraped(client, proxy.admin)
        assert total(page, PULLS, kind="manifest", outcome="served") == 1
        assert total(page, PULLS, kind="manifest", outcome="refused") == 1
        assert total(page, PULLS, kind="blob", outcome="cut") == 1
        assert total(page, PULLS) == 3
        record.outcome = "each under its outcome in p2pdist_pulls_total"


@pytest.mark.faults
async def test_the_upload_rate_of_a_proxy_binds_exchange_and_bodies_together(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One host pulls through its peer, another one from the proxy, at the same time."""
    monkeypatch.setattr(blobs, "to_other_host", lambda request: True)
    layer, rate = random_bytes(3 * MIB, 2), 4 * MIB
    image = registry.add_image("library/app", "1", [layer])
    made = lab.settings("proxy")
    settings = replace(made, proxy=replace(made.proxy, upload_rate=rate))
    async with running_proxy(settings) as proxy:
        lab.proxies.append(url_of(proxy.registry))
        peer = await lab.peer("a")
        for url in (url_of(peer.mirror), url_of(proxy.registry)):
            async with client.get(f"{url}/v2/library/app/manifests/1", raise_for_status=True):
                pass
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        urls = url_of(peer.mirror), url_of(proxy.registry)
        with recorded(84, "host without a peer pulls from a proxy with an upload rate") as record:
            bodies = [read_blob(client, url, image.layer_digests[0]) for url in urls]
            assert await asyncio.gather(*bodies) == [layer, layer]
            assert loop.time() - began_s >= 0.9 * 2 * len(layer) / rate
            record.outcome = "its bodies and the exchange keep to the rate together"


async def test_a_daemon_tells_its_room_and_what_its_process_takes(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    tracker, proxy, peer = await lab.tracker(), await lab.proxy(), await lab.peer("a")

    for daemon in (proxy, peer):
        page = await scraped(client, daemon.admin)
        assert page[series("p2pdist_cache_max_bytes")] == lab.settings("a").store.max_bytes
    for admin in (tracker.admin, proxy.admin, peer.admin):
        page = await scraped(client, admin)
        assert page[series("process_resident_memory_bytes")] > MIB
        assert page[series("process_cpu_seconds_total")] > 0
        assert 0 < page[series("process_open_fds")] < page[series("process_max_fds")]
        assert 0 < page[series("process_start_time_seconds")] < unix_s()
