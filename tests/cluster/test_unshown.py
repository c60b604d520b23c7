"""A registry of the list reads nothing of another one's account by saying that it has the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import OCI_MANIFEST
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.settings import Upstream
from tests.cluster.conftest import account_at
from tests.fakes.cluster import Lab, url_of
from tests.fakes.http_server import serve_app
from tests.fakes.pulling import random_bytes
from tests.fakes.registry import FakeRegistry, ImageInfo, TokenAuth
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

LAYER = random_bytes(3_000_000, 104)
SMALL = random_bytes(1000, 105)
ACCOUNT = TokenAuth("robot", "secret")


@dataclass
class Mallory:
    """Answers every HEAD as if it had what is asked for, or what `stands_for` says; has nothing but
    the manifests that were given to it, and `garbage` for a blob."""

    sizes: dict[str, int] = field(default_factory=dict)
    stands_for: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    garbage: bool = False

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        reference = request.path.rpartition("/")[2]
        if reference in self.manifests:
            return web.Response(body=self.manifests[reference], content_type=OCI_MANIFEST)
        digest = self.stands_for.get(reference, reference)
        size = self.sizes.get(digest, 0)
        if request.method == "HEAD":
            headers = {"Docker-Content-Digest": digest, "Content-Length": str(size)}
            return web.Response(headers=headers, content_type=OCI_MANIFEST)
        if self.garbage and "/blobs/" in request.path:
            part = request.http_range
            start, stop = part.start or 0, part.stop or size
            told = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
            return web.Response(status=206, body=bytes(stop - start), headers=told)
        return web.Response(status=404)


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    registry.auth = ACCOUNT
    return registry.add_image("secret/app", "1", [LAYER, SMALL])


@pytest.fixture
def account(registry: FakeRegistry, tmp_path: Path) -> Upstream:
    return account_at("ghcr.io", registry, ACCOUNT, tmp_path)


@asynccontextmanager
async def filled(
    lab: Lab, client: aiohttp.ClientSession, image: ImageInfo, account: Upstream, other: str
) -> AsyncIterator[RunningProxy]:
    """A proxy that has read all of the image by the account; docker.io is at `other`."""
    await lab.tracker()
    upstreams = account, Upstream("docker.io", other)
    async with running_proxy(replace(lab.settings("proxy"), upstream=upstreams)) as proxy:
        base = url_of(proxy.registry)
        for what in ("manifests/1", *(f"blobs/{d}" for d in image.layer_digests)):
            answer = await status(client, f"{base}/v2/secret/app/{what}?ns=ghcr.io")
            assert answer == 200
        yield proxy


async def status(client: aiohttp.ClientSession, url: str) -> int:
    async with client.get(url) as answer:
        await answer.read()
        return answer.status


def forged_manifest(image: ImageInfo) -> bytes:
    """Of a repository of its own, over layers that somebody else has."""
    manifest = json.loads(image.manifest_body)
    manifest["annotations"] = {"mallory": "was here"}
    return json.dumps(manifest).encode()


@pytest.mark.parametrize("way", ["HEAD", "HEAD and garbage", "a manifest that lists it"])
async def test_what_a_registry_only_says_it_has_is_not_read_through_it(
    lab: Lab, client: aiohttp.ClientSession, image: ImageInfo, account: Upstream, way: str
) -> None:
    manifest, (layer, small) = image.manifest_digest, image.layer_digests
    sizes: dict[str, int] = {
        manifest: len(image.manifest_body),
        layer: len(LAYER),
        small: len(SMALL),
    }
    mallory = Mallory(sizes, {"latest": manifest}, garbage="garbage" in way)
    with recorded(70, "registry of the list claims what another's account read", way) as record:
        async with (
            serve_app(mallory.app()) as url,
            filled(lab, client, image, account, url) as proxy,
        ):
            if "manifest" in way:
                forged = forged_manifest(image)
                mallory.manifests = {"latest": forged, digest_of(forged): forged}
            base = f"{url_of(proxy.registry)}/v2/mallory/x"
            got = {
                what: await status(client, f"{base}/{what}?ns=docker.io")
                for what in (
                    "manifests/latest",
                    f"manifests/{manifest}",
                    f"blobs/{layer}",
                    f"blobs/{small}",
                )
            }
            still = f"{url_of(proxy.registry)}/v2/secret/app/blobs/{layer}?ns=ghcr.io"
            assert await status(client, still) == 200

        own = got.pop("manifests/latest")
        assert own == (200 if "manifest" in way else 404)
        assert set(got.values()) == {404}
        record.outcome = "404 for manifest and layers; the account's own name still served"


async def test_a_registry_that_has_the_same_layers_shows_it_once(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    image: ImageInfo,
    account: Upstream,
) -> None:
    """A base layer in two registries is read once, and costs a part of it at the other."""
    layer, small = image.layer_digests
    async with FakeRegistry() as public:
        public.add_image("open/app", "2", [LAYER, SMALL])
        async with filled(lab, client, image, account, public.url) as proxy:
            base = f"{url_of(proxy.registry)}/v2/open/app"
            for _ in range(3):
                for what in ("manifests/2", f"blobs/{layer}", f"blobs/{small}"):
                    assert await status(client, f"{base}/{what}?ns=docker.io") == 200

        assert public.count("GET", "/blobs/") == 2
        assert public.payload_bytes[layer] <= 64 << 10


async def test_what_was_shown_outlives_a_restart_and_the_registry(
    lab: Lab, client: aiohttp.ClientSession, image: ImageInfo, account: Upstream
) -> None:
    layer = image.layer_digests[0]
    async with FakeRegistry() as public:
        public.add_image("open/app", "2", [LAYER, SMALL])
        async with filled(lab, client, image, account, public.url) as proxy:
            base = f"{url_of(proxy.registry)}/v2/open/app"
            for what in ("manifests/2", f"blobs/{layer}"):
                assert await status(client, f"{base}/{what}?ns=docker.io") == 200
        url = public.url

    upstreams = account, Upstream("docker.io", url)
    async with running_proxy(replace(lab.settings("proxy"), upstream=upstreams)) as proxy:
        base = f"{url_of(proxy.registry)}/v2/open/app"
        assert await status(client, f"{base}/blobs/{layer}?ns=docker.io") == 200
