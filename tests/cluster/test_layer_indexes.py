"""Indexes of layers: made by a proxy as a layer arrives, found by every peer."""

from __future__ import annotations

import asyncio
from random import Random

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.model.layer_index import layer_index_key
from p2pdist.registry_proxy.authority import ProxyAuthority
from p2pdist.registry_proxy.daemon import RunningProxy
from p2pdist.registry_proxy.indexing import LayerIndexer
from p2pdist.streaming.contents import open_span
from p2pdist.streaming.core.index import LayerIndex, decode_index
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry, Fault
from tests.fakes.scraping import scraped, total
from tests.streaming.archives import archive, file, gzipped, text

pytestmark = pytest.mark.timeout(150)

SMALL_INDEX = gzipped(archive(*(file(f"f{i}", text(2 << 20, i)) for i in range(3))))
_RNG = Random(1)
LARGE_INDEX = gzipped(
    archive(
        file("big", random_bytes(2 << 20, 3)),
        *(file(_RNG.randbytes(60).hex()) for _ in range(8000)),
    )
)
"""Names that do not shrink: its index has several chunks, and so a map."""


@pytest.fixture
def indexing(lab: Lab) -> Lab:
    lab.layer_index = True
    return lab


async def ask(client: aiohttp.ClientSession, base_url: str, layer: str, name: str) -> bytes | int:
    url = f"{base_url}/v2/{name}/_p2pdist/layer-index/{layer}"
    async with client.get(url) as answer:
        if answer.status != 200:
            return answer.status
        body = await answer.read()
        assert answer.headers["Docker-Content-Digest"] == digest_of(body)
        return body


async def index_at(
    client: aiohttp.ClientSession, base_url: str, layer: str, name: str = "library/app"
) -> LayerIndex:
    """Ask until it is there: it is made beside the pull, by a process that gives way to others."""
    async with asyncio.timeout(120):
        while isinstance(body := await ask(client, base_url, layer, name), int):
            assert body == 404
            await asyncio.sleep(0.02)
    return decode_index(body)


async def count(client: aiohttp.ClientSession, proxy: RunningProxy, result: str) -> float:
    page = await scraped(client, proxy.admin)
    return total(page, "p2pdist_layer_indexes_total", result=result)


async def counted(client: aiohttp.ClientSession, proxy: RunningProxy, result: str) -> None:
    async with asyncio.timeout(120):
        while not await count(client, proxy, result):  # noqa: ASYNC110  # it is another process's
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("layer", [SMALL_INDEX, LARGE_INDEX], ids=["small", "large"])
async def test_a_layer_that_was_pulled_can_be_read_in_parts(
    registry: FakeRegistry, indexing: Lab, client: aiohttp.ClientSession, layer: bytes
) -> None:
    image = registry.add_image("library/app", "1", [layer])
    await indexing.tracker()
    proxy = await indexing.proxy()
    peer = await indexing.peer("a")
    await pull(client, url_of(peer.mirror))

    index = await index_at(client, url_of(peer.mirror), image.layer_digests[0])

    assert (index.blob, index.blob_bytes) == (image.layer_digests[0], len(layer))
    start, stop = index.span_range(1)
    assert len(open_span(index, 1, layer[start:stop])) == index.span_end(1) - index.span_end(0)
    assert await index_at(client, url_of(proxy.registry), image.layer_digests[0]) == index
    assert registry.count("GET", f"/blobs/{image.layer_digests[0]}") == 1


@pytest.mark.parametrize("layer", [SMALL_INDEX, LARGE_INDEX], ids=["small", "large"])
async def test_indexes_come_when_an_engine_gets_the_manifest_and_a_snapshotter_listens(
    registry: FakeRegistry, indexing: Lab, client: aiohttp.ClientSession, layer: bytes
) -> None:
    image = registry.add_image("library/app", "1", [layer])
    await indexing.tracker()
    proxy = await indexing.proxy()
    await pull(client, url_of(proxy.registry))
    await index_at(client, url_of(proxy.registry), image.layer_digests[0])
    body = await ask(client, url_of(proxy.registry), image.layer_digests[0], "library/app")
    assert isinstance(body, bytes)
    peer = await indexing.peer("a")
    store, index = peer.running.node.store, digest_of(body)

    async def index_is_here() -> None:
        while (whole := store.get(index)) is None or not whole.complete:
            if await store.get_small(index) is not None:
                return
            await asyncio.sleep(0.01)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        listening = group.create_task(peer.backend.coming.next(None))
        url = f"{url_of(peer.mirror)}/v2/library/app/manifests/1"
        async with client.get(url, headers={"User-Agent": "containerd/1.6.20"}) as answer:
            assert answer.status == 200
        await index_is_here()
        told = await listening
    assert told is not None
    assert [shown.digest for shown in told.image.layers] == image.layer_digests


