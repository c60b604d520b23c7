"""The proxy's client against the very endpoint that a proxy serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from p2pdist.errors import RegistryError, UpstreamError
from p2pdist.model.ids import HostId, digest_of
from p2pdist.oci.manifest import OCI_MANIFEST
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import Manifest, TagPage
from p2pdist.registry.proxy_client import EXCHANGE_PORT, HOST_ID, Greeting, ProxyClient
from p2pdist.registry.reading.client import BadAnswer
from p2pdist.registry.serving.endpoint import RegistryEndpoint
from tests.fakes.backend import FakeBackend, SeededContent
from tests.fakes.registry import FakeRegistry, Fault
from tests.fakes.registry_images import build_image

NAME = ImageName("registry.test:5000", "library/app")
BLOB = bytes(range(256)) * 1000
TIMEOUT_S = 5.0


@dataclass
class Far:
    """A proxy's endpoint, what is behind it, and a client of it."""

    backend: FakeBackend
    content: SeededContent
    client: ProxyClient


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def far(session: aiohttp.ClientSession, tmp_path: Path) -> AsyncIterator[Far]:
    content = SeededContent()
    backend = FakeBackend(content, tmp_path)
    endpoint = RegistryEndpoint(
        backend,
        upstreams=[NAME.upstream, "docker.io"],
        default_upstream="docker.io",
        proxy_headers=lambda: {EXCHANGE_PORT: "5101", HOST_ID: "ab" * 16},
    )
    runner = web.AppRunner(endpoint.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    yield Far(backend, content, ProxyClient(f"http://{host}:{port}/", session))
    await runner.cleanup()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


def seed_manifest(far: Far, tag: str = "1") -> bytes:
    body = build_image([BLOB]).manifest
    far.content.seed(NAME.upstream, NAME.repository, tag=tag, manifest=body)
    return body


async def test_a_manifest_is_asked_for_by_tag(far: Far) -> None:
    body = seed_manifest(far)

    found = await far.client.manifest(NAME, "1", timeout_s=TIMEOUT_S)

    assert found == Manifest(digest_of(body), OCI_MANIFEST, body)


async def test_statement_and_warning_come_along(far: Far) -> None:
    body = build_image([BLOB]).manifest
    told = Manifest(digest_of(body), OCI_MANIFEST, body, b"a signed record", "upstream is away")
    far.backend.manifest_answer = told

    assert await far.client.manifest(NAME, "1", timeout_s=TIMEOUT_S) == told


async def test_another_manifest_than_the_one_asked_for_is_refused(far: Far) -> None:
    body = build_image([BLOB]).manifest
    far.backend.manifest_answer = Manifest(digest_of(body), OCI_MANIFEST, body)

    with pytest.raises(BadAnswer, match="instead of"):
        await far.client.manifest(NAME, digest_of(b"another"), timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("status", [403, 404, 502])
async def test_a_refusal_keeps_its_status(far: Far, status: int) -> None:
    far.backend.refusal = RegistryError(status, "MANIFEST_UNKNOWN", "no")

    with pytest.raises(UpstreamError) as caught:
        await far.client.manifest(NAME, "1", timeout_s=TIMEOUT_S)

    assert caught.value.status == status


async def test_an_introduction_tells_the_size(far: Far) -> None:
    (digest,) = far.content.seed(NAME.upstream, NAME.repository, blobs=(BLOB,))

    assert await far.client.introduce(NAME, digest, timeout_s=TIMEOUT_S) == len(BLOB)
    assert far.backend.opened == []


async def test_a_proxy_says_who_it_is(far: Far) -> None:
    greeting = await far.client.greet(timeout_s=TIMEOUT_S)

    assert greeting == Greeting(5101, HostId("ab" * 16))


async def test_a_registry_that_is_no_proxy_does_not_say_so(
    registry: FakeRegistry, session: aiohttp.ClientSession
) -> None:
    with pytest.raises(BadAnswer, match="no p2pdist proxy"):
        await ProxyClient(registry.url, session).greet(timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("start", [0, 1000])
async def test_a_blob_is_read_from_an_offset(far: Far, start: int) -> None:
    (digest,) = far.content.seed(NAME.upstream, NAME.repository, blobs=(BLOB,))

    async with far.client.open_blob(NAME, digest, start=start) as body:
        data = b"".join([piece async for piece in body.chunks()])

    assert (body.size_bytes, body.start, data) == (len(BLOB), start, BLOB[start:])


async def test_a_body_that_ends_short_is_an_error(far: Far) -> None:
    (digest,) = far.content.seed(NAME.upstream, NAME.repository, blobs=(BLOB,))
    far.backend.fail_at = 100_000

    async with far.client.open_blob(NAME, digest) as body:
        with pytest.raises(UpstreamError):
            b"".join([piece async for piece in body.chunks()])


async def test_tags_come_in_pages(far: Far) -> None:
    for tag in ("1", "2", "3"):
        seed_manifest(far, tag)

    first = await far.client.tags(NAME, "n=2", timeout_s=TIMEOUT_S)
    assert first.following is not None
    second = await far.client.tags(NAME, first.following, timeout_s=TIMEOUT_S)

    assert first.tags == ["1", "2"]
    assert first.following.startswith("n=2&next_page=")
    assert second == TagPage(["3"])


async def test_referrers_are_an_index(far: Far) -> None:
    found = await far.client.referrers(NAME, digest_of(b"x"), "application/x", timeout_s=TIMEOUT_S)

    assert found.digest == digest_of(found.body)
    assert found.media_type.endswith("image.index.v1+json")


async def test_a_silent_proxy_is_given_up_at_the_deadline(
    registry: FakeRegistry, session: aiohttp.ClientSession
) -> None:
    registry.faults["1"] = Fault(hang=True)
    client = ProxyClient(registry.url, session)

    async with asyncio.timeout(10):
        with pytest.raises(UpstreamError, match="did not answer") as caught:
            await client.manifest(NAME, "1", timeout_s=0.05)

    assert caught.value.status == 0


async def test_a_proxy_that_is_away_has_no_status(session: aiohttp.ClientSession) -> None:
    with pytest.raises(UpstreamError, match="cannot be reached") as caught:
        await ProxyClient("http://127.0.0.1:1", session).greet(timeout_s=TIMEOUT_S)

    assert caught.value.status == 0
