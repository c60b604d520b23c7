"""The fake registry does what a test tells it to, seen through a plain client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import parse_manifest
from tests.fakes.registry import FakeRegistry, Fault, TokenAuth

LAYER = bytes(range(256)) * 1000


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_an_image_can_be_pulled_by_tag(
    registry: FakeRegistry, session: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [LAYER, b"two"])

    async with session.get(f"{registry.url}/v2/library/app/manifests/1") as answer:
        body = await answer.read()
    info = parse_manifest(body, answer.content_type)
    async with session.get(f"{registry.url}/v2/library/app/blobs/{info.layers[0].digest}") as blob:
        layer = await blob.read()

    assert digest_of(body) == image.manifest_digest == answer.headers["Docker-Content-Digest"]
    assert layer == LAYER
    assert registry.payload_bytes[image.layer_digests[0]] == len(LAYER)


async def test_a_truncated_body_ends_short(
    registry: FakeRegistry, session: aiohttp.ClientSession
) -> None:
    digest = registry.add_blob("r", LAYER)
    registry.faults[digest] = Fault(truncate_after=1000)

    async with session.get(f"{registry.url}/v2/r/blobs/{digest}") as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_stalled_body_goes_on_when_released(
    registry: FakeRegistry, session: aiohttp.ClientSession
) -> None:
    digest = registry.add_blob("r", LAYER)
    registry.faults[digest] = Fault(stall_after=1000)

    async with session.get(f"{registry.url}/v2/r/blobs/{digest}") as answer:
        first = await answer.content.readexactly(1000)
        await registry.stalled.wait()
        registry.release()
        rest = await answer.read()

    assert first + rest == LAYER


async def test_a_range_is_served(registry: FakeRegistry, session: aiohttp.ClientSession) -> None:
    digest = registry.add_blob("r", LAYER)

    url = f"{registry.url}/v2/r/blobs/{digest}"
    async with session.get(url, headers={"Range": "bytes=10-19"}) as answer:
        body = await answer.read()

    assert (answer.status, body) == (206, LAYER[10:20])
    assert answer.headers["Content-Range"] == f"bytes 10-19/{len(LAYER)}"


async def test_storage_refuses_an_authorization_as_s3_does(
    registry: FakeRegistry, session: aiohttp.ClientSession
) -> None:
    digest = registry.add_blob("r", LAYER)

    url = f"{registry.storage_url}/storage/{digest}"
    async with session.get(url, headers={"Authorization": "Bearer x"}) as answer:
        refused = answer.status
    async with session.get(url) as answer:
        body = await answer.read()

    assert (refused, body) == (400, LAYER)


async def test_a_token_opens_its_repository_only(
    registry: FakeRegistry, session: aiohttp.ClientSession
) -> None:
    registry.auth = TokenAuth()
    registry.add_image("a", "1", [b"x"])
    registry.add_image("b", "1", [b"x"])

    async with session.get(f"{registry.url}/token?scope=repository:a:pull") as answer:
        token = (await answer.json())["token"]
    statuses = []
    for repository in ("a", "b"):
        url = f"{registry.url}/v2/{repository}/manifests/1"
        async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
            statuses.append(answer.status)

    assert statuses == [200, 401]
