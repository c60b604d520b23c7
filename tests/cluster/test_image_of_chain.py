"""Which image a chain ID stands for: asked of the mirror that the image was pulled through."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.chains import chain_ids
from p2pdist.oci.layered_image import QUESTION, LayeredImage, decode_layered_image
from p2pdist.peer.daemon import RunningPeer
from p2pdist.peer.recent_images import IMAGES_MAX
from tests.fakes.cluster import Lab, url_of
from tests.fakes.registry import FakeRegistry
from tests.streaming.archives import archive, file, gzipped

ARCHIVES = [archive(file("a", b"below")), archive(file("b", b"above"))]
LAYERS = [gzipped(plain) for plain in ARCHIVES]
CHAIN = list(chain_ids([digest_of(plain) for plain in ARCHIVES]))


@pytest.fixture
async def peer(lab: Lab) -> RunningPeer:
    await lab.tracker()
    await lab.proxy()
    return await lab.peer("a")


async def ask(
    client: aiohttp.ClientSession, peer: RunningPeer, chain: str, method: str = "GET"
) -> LayeredImage | int:
    url = f"{url_of(peer.mirror)}{QUESTION}"
    async with client.request(method, url, params={"chain": chain}) as answer:
        if answer.status != 200:
            return answer.status
        assert answer.content_type == "application/json"
        return decode_layered_image(await answer.read())


async def name_manifest(
    client: aiohttp.ClientSession, peer: RunningPeer, tag: str, method: str = "GET"
) -> None:
    url = f"{url_of(peer.mirror)}/v2/library/app/manifests/{tag}"
    async with client.request(method, url, raise_for_status=True):
        pass


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_manifest_is_enough(
    registry: FakeRegistry, peer: RunningPeer, client: aiohttp.ClientSession, method: str
) -> None:
    """An engine that has manifest and config from before asks for the tag alone, with HEAD."""
    image = registry.add_image("library/app", "1", LAYERS, archives=ARCHIVES)
    assert await ask(client, peer, CHAIN[0]) == 404

    await name_manifest(client, peer, "1", method)

    for chain in CHAIN:
        found = await ask(client, peer, chain)
        assert isinstance(found, LayeredImage)
        assert (found.name.upstream, found.name.repository) == ("docker.io", "library/app")
        assert [layer.digest for layer in found.layers] == image.layer_digests
        assert [layer.chain_id for layer in found.layers] == CHAIN
        assert [layer.size_bytes for layer in found.layers] == [len(layer) for layer in LAYERS]
    assert await ask(client, peer, digest_of(ARCHIVES[1])) == 404, "a diff id is no chain ID"
    assert sum(registry.count("GET", f"/blobs/{d}") for d in image.layer_digests) == 0


async def test_of_images_that_share_layers_the_one_asked_for_last(
    registry: FakeRegistry, peer: RunningPeer, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS[:1], archives=ARCHIVES[:1])
    registry.add_image("library/app", "2", LAYERS, archives=ARCHIVES)

    async def layers() -> int:
        found = await ask(client, peer, CHAIN[0])
        assert isinstance(found, LayeredImage)
        return len(found.layers)

    await name_manifest(client, peer, "2")
    await name_manifest(client, peer, "1")
    assert await layers() == 1
    await name_manifest(client, peer, "2")
    assert await layers() == 2


async def test_an_image_asked_for_long_ago_is_forgotten(
    registry: FakeRegistry, peer: RunningPeer, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS, archives=ARCHIVES)
    await name_manifest(client, peer, "1")
    for number in range(IMAGES_MAX):
        registry.add_image("library/app", f"o{number}", [b"%d" % number])
        await name_manifest(client, peer, f"o{number}")

    assert await ask(client, peer, CHAIN[0]) == 404


async def test_what_is_no_image_of_a_container_keeps_nobody_from_an_answer(
    registry: FakeRegistry, peer: RunningPeer, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS, archives=ARCHIVES)
    await name_manifest(client, peer, "1")
    missing = json.loads(registry_manifest(digest_of(b"nowhere")))
    for tag, manifest in (("artifact", registry_artifact(registry)), ("gone", missing)):
        registry.add_manifest(
            "library/app", json.dumps(manifest).encode(), manifest["mediaType"], tag=tag
        )
        await name_manifest(client, peer, tag)

    assert isinstance(await ask(client, peer, CHAIN[0]), LayeredImage)
    assert await ask(client, peer, digest_of(b"nobody's")) == 404


@pytest.mark.parametrize(
    ("chain", "method", "status"),
    [("", "GET", 400), ("sha256:1", "GET", 400), (CHAIN[0], "POST", 405)],
)
async def test_bad_questions(
    peer: RunningPeer, client: aiohttp.ClientSession, chain: str, method: str, status: int
) -> None:
    assert await ask(client, peer, chain, method) == status


def registry_manifest(config: Digest, size: int = 10) -> bytes:
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": digest_of(LAYERS[0]),
        "size": len(LAYERS[0]),
    }
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config,
                "size": size,
            },
            "layers": [layer],
        }
    ).encode()


def registry_artifact(registry: FakeRegistry) -> dict[str, Any]:
    """Its config is no list of layers."""
    registry.add_blob("library/app", b"{}")
    found: dict[str, Any] = json.loads(registry_manifest(digest_of(b"{}"), 2))
    return found
