"""Sizes and parts of blobs at registries that know little of ranges, or nothing of HEAD."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from p2pdist.errors import UpstreamError
from p2pdist.registry.reading.client import BadAnswer
from tests.fakes.registry import FakeRegistry, Fault, ImageInfo
from tests.registry.reading.upstream_parts import NAME, REPOSITORY, client_of, read_blob

LAYER = bytes(range(256)) * 4000
SMALL = b"small " * 1000


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    return registry.add_image(REPOSITORY, "1", [LAYER, SMALL])


@pytest.mark.parametrize("no_head", [404, 405, 500])
@pytest.mark.parametrize(
    "fault",
    [Fault(refuse_range=True), Fault(no_total=True), Fault(ignore_range=True)],
    ids=["416", "no total", "no ranges"],
)
async def test_the_answer_to_get_tells_a_size(
    registry: FakeRegistry, image: ImageInfo, fault: Fault, no_head: int
) -> None:
    fault.no_head = no_head
    digest = image.layer_digests[0]
    registry.faults[digest] = fault
    async with client_of(registry) as client:
        assert await client.blob_size(NAME, digest) == len(LAYER)

    assert client.counters.payload_bytes["registry.test"] == 0


async def test_a_small_blob_is_read_for_its_size(registry: FakeRegistry, image: ImageInfo) -> None:
    small, large = image.layer_digests[1], image.layer_digests[0]
    for digest in (small, large):
        registry.faults[digest] = Fault(no_head=405, no_length=True, no_total=True)
    async with client_of(registry) as client:
        assert await client.blob_size(NAME, small) == len(SMALL)
        with pytest.raises(BadAnswer):
            await client.blob_size(NAME, large)


@pytest.mark.parametrize(
    "fault",
    [Fault(refuse_range=True), Fault(no_total=True), Fault(ignore_range=True)],
    ids=["416", "no total", "no ranges"],
)
async def test_a_blob_goes_on_where_it_was_cut(
    registry: FakeRegistry, image: ImageInfo, fault: Fault
) -> None:
    digest = image.layer_digests[0]
    registry.faults[digest] = fault
    async with client_of(registry) as client:
        assert await read_blob(client, digest, 100_000) == LAYER[100_000:]


async def test_a_refusal_of_more_than_the_range_is_one(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    digest = image.layer_digests[0]
    registry.faults[digest] = Fault(status=416)
    async with client_of(registry) as client:
        with pytest.raises(UpstreamError) as caught:
            await read_blob(client, digest, 100_000)

    assert caught.value.status == 416
    assert registry.count() == 2
