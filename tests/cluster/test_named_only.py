"""To know a digest is no right to read it: a peer serves one under a name that named it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from p2pdist.model.members import Address
from p2pdist.registry_proxy.daemon import running_proxy
from p2pdist.settings import Upstream
from tests.cluster.conftest import account_at
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry import FakeRegistry, ImageInfo, TokenAuth

LAYER = random_bytes(3_000_000, 196)
SMALL = random_bytes(1000, 197)
WRONG = (("docker.io", "library/other"), ("quay.io", "library/app"))


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    image = registry.add_image("library/app", "1", [LAYER, SMALL])
    registry.add_image("library/other", "1", [b"other"])
    return image


async def status(
    client: aiohttp.ClientSession,
    at: Address,
    what: str,
    name: tuple[str, str] = ("docker.io", "library/app"),
    method: str = "GET",
) -> int:
    url = f"{url_of(at)}/v2/{name[1]}/{what}?ns={name[0]}"
    async with client.request(method, url) as answer:
        await answer.read()
        return answer.status


def all_of(image: ImageInfo) -> list[str]:
    digests = (image.config_digest, *image.layer_digests)
    return [f"manifests/{image.manifest_digest}", *(f"blobs/{digest}" for digest in digests)]


@pytest.mark.parametrize("account", [False, True], ids=["public", "shared"])
async def test_a_peer_serves_a_digest_under_a_repository_that_named_it_only(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    image: ImageInfo,
    tmp_path: Path,
    account: bool,
) -> None:
    async with FakeRegistry() as elsewhere:
        first = Upstream("docker.io", registry.url)
        if account:
            registry.auth = TokenAuth("robot", "secret")
            first = account_at("docker.io", registry, registry.auth, tmp_path)
        upstreams = (first, Upstream("quay.io", elsewhere.url))
        await lab.tracker()
        settings = replace(lab.settings("proxy"), upstream=upstreams)
        proxy = await lab.stack.enter_async_context(running_proxy(settings))
        lab.proxies.append(url_of(proxy.registry))
        peer = await lab.peer("a")
        for what in ("manifests/1", *all_of(image)):
            assert await status(client, peer.mirror, what) == 200

        for name in WRONG:
            for what in all_of(image):
                for method in ("GET", "HEAD"):
                    assert await status(client, peer.mirror, what, name, method) == 404
            index = f"_p2pdist/layer-index/{image.layer_digests[0]}"
            assert await status(client, peer.mirror, index, name) == 404


async def test_what_was_named_is_remembered_over_a_restart(
    lab: Lab, client: aiohttp.ClientSession, image: ImageInfo
) -> None:
    """Containers that run from images here read on, whoever else is away."""
    await lab.tracker()
    async with lab.proxy_context(), lab.peer_context("a") as peer:
        for what in ("manifests/1", *all_of(image)):
            assert await status(client, peer.mirror, what) == 200

    async with lab.peer_context("a") as peer:
        for what in all_of(image):
            assert await status(client, peer.mirror, what) == 200
            assert await status(client, peer.mirror, what, WRONG[0]) != 200


async def test_what_was_not_heard_of_is_asked_for(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, image: ImageInfo
) -> None:
    """Another repository that has the same layer, as base layers are."""
    registry.add_blob("library/other", LAYER)
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    layer = f"blobs/{image.layer_digests[0]}"
    for what in ("manifests/1", layer):
        assert await status(client, peer.mirror, what) == 200
    sent = registry.payload_bytes[image.layer_digests[0]]

    assert await status(client, peer.mirror, layer, WRONG[0]) == 200
    assert registry.payload_bytes[image.layer_digests[0]] == sent
