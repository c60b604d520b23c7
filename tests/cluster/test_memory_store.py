"""Real daemons on a store without files: chunks go from host to host as bytes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.memory_store import MemoryStore
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry
from tests.fakes.scraping import scraped, total

MIB = 1 << 20
LAYERS = [random_bytes(9 * MIB + 17, 1), random_bytes(3 * MIB, 2), random_bytes(900, 3), b""]
RECEIVED = "p2pdist_bytes_received_total"
INDEXES = "p2pdist_layer_indexes_total"


@pytest.fixture
def lab(lab: Lab) -> Lab:
    lab.open_store = MemoryStore.open
    return lab


@pytest.fixture(autouse=True)
def without_sendfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither over the exchange nor over HTTP."""

    def refuse(*_: object, **__: object) -> int:
        raise AssertionError("there is no file to send")

    monkeypatch.setattr(os, "sendfile", refuse)
    monkeypatch.setattr(asyncio.BaseEventLoop, "sendfile", refuse)


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("store/*") if path.is_file()]


async def test_an_image_goes_from_host_to_host_without_a_file(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS)
    tracker = await lab.tracker()
    await lab.proxy()
    first = await lab.peer("a")
    expected = {digest_of(layer): layer for layer in LAYERS}

    blobs = await pull(client, url_of(first.mirror))
    assert {digest: blobs[digest] for digest in expected} == expected
    await announced(tracker, first)
    others = [await lab.peer(name) for name in ("b", "c")]
    pulls = await asyncio.gather(*(pull(client, url_of(peer.mirror)) for peer in others))

    assert pulls == [blobs, blobs]
    pages = [await scraped(client, peer.admin) for peer in others]
    from_peers = sum(total(page, RECEIVED, source=s) for page in pages for s in ("rack", "dc"))
    assert from_peers > 12 * MIB, "else nothing of this was tried"
    assert files_below(lab.directory) == []


async def test_cold_readers_follow_a_layer_while_it_arrives(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    await lab.proxy()
    urls = [url_of((await lab.peer(name)).mirror) for name in ("a", "b", "c")]
    for url in urls:
        async with client.get(f"{url}/v2/library/app/manifests/1", raise_for_status=True):
            pass

    bodies = await asyncio.gather(*(read_blob(client, url, image.layer_digests[0]) for url in urls))

    assert bodies == [LAYERS[0]] * 3
    assert registry.count("GET", image.layer_digests[0]) == 1


async def test_no_index_of_a_layer_is_built_without_a_file_and_nobody_waits_for_one(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """The process that builds it reads a file."""
    registry.add_image("library/app", "1", LAYERS)
    lab.layer_index = True
    await lab.tracker()
    proxy, peer = await lab.proxy(), await lab.peer("a")

    await pull(client, url_of(peer.mirror))

    async with asyncio.timeout(10):
        while not total(await scraped(client, proxy.admin), INDEXES, result="failed"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    page = await scraped(client, proxy.admin)
    assert total(page, INDEXES, result="built") == 0
