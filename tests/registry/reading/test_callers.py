"""Whose credentials a registry is shown that decides by its callers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.oci.callers import NOBODY, Caller
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import speaking_for
from p2pdist.registry.reading.client import UpstreamClient, UpstreamEntry
from tests.fakes.registry import FakeRegistry, Fault, ImageInfo
from tests.fakes.registry_rights import Rights, basic

HOST = "registry.test"
NAME = ImageName(HOST, "alice/app")
ALICE, BOB = Caller(basic("alice")), Caller(basic("bob"))


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        registry.rights = Rights({"alice": {"alice/app"}, "bob": set()})
        yield registry


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    return registry.add_image("alice/app", "1", [b"layer"])


@pytest.fixture
async def upstream(registry: FakeRegistry) -> AsyncIterator[UpstreamClient]:
    entries = [
        UpstreamEntry(HOST, registry.url, access="passthrough"),
        UpstreamEntry("other.test", registry.url, access="passthrough"),
        UpstreamEntry("public.test", registry.url),
    ]
    async with UpstreamClient(entries) as client:
        yield client


async def reason(upstream: UpstreamClient, caller: Caller, kind: str, what: str) -> ErrorReason:
    with speaking_for(HOST, caller), pytest.raises(UpstreamError) as caught:
        await upstream.check_read(NAME, kind, what)
    return caught.value.reason


async def test_each_caller_is_let_as_the_registry_says(
    upstream: UpstreamClient, image: ImageInfo
) -> None:
    with speaking_for(HOST, ALICE):
        await upstream.check_read(NAME, "manifests", "1")
        await upstream.check_read(NAME, "blobs", image.layer_digests[0])
        assert (await upstream.get_manifest(NAME, "1")).digest == image.manifest_digest

    for who in (BOB, NOBODY, Caller("Bearer made-up")):
        for kind, what in (("manifests", "1"), ("blobs", image.layer_digests[0])):
            assert await reason(upstream, who, kind, what) is ErrorReason.CREDENTIALS


async def test_what_is_not_there_decides_nothing(
    upstream: UpstreamClient, image: ImageInfo
) -> None:
    assert await reason(upstream, ALICE, "manifests", "2") is ErrorReason.UNKNOWN


async def test_a_question_reads_no_content(
    upstream: UpstreamClient, registry: FakeRegistry, image: ImageInfo
) -> None:
    layer = image.layer_digests[0]
    registry.faults[layer] = Fault(no_head=403)

    with speaking_for(HOST, ALICE):
        await upstream.check_read(NAME, "manifests", "1")
        await upstream.check_read(NAME, "blobs", layer)

    assert registry.count("GET", "/manifests/") == 0
    assert registry.payload_bytes[layer] <= 1


@pytest.mark.parametrize("host", ["other.test", "public.test"])
async def test_no_other_registry_is_shown_them(
    upstream: UpstreamClient, registry: FakeRegistry, image: ImageInfo, host: str
) -> None:
    for caller in (ALICE, Caller("Bearer alice-token")):
        with speaking_for(HOST, caller), pytest.raises(UpstreamError):
            await upstream.get_manifest(ImageName(host, "alice/app"), "1")

    shown = [asked.authorization or "" for asked in registry.asked]
    assert not any(ALICE.authorization == said or "alice" in said for said in shown)


async def test_tokens_of_one_caller_are_not_anothers_and_are_bought_anew_when_forgotten(
    upstream: UpstreamClient, registry: FakeRegistry, image: ImageInfo
) -> None:
    with speaking_for(HOST, ALICE):
        for _ in range(3):
            await upstream.check_read(NAME, "manifests", "1")
    assert registry.count("GET", "/token") == 1
    assert await reason(upstream, BOB, "manifests", "1") is ErrorReason.CREDENTIALS

    assert registry.rights is not None
    registry.rights.may_pull["alice"].clear()
    with speaking_for(HOST, ALICE):
        await upstream.check_read(NAME, "manifests", "1")  # a token outlives the right
    upstream.forget(HOST, ALICE)
    assert await reason(upstream, ALICE, "manifests", "1") is ErrorReason.CREDENTIALS


async def test_a_token_service_that_is_not_the_registrys_own_is_not_passed_on(
    upstream: UpstreamClient, registry: FakeRegistry
) -> None:
    assert [c.scheme for c in await upstream.challenges(NAME)] == ["bearer"]

    registry.faults["/v2/"] = Fault(
        status=401, headers={"WWW-Authenticate": 'Bearer realm="https://evil.test/token"'}
    )
    with pytest.raises(UpstreamError, match="foreign token service"):
        await upstream.challenges(NAME)
