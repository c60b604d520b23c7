"""Layers that a manifest names and its registry does not have, as Windows images do."""

from __future__ import annotations

import json

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
AWAY = digest_of(b"at its own URL only")
SIZES = {"small": 20_000, "large": 1_700_000_000}
NAMES = {"by ns": "library/app/{}?ns=docker.io", "by path": "docker.io/library/app/{}"}
# Who waits for a source waits for half a minute.
QUICK = aiohttp.ClientTimeout(total=20)


def add_image(registry: FakeRegistry, size_bytes: int) -> None:
    layer = random_bytes(100_000, 1)
    registry.add_blob("library/app", layer)
    registry.add_blob("library/app", b"{}")
    away = {"mediaType": FOREIGN, "digest": AWAY, "size": size_bytes, "urls": ["https://x.test/l"]}
    here = {"mediaType": FOREIGN, "digest": digest_of(layer), "size": len(layer)}
    config = {"mediaType": "application/json", "digest": digest_of(b"{}"), "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": DOCKER, "config": config, "layers": [away, here]}
    registry.add_manifest("library/app", json.dumps(manifest).encode(), DOCKER, tag="1")


@pytest.mark.faults
@pytest.mark.parametrize("direct", [False, True], ids=["proxy only", "direct"])
@pytest.mark.parametrize("way", NAMES)
@pytest.mark.parametrize("size", SIZES)
async def test_a_layer_that_is_elsewhere_is_refused_at_once(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    size: str,
    way: str,
    direct: bool,
) -> None:
    add_image(registry, SIZES[size])
    await lab.tracker()
    proxy, peer = await lab.proxy(), await lab.peer("a", direct=direct)

    variant = f"{size}, {way}, {'direct' if direct else 'proxy only'}"
    with recorded(82, "layer that its registry does not have", variant) as record:
        for base_url in (url_of(proxy.registry), url_of(peer.mirror)):
            manifest = NAMES[way].format("manifests/1")
            async with client.get(f"{base_url}/v2/{manifest}", raise_for_status=True):
                pass
            blob = NAMES[way].format(f"blobs/{AWAY}")
            async with client.get(f"{base_url}/v2/{blob}", timeout=QUICK) as answer:
                told = json.loads(await answer.read())["errors"][0]
                assert (answer.status, told["code"]) == (404, "BLOB_UNKNOWN")
            if size == "large":
                assert told["detail"] == "unknown"
        record.outcome = "404 before anybody waits for a source to come back"