async def test_an_index_that_a_peer_has_others_get_without_the_proxy(
    registry: FakeRegistry, indexing: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [SMALL_INDEX])
    layer = image.layer_digests[0]
    tracker = await indexing.tracker()
    async with indexing.proxy_context():
        peer = await indexing.peer("a")
        await pull(client, url_of(peer.mirror))
        index = await index_at(client, url_of(peer.mirror), layer)
        await announced(tracker, peer)
    other = await indexing.peer("b")
    async with client.get(f"{url_of(other.mirror)}/v2/library/app/manifests/1") as answer:
        assert answer.status == 200, "who asks for an index heard of its image"
    assert await index_at(client, url_of(other.mirror), layer) == index


async def test_a_proxy_keeps_it_over_a_restart(
    registry: FakeRegistry, indexing: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [LARGE_INDEX])
    layer = image.layer_digests[0]
    async with indexing.proxy_context() as proxy:
        await pull(client, url_of(proxy.registry))
        index = await index_at(client, url_of(proxy.registry), layer)
    indexing.proxies.clear()
    async with indexing.proxy_context() as proxy:
        peer = await indexing.peer("a")
        assert await index_at(client, url_of(peer.mirror), layer) == index
        assert await count(client, proxy, "built") == 0


async def test_a_layer_that_lay_there_before_is_indexed_when_it_is_asked_for(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [SMALL_INDEX])
    async with lab.proxy_context() as proxy:
        await pull(client, url_of(proxy.registry))
    lab.layer_index = True
    async with lab.proxy_context() as proxy:
        await pull(client, url_of(proxy.registry))
        await index_at(client, url_of(proxy.registry), image.layer_digests[0])
        assert registry.count("GET", f"/blobs/{image.layer_digests[0]}") == 1


async def test_who_may_not_have_a_layer_gets_no_index_of_it(
    registry: FakeRegistry, indexing: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [SMALL_INDEX])
    proxy = await indexing.proxy()
    url = url_of(proxy.registry)
    await pull(client, url)
    layer = image.layer_digests[0]
    index = await ask_until_there(client, url, layer)
    assert await ask(client, url, layer, "library/other") == 404
    async with client.get(f"{url}/v2/library/other/blobs/{digest_of(index)}") as answer:
        assert answer.status == 404


async def ask_until_there(client: aiohttp.ClientSession, url: str, layer: str) -> bytes:
    await index_at(client, url, layer)
    body = await ask(client, url, layer, "library/app")
    assert isinstance(body, bytes)
    return body


async def test_what_is_no_archive_is_pulled_as_ever(
    registry: FakeRegistry, indexing: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [random_bytes(2 << 20, 1)])
    proxy = await indexing.proxy()
    await pull(client, url_of(proxy.registry))
    await counted(client, proxy, "unfit")
    assert await ask(client, url_of(proxy.registry), image.layer_digests[0], "library/app") == 404
    await pull(client, url_of(proxy.registry))
    assert await count(client, proxy, "unfit") == 1


async def test_a_layer_with_another_digest_gets_no_index(
    registry: FakeRegistry, indexing: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [SMALL_INDEX])
    layer = image.layer_digests[0]
    registry.faults[layer] = Fault(corrupt_at=len(SMALL_INDEX) - 1)
    proxy = await indexing.proxy()
    with pytest.raises((aiohttp.ClientError, AssertionError)):
        await pull(client, url_of(proxy.registry))
    await counted(client, proxy, "failed")
    assert await ask(client, url_of(proxy.registry), layer, "library/app") == 404


async def test_a_layer_that_came_to_rest_before_its_turn_is_indexed_from_the_store(
    registry: FakeRegistry, indexing: Lab, client: aiohttp.ClientSession
) -> None:
    """A job of a hundred images brings layers sooner than they are indexed."""
    image = registry.add_image("library/app", "1", [SMALL_INDEX])
    layer = image.layer_digests[0]
    proxy = await indexing.proxy()
    node = proxy.running.node
    authority = node.authority
    assert isinstance(authority, ProxyAuthority)
    access, signer = authority._manifests.access, authority.obtaining._signer
    indexer = LayerIndexer(node, access, signer, node.rng)
    authority.arrives = indexer.arrives
    async with indexer._turn:
        await pull(client, url_of(proxy.registry))
        assert node.actives[layer].complete
        node._let_go(unused_s=0.0)
        assert layer not in node.actives
    async with asyncio.timeout(120):
        while await node.smalls.held_statement(layer_index_key(layer)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
