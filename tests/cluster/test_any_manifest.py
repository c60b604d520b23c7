"""Manifests of every type, and what they lead to, at a proxy and both kinds of peer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import OCI_INDEX
from p2pdist.swarm import reader
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, Fault
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

ORAS = "application/vnd.cncf.oras.artifact.manifest.v1+json"
BUNDLE = "application/vnd.example.bundle.v1+json"
APP = "library/app"
SMALL = random_bytes(50_000, 301)
LARGE = random_bytes(3_000_000, 302)
PLACES = ["proxy", "direct peer", "peer"]


def descriptor(data: bytes) -> dict[str, Any]:
    return {"mediaType": "application/x", "digest": digest_of(data), "size": len(data)}


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "oras": (ORAS, {"mediaType": ORAS, "blobs": [descriptor(SMALL)], "subject": None}),
    "unknown, with layers": (
        BUNDLE,
        {"mediaType": BUNDLE, "config": descriptor(SMALL), "layers": [descriptor(LARGE)]},
    ),
    "unknown, of another form": (BUNDLE, {"mediaType": BUNDLE, "items": [descriptor(SMALL)]}),
    "unknown, named by the registry alone": (BUNDLE, {"items": [descriptor(SMALL)]}),
}


async def place(lab: Lab, where: str) -> str:
    proxy = await lab.proxy()
    if where == "proxy":
        return url_of(proxy.registry)
    peer = await lab.peer("peer", direct=where == "direct peer")
    return url_of(peer.mirror)


async def manifest(
    client: aiohttp.ClientSession, base: str, reference: str, accept: str = "*/*"
) -> tuple[int, str, bytes]:
    url = f"{base}/v2/{APP}/manifests/{reference}"
    async with client.get(url, headers={"Accept": accept}) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.read()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", PLACES)
async def test_a_manifest_of_any_type_passes_as_it_is(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, where: str, form: str
) -> None:
    media_type, document = FORMS[form]
    body = json.dumps(document).encode()
    with recorded(68, "manifest of a type that nobody knows", f"{form}, {where}") as record:
        registry.strict_accept = True
        digest = registry.add_manifest(APP, body, media_type, tag="1")
        registry.add_blob(APP, SMALL)
        base = await place(lab, where)

        assert (await manifest(client, base, "1", "application/x"))[0] == 404
        assert await manifest(client, base, "1", media_type) == (200, media_type, body)
        assert await manifest(client, base, digest, media_type) == (200, media_type, body)
        assert await read_blob(client, base, digest_of(SMALL)) == SMALL
        record.outcome = "bytes and type as the registry sent them"


@pytest.mark.parametrize("form", FORMS)
async def test_after_a_restart_and_without_its_registry_it_has_its_type(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, form: str
) -> None:
    media_type, document = FORMS[form]
    body = json.dumps(document).encode()
    digest = registry.add_manifest(APP, body, media_type, tag="1")
    proxy_settings = lab.proxy_context
    async with proxy_settings() as proxy, lab.peer_context("a") as peer:
        for daemon in (proxy.registry, peer.mirror):
            assert (await manifest(client, url_of(daemon), "1", media_type))[0] == 200
    for reference in ("1", digest):
        registry.faults[reference] = Fault(status=503)

    async with lab.peer_context("a") as peer:
        answers = [await manifest(client, url_of(peer.mirror), r) for r in (digest, "1")]
    async with proxy_settings() as proxy:
        answers += [await manifest(client, url_of(proxy.registry), r) for r in (digest, "1")]

    assert answers == [(200, media_type, body)] * 4


@pytest.mark.parametrize("form", FORMS)
async def test_the_swarm_alone_gives_it_with_its_type(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, form: str
) -> None:
    media_type, document = FORMS[form]
    body = json.dumps(document).encode()
    registry.add_manifest(APP, body, media_type, tag="1")
    tracker = await lab.tracker()
    async with lab.proxy_context():
        first = await lab.peer("first")
        assert (await manifest(client, url_of(first.mirror), "1", media_type))[0] == 200
    await announced(tracker, first)
    second = await lab.peer("second")

    for reference in ("1", digest_of(body)):
        found = await manifest(client, url_of(second.mirror), reference)
        assert found == (200, media_type, body)


@pytest.mark.parametrize("where", PLACES)
async def test_an_index_may_list_layers(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, where: str
) -> None:
    """So build caches are kept: what is asked for as a blob is one."""
    with recorded(68, "index that lists layers", where) as record:
        await lab.tracker()
        children = [descriptor(data) for data in (SMALL, LARGE)]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
        registry.add_manifest(APP, json.dumps(index).encode(), OCI_INDEX, tag="1")
        base = await place(lab, where)
        assert (await manifest(client, base, "1"))[:2] == (200, OCI_INDEX)
        for data in (SMALL, LARGE):
            registry.add_blob(APP, data)
            assert await read_blob(client, base, digest_of(data)) == data
            assert (await manifest(client, base, digest_of(data)))[0] == 404
        record.outcome = "blobs at one endpoint, 404 at the other"


async def test_over_the_exchange_a_listed_layer_comes_from_the_proxy(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    await lab.tracker()
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(SMALL)]}
    registry.add_manifest(APP, json.dumps(index).encode(), OCI_INDEX, tag="1")
    registry.add_blob(APP, SMALL)
    await lab.proxy()
    peer = await lab.peer("peer")
    assert (await manifest(client, url_of(peer.mirror), "1"))[0] == 200

    assert await read_blob(client, url_of(peer.mirror), digest_of(SMALL)) == SMALL

    assert peer.running.node.counters.received["proxy"] >= len(SMALL)
    assert not peer.running.node.counters.fallbacks["proxy"]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("where", PLACES)
async def test_an_image_that_was_deleted_when_its_tag_moved(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    data: bytes,
) -> None:
    """Some registries delete at once what has no tag any more. Nobody waits for what might still
    come: the registry says no to the proxy, and that to all who asked it."""
    monkeypatch.setattr(reader, "FIRST_WAIT_S", 600.0)
    with recorded(69, "tag moved and its image deleted", f"{len(data)} bytes, {where}") as record:
        lab.tag_ttl_s = 3600.0
        await lab.tracker()
        old = registry.add_image(APP, "1", [data])
        base = await place(lab, where)
        assert (await manifest(client, base, "1"))[2] == old.manifest_body
        registry.add_image(APP, "1", [b"another"])
        registry.remove(APP, old.layer_digests[0])

        with pytest.raises(aiohttp.ClientError):
            await read_blob(client, base, old.layer_digests[0])
        bodies = await until_moved(client, base, old.manifest_body)

        assert b"another" in bodies.values()
        record.outcome = "the new image is pulled whole"


async def until_moved(client: aiohttp.ClientSession, base: str, old: bytes) -> dict[Any, bytes]:
    """A look-up may come a second after the one before; the tag itself is good for an hour."""
    while (await manifest(client, base, "1"))[2] == old:  # noqa: ASYNC110  # others move it
        await asyncio.sleep(0.05)
    return {**await pull(client, base)}
