"""Registries, and what stands before them, that do not say how long a blob is, or say it wrongly.

The manifest says it, so every client copes that reads them directly: pulls through a mirror must.
"""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, Fault

LARGE = random_bytes(3_000_000, 97)
SMALL = random_bytes(100_000, 98)
MODES = {
    "chunked, nothing told": Fault(no_length=True, ignore_range=True),
    "chunked, ranges work": Fault(no_length=True),
    "chunked, HEAD tells": Fault(no_length=True, ignore_range=True, head_length=len(LARGE)),
    "until close": Fault(until_close=True),
    "HEAD says 0": Fault(head_length=0),
    "HEAD says 0, chunked": Fault(head_length=0, no_length=True, ignore_range=True),
    "HEAD 404": Fault(no_head=404),
    "HEAD 405": Fault(no_head=405),
    "HEAD 500": Fault(no_head=500),
    "empty digest header": Fault(digest_header="", headers={"Docker-Content-Digest": ""}),
    "ranges without a total": Fault(no_total=True),
}


def add_image(registry: FakeRegistry, fault: Fault) -> None:
    image = registry.add_image("library/app", "1", [LARGE, SMALL])
    for digest in (*image.layer_digests, image.config_digest):
        registry.faults[digest] = fault


@pytest.mark.parametrize("mode", MODES)
async def test_an_image_is_pulled_through_proxy_and_peer(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, mode: str
) -> None:
    add_image(registry, MODES[mode])
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")

    bodies = await pull(client, url_of(peer.mirror))

    assert bodies[digest_of(LARGE)] == LARGE
    assert not peer.running.node.counters.fallbacks
    assert (await pull(client, url_of(proxy.registry))) == bodies


async def test_images_are_pulled_by_a_peer_alone(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """At once: most of the time goes by with nobody there who could have them."""
    peer = await lab.peer("a", direct=True)

    async def wrong(number: int, fault: Fault) -> bool:
        large, tag = random_bytes(len(LARGE), 200 + number), str(number)
        layers = [large, random_bytes(len(SMALL), 300 + number)]
        image = registry.add_image("library/app", tag, layers)
        for digest in (*image.layer_digests, image.config_digest):
            registry.faults[digest] = fault
        bodies = await pull(client, url_of(peer.mirror), tag)
        return bodies[digest_of(large)] != large

    found = await asyncio.gather(
        *(wrong(number, fault) for number, fault in enumerate(MODES.values())),
        return_exceptions=True,
    )
    assert {mode: it for mode, it in zip(MODES, found, strict=True) if it is not False} == {}


@pytest.mark.parametrize("mode", ["HEAD says 0", "HEAD 404", "HEAD 500", "chunked, ranges work"])
async def test_a_blob_that_no_manifest_named_yet_is_read(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, mode: str
) -> None:
    add_image(registry, MODES[mode])
    proxy = await lab.proxy()

    for content in (LARGE, SMALL):
        assert await read_blob(client, url_of(proxy.registry), digest_of(content)) == content


async def test_a_small_blob_of_which_nobody_says_the_size_is_read_to_its_end(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    add_image(registry, MODES["chunked, nothing told"])
    proxy = await lab.proxy()

    assert await read_blob(client, url_of(proxy.registry), digest_of(SMALL)) == SMALL


@pytest.mark.parametrize(
    "cut",
    [
        Fault(no_length=True, truncate_after=2 << 20),
        Fault(no_total=True, truncate_after=2 << 20),
    ],
    ids=["chunked", "ranges without a total"],
)
async def test_a_body_that_is_cut_goes_on_where_it_ended(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, cut: Fault
) -> None:
    registry.add_image("library/app", "1", [LARGE])
    await lab.tracker()
    proxy = await lab.proxy()
    async with client.get(f"{url_of(proxy.registry)}/v2/library/app/manifests/1") as answer:
        assert answer.status == 200
    registry.faults[digest_of(LARGE)] = cut

    assert await read_blob(client, url_of(proxy.registry), digest_of(LARGE)) == LARGE
    assert registry.payload_bytes[digest_of(LARGE)] < len(LARGE) + (1 << 20)
