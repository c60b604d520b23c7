"""Row 38: images of absurd sizes are refused or streamed, in bounded memory."""

from __future__ import annotations

import asyncio
import json
import resource
from typing import Any

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import random_bytes, read_blob
from tests.fakes.registry import FakeRegistry
from tests.faults.reading import check_stores
from tests.faults.records import recorded

GROWTH_MAX_KB = 64 * 1024
LAYER = random_bytes(300_000, 111)


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def descriptor(digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": "application/octet-stream", "digest": digest, "size": size}


def manifest_of(layers: list[dict[str, Any]], **more: Any) -> bytes:
    config = descriptor(digest_of(LAYER), len(LAYER))
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return json.dumps({**body, **more}).encode()


def padded(size: int) -> bytes:
    return manifest_of([], annotations={"x": "a" * size})


def index_of(count: int) -> bytes:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": f"sha256:{i:064x}", "size": 500} for i in range(count)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def nested(depth: int) -> bytes:
    inner = b"[" * depth + b"]" * depth
    return b'{"schemaVersion":2,"mediaType":"%s","x":%s}' % (OCI_MANIFEST.encode(), inner)


MANIFESTS = {
    "100 MB manifest": (padded(100_000_000), OCI_MANIFEST, (404, 502)),
    "just above 4 MiB": (padded(4 << 20), OCI_MANIFEST, (404, 502)),
    "10,000-entry index": (index_of(10_000), OCI_INDEX, (200,)),
    "1,000-entry index": (index_of(1000), OCI_INDEX, (200,)),
    "4,096 layers": (
        manifest_of([descriptor(f"sha256:{i:064x}", 1000) for i in range(4096)]),
        OCI_MANIFEST,
        (200,),
    ),
    "nested 100,000 deep": (nested(100_000), OCI_MANIFEST, (404, 502)),
}


@pytest.mark.parametrize("name", MANIFESTS)
async def test_row_38_manifests_are_capped(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, name: str
) -> None:
    body, media_type, statuses = MANIFESTS[name]
    registry.add_image("library/app", "small", [LAYER])
    registry.add_manifest("library/app", body, media_type, tag="1")
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    with recorded(38, "huge image", name) as record:
        before_kb = peak_kb()

        async with client.get(f"{url_of(peer.mirror)}/v2/library/app/manifests/1") as answer:
            got = await answer.read()

        grown_kb, status = peak_kb() - before_kb, answer.status
        assert status in statuses
        if status == 200:
            assert got == body
        if len(body) < 100_000_000:  # the registry of this process holds and sends it itself
            assert grown_kb <= GROWTH_MAX_KB
        async with client.get(f"{url_of(peer.mirror)}/v2/library/app/manifests/small") as answer:
            assert answer.status == 200
        check_stores(lab)
        record.outcome = f"answered {status}, +{grown_kb >> 10} MiB; the next image is served"
        record.invariants = ["I1", "I2", "I4"]


async def test_row_38_a_layer_that_claims_100_gib_costs_nothing(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "small", [LAYER])
    huge = f"sha256:{'7' * 64}"
    body = manifest_of([descriptor(huge, 100 << 30)])
    registry.add_manifest("library/app", body, OCI_MANIFEST, tag="1")
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    base = url_of(peer.mirror)
    with recorded(38, "huge image", "100 GiB layer") as record:
        async with client.get(f"{base}/v2/library/app/manifests/1", raise_for_status=True) as got:
            await got.read()
        before_kb = peak_kb()
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        async with client.get(f"{base}/v2/library/app/blobs/{huge}") as answer:
            error = json.loads(await answer.read())

        assert answer.status == 404
        assert error["errors"][0]["code"] == "BLOB_UNKNOWN"
        grown_kb = peak_kb() - before_kb
        assert grown_kb <= GROWTH_MAX_KB
        used = sum(p.stat().st_blocks * 512 for p in lab.directory.rglob("*") if p.is_file())
        assert used < 10 << 20
        check_stores(lab)
        took_s = loop.time() - began_s
        record.outcome = f"404 BLOB_UNKNOWN after {took_s:.1f} s, +{grown_kb >> 10} MiB, no disk"
        record.invariants = ["I1", "I2", "I3", "I4"]


async def test_row_38_a_layer_without_bytes_is_served(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [b"", LAYER])
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    base = url_of(peer.mirror)
    with recorded(38, "huge image", "0-byte layer") as record:
        async with client.get(f"{base}/v2/library/app/manifests/1", raise_for_status=True) as got:
            await got.read()

        assert await read_blob(client, base, image.layer_digests[0]) == b""
        assert await read_blob(client, base, image.layer_digests[1]) == LAYER
        check_stores(lab)
        record.outcome = "200 with no bytes; the layer beside it is right"
        record.invariants = ["I1", "I2", "I4"]
