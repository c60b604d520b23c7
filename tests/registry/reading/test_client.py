"""The upstream client against a registry that fails as it is told."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.geometry import MANIFEST_SIZE_MAX_BYTES
from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.manifest import MANIFEST_ACCEPT, OCI_INDEX, OCI_MANIFEST, media_type_of
from p2pdist.oci.names import ImageName
from p2pdist.oci.tag_list import parse_tag_list
from p2pdist.process.off_loop import OFF_LOOP_BYTES
from p2pdist.registry.ports import client_accept
from p2pdist.registry.reading import client as reading
from p2pdist.registry.reading.client import BadAnswer, ManifestHead, UpstreamClient, UpstreamRefusal
from tests.fakes.registry import FakeRegistry, Fault, ImageInfo
from tests.registry.reading.upstream_parts import HASTY, NAME, REPOSITORY, client_of, read_blob

T = TypeVar("T")

LAYER = bytes(range(256)) * 2000


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
async def client(registry: FakeRegistry) -> AsyncIterator[UpstreamClient]:
    async with client_of(registry) as client:
        yield client


@pytest.fixture
async def hasty(registry: FakeRegistry) -> AsyncIterator[UpstreamClient]:
    """For tests of what takes too long: on a busy machine anything may."""
    async with client_of(registry, timeouts=HASTY) as client:
        yield client


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    return registry.add_image(REPOSITORY, "1", [LAYER, b"two"])


# --- manifests ----------------------------------------------------------------------------------


async def test_a_manifest_comes_as_it_was_pushed(client: UpstreamClient, image: ImageInfo) -> None:
    found = await client.get_manifest(NAME, "1")

    assert (found.digest, found.body) == (image.manifest_digest, image.manifest_body)
    assert found.media_type == OCI_MANIFEST


async def test_all_manifest_types_are_asked_for(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    await client.get_manifest(NAME, "1")

    assert registry.asked[0].headers["Accept"] == ", ".join(MANIFEST_ACCEPT)
    assert registry.asked[0].headers["Accept-Encoding"] == "identity"


ORAS = "application/vnd.cncf.oras.artifact.manifest.v1+json"


async def test_what_a_client_accepts_is_asked_for_beside_ours(
    registry: FakeRegistry, client: UpstreamClient
) -> None:
    registry.strict_accept = True
    registry.add_manifest(REPOSITORY, b'{"items":[]}', ORAS, tag="1")
    with pytest.raises(UpstreamRefusal):
        await client.get_manifest(NAME, "1")

    client_accept.set((ORAS,))

    assert (await client.head_manifest(NAME, "1")).digest == digest_of(b'{"items":[]}')
    assert (await client.get_manifest(NAME, "1")).media_type == ORAS
    assert registry.asked[-1].headers["Accept"] == ", ".join((*MANIFEST_ACCEPT, ORAS))


async def test_a_manifest_that_is_packed_all_the_same(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    packed = gzip.compress(image.manifest_body)
    for reference in ("1", image.manifest_digest):
        registry.answer_manifest(REPOSITORY, reference, packed, OCI_MANIFEST)
        told = image.manifest_digest if reference == "1" else ""
        coding = {"Content-Encoding": "gzip"}
        registry.faults[reference] = Fault(digest_header=told, headers=coding)

        found = await client.get_manifest(NAME, reference)

        assert (found.digest, found.body) == (image.manifest_digest, image.manifest_body)


async def test_a_packed_manifest_too_large_to_be_one(
    registry: FakeRegistry, client: UpstreamClient
) -> None:
    bomb = gzip.compress(bytes(MANIFEST_SIZE_MAX_BYTES + 1))
    registry.add_manifest(REPOSITORY, bomb, tag="1")
    registry.faults["1"] = Fault(digest_header="", headers={"Content-Encoding": "gzip"})

    with pytest.raises(BadAnswer, match="when unpacked"):
        await client.get_manifest(NAME, "1")


async def test_a_head_tells_the_digest(client: UpstreamClient, image: ImageInfo) -> None:
    head = await client.head_manifest(NAME, "1")

    size = len(image.manifest_body)
    assert head == ManifestHead(image.manifest_digest, OCI_MANIFEST, size)


@pytest.mark.parametrize("status", [403, 404, 405, 500])
async def test_rc53_no_head_support_is_no_error(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo, status: int
) -> None:
    registry.faults["1"] = Fault(no_head=status)

    assert await client.head_manifest(NAME, "1") == ManifestHead()
    assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest


async def test_rc53_an_empty_digest_header_tells_nothing(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(digest_header="", headers={"Docker-Content-Digest": ""})

    assert (await client.head_manifest(NAME, "1")).digest is None
    assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest


async def test_rc53_no_digest_header_is_no_error(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(digest_header="")

    assert (await client.head_manifest(NAME, "1")).digest is None
    assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest


async def test_a_wrong_digest_header_is_refused(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(digest_header=digest_of(b"another"))

    with pytest.raises(BadAnswer, match="instead of"):
        await client.get_manifest(NAME, "1")


async def test_wrong_bytes_for_a_digest_are_refused(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults[image.manifest_digest] = Fault(corrupt_at=20, digest_header="")

    with pytest.raises(BadAnswer, match="instead of"):
        await client.get_manifest(NAME, image.manifest_digest)


async def test_a_type_that_the_body_contradicts_is_refused(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(content_type=OCI_INDEX)

    with pytest.raises(BadAnswer, match="Content-Type"):
        await client.get_manifest(NAME, "1")


async def test_a_vague_type_is_replaced_by_the_one_of_the_body(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(content_type="application/json")

    assert (await client.get_manifest(NAME, "1")).media_type == OCI_MANIFEST


@pytest.mark.parametrize("no_length", [False, True])
async def test_rc65_a_manifest_over_4_mib_is_refused(
    registry: FakeRegistry, client: UpstreamClient, no_length: bool
) -> None:
    registry.add_manifest(REPOSITORY, b" " * (MANIFEST_SIZE_MAX_BYTES + 1), tag="big")
    registry.faults["big"] = Fault(no_length=no_length)

    with pytest.raises(UpstreamError) as caught:
        await client.get_manifest(NAME, "big")

    assert caught.value.status == 502
    assert registry.count("GET") == 1


async def test_rc04_an_unknown_tag_and_an_unknown_repository_differ(
    client: UpstreamClient, image: ImageInfo
) -> None:
    with pytest.raises(UpstreamRefusal) as tag:
        await client.get_manifest(NAME, "2")
    with pytest.raises(UpstreamRefusal) as repository:
        await client.get_manifest(ImageName(NAME.upstream, "other"), "1")

    assert (tag.value.status, tag.value.code) == (404, "MANIFEST_UNKNOWN")
    assert (repository.value.status, repository.value.code) == (404, "NAME_UNKNOWN")


async def test_an_upstream_that_is_not_configured_is_not_asked(client: UpstreamClient) -> None:
    with pytest.raises(UpstreamError) as caught:
        await client.get_manifest(ImageName("elsewhere.test", "a"), "1")

    assert caught.value.reason is ErrorReason.NOT_LISTED


# --- outages and limits -------------------------------------------------------------------------


async def test_a_server_error_is_tried_again(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(status=503, times=2)

    assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest
    assert registry.count("GET") == 3


async def test_a_lasting_server_error_ends_after_three_tries(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(status=503)

    with pytest.raises(UpstreamError) as caught:
        await client.get_manifest(NAME, "1")

    assert caught.value.status == 503
    assert registry.count("GET") == 3
    assert client.counters.requests["registry.test", "5xx"] == 3


async def test_a_refused_connection_has_no_status(image: ImageInfo, registry: FakeRegistry) -> None:
    async with client_of(registry, url="http://127.0.0.1:1") as client:
        with pytest.raises(UpstreamError) as caught:
            await client.get_manifest(NAME, "1")

    assert caught.value.status == 0
    assert client.counters.requests["registry.test", "none"] == 3


async def test_silence_before_the_headers_ends_at_the_deadline(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.faults[image.layer_digests[0]] = Fault(hang=True)
    timeouts = replace(HASTY, headers_s=0.1)
    async with client_of(registry, timeouts=timeouts) as client:
        with pytest.raises(UpstreamError, match="did not answer"):
            await read_blob(client, image.layer_digests[0])


async def test_rc59_after_429_the_upstream_is_left_alone(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(status=429, headers={"Retry-After": "30"})

    for _ in range(3):
        with pytest.raises(UpstreamError) as caught:
            await client.get_manifest(NAME, "1")
        assert caught.value.status == 429

    assert registry.count() == 1
    assert client.counters.cool_downs["registry.test"] == 1


async def test_rc59_a_429_for_manifests_leaves_blobs_alone(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(status=429, headers={"Retry-After": "30"})
    with pytest.raises(UpstreamError):
        await client.get_manifest(NAME, "1")

    assert await read_blob(client, image.layer_digests[0]) == LAYER


async def test_rc59_retry_after_zero_lets_the_next_request_through(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(status=429, headers={"Retry-After": "0"}, times=1)
    with pytest.raises(UpstreamError):
        await client.get_manifest(NAME, "1")

    assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest


async def test_rc59_what_is_left_of_a_quota_is_counted(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(headers={"ratelimit-remaining": "76;w=21600"})

    await client.get_manifest(NAME, "1")

    assert client.counters.rate_limit_remaining == {"registry.test": 76}


# --- blobs --------------------------------------------------------------------------------------


async def test_a_blob_is_read_whole(client: UpstreamClient, image: ImageInfo) -> None:
    async with client.open_blob(NAME, image.layer_digests[0]) as body:
        data = b"".join([piece async for piece in body.chunks()])

    assert (body.size_bytes, body.start, data) == (len(LAYER), 0, LAYER)
    assert client.counters.payload_bytes["registry.test"] == len(LAYER)


@pytest.mark.parametrize("start", [1, 100_000, len(LAYER) - 1])
async def test_a_blob_is_read_from_an_offset(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo, start: int
) -> None:
    async with client.open_blob(NAME, image.layer_digests[0], start=start) as body:
        data = b"".join([piece async for piece in body.chunks()])

    assert (body.size_bytes, data) == (len(LAYER), LAYER[start:])
    assert registry.payload_total == len(LAYER) - start


async def test_a_200_to_a_range_is_skipped_into(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults[image.layer_digests[0]] = Fault(ignore_range=True)

    assert await read_blob(client, image.layer_digests[0], 100_000) == LAYER[100_000:]


@pytest.mark.parametrize(
    "told",
    [
        "",
        f"bytes 0-{len(LAYER) - 1}/{len(LAYER)}",
        f"bytes 1000-1999/{len(LAYER)}",
        f"bytes 999-{len(LAYER) - 1}/*",
        "bytes 1000-1999/**",
        f"bytes 1000-{len(LAYER)}/{len(LAYER) + 1}",
        "bytes x",
    ],
)
async def test_a_wrong_content_range_is_refused(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo, told: str
) -> None:
    registry.faults[image.layer_digests[0]] = Fault(content_range=told)

    with pytest.raises(BadAnswer):
        await read_blob(client, image.layer_digests[0], 1000)


async def test_rc60_a_short_body_is_an_error(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults[image.layer_digests[0]] = Fault(truncate_after=70_000)

    with pytest.raises(UpstreamError, match="broke off"):
        await read_blob(client, image.layer_digests[0])


async def test_a_body_of_chunked_coding_tells_no_size_and_is_read_to_its_end(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults[image.layer_digests[0]] = Fault(no_length=True)

    async with client.open_blob(NAME, image.layer_digests[0]) as body:
        data = b"".join([piece async for piece in body.chunks()])

    assert (body.size_bytes, data) == (None, LAYER)


async def test_a_stall_ends_at_the_idle_deadline(
    registry: FakeRegistry, hasty: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults[image.layer_digests[0]] = Fault(stall_after=70_000)
    with pytest.raises(UpstreamError, match="stood still"):
        await read_blob(hasty, image.layer_digests[0])

    assert hasty.counters.payload_bytes["registry.test"] == 70_000


async def test_a_slow_reader_is_no_stall(
    registry: FakeRegistry, hasty: UpstreamClient, image: ImageInfo
) -> None:
    got = bytearray()

    async with hasty.open_blob(NAME, image.layer_digests[0]) as body:
        async for data in body.chunks():
            got += data
            if len(got) == len(data):
                await asyncio.sleep(2 * HASTY.idle_s)

    assert got == LAYER


async def test_an_unknown_blob_is_404(client: UpstreamClient, image: ImageInfo) -> None:
    with pytest.raises(UpstreamRefusal) as caught:
        await read_blob(client, digest_of(b"nothing"))

    assert (caught.value.status, caught.value.code) == (404, "BLOB_UNKNOWN")


async def test_a_size_comes_from_head(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    assert await client.blob_size(NAME, image.layer_digests[0]) == len(LAYER)
    assert (registry.count("HEAD"), registry.count("GET")) == (1, 0)


@pytest.mark.parametrize("status", [401, 403, 405])
async def test_rc54_a_size_comes_from_get_where_head_is_refused(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo, status: int
) -> None:
    registry.faults[image.layer_digests[0]] = Fault(no_head=status)

    assert await client.blob_size(NAME, image.layer_digests[0]) == len(LAYER)
    assert registry.payload_total == 1


# --- redirects ----------------------------------------------------------------------------------


async def test_rc55_a_redirect_to_another_port_keeps_the_range(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(
        redirect=f"{registry.storage_url}/storage/{{digest}}?sig=a%2Fb%3D"
    )

    assert await read_blob(client, digest, 1000) == LAYER[1000:]
    assert registry.asked[-1].headers["Range"] == "bytes=1000-"
    assert registry.asked[-1].query == {"sig": "a/b="}


async def test_rc55_a_relative_redirect_is_followed(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(redirect="/storage/{digest}")

    assert await read_blob(client, digest) == LAYER


async def test_a_circle_of_redirects_ends(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(redirect=f"/v2/{REPOSITORY}/manifests/1")

    with pytest.raises(BadAnswer, match="redirects"):
        await client.get_manifest(NAME, "1")

    assert registry.count() == 11


async def test_rc56_an_expired_presigned_url_is_asked_for_again(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(
        redirect=f"{registry.storage_url}/storage/{{digest}}"
    )
    registry.faults[f"/storage/{digest}"] = Fault(status=403, times=1)

    assert await read_blob(client, digest) == LAYER


async def test_a_size_is_found_where_storage_refuses_head(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(
        redirect=f"{registry.storage_url}/storage/{{digest}}"
    )
    registry.faults[f"/storage/{digest}"] = Fault(no_head=403)

    assert await client.blob_size(NAME, digest) == len(LAYER)


async def test_a_refusal_of_storage_is_not_one_of_the_upstream(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(
        redirect=f"{registry.storage_url}/storage/{{digest}}"
    )
    registry.faults[f"/storage/{digest}"] = Fault(status=403)

    with pytest.raises(UpstreamError) as caught:
        await read_blob(client, digest)

    assert caught.value.status == 502


# --- lists --------------------------------------------------------------------------------------


async def test_what_is_no_tag_is_left_out(registry: FakeRegistry, client: UpstreamClient) -> None:
    registry.add_image(REPOSITORY, "good", [b"x"])
    registry.add_manifest(REPOSITORY, b"{}", tag="bad tag\r\n")

    assert (await client.tags(NAME, "")).tags == ["good"]


async def test_what_a_registry_sends_at_length_is_not_read_on_the_loop(
    registry: FakeRegistry, client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy stood still for a second over a list of a million tags."""
    threads: set[int] = set()

    def noting(parse: Callable[..., T]) -> Callable[..., T]:
        def noted(*given: Any) -> T:
            threads.add(threading.get_ident())
            return parse(*given)

        return noted

    monkeypatch.setattr(reading, "parse_tag_list", noting(parse_tag_list))
    monkeypatch.setattr(reading, "media_type_of", noting(media_type_of))
    layer = {"digest": digest_of(b""), "size": 0}
    padding = "x" * OFF_LOOP_BYTES
    document = {"schemaVersion": 2, "config": layer, "layers": [], "annotations": {"x": padding}}
    registry.add_manifest(REPOSITORY, json.dumps(document).encode(), tag="1")
    registry.add_manifest(REPOSITORY, b"{}", tag=f" {padding}")

    assert (await client.tags(NAME, "")).tags == ["1"]
    assert (await client.get_manifest(NAME, "1")).media_type == OCI_MANIFEST
    assert threads
    assert threading.get_ident() not in threads


def refer(registry: FakeRegistry, subject: Digest, number: int) -> Digest:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": f"application/x.{number}",
        "subject": {"digest": subject},
    }
    return registry.add_manifest(REPOSITORY, json.dumps(document).encode())


async def test_rc21_all_pages_of_referrers_are_read(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    found = [refer(registry, image.manifest_digest, i) for i in range(3)]
    registry.page_size = 2

    pages = await client.referrers(NAME, image.manifest_digest, None)

    told = [child["digest"] for page in pages for child in json.loads(page)["manifests"]]
    assert told == found


async def test_rc21_an_upstream_without_referrers_answers_404(
    registry: FakeRegistry, client: UpstreamClient, image: ImageInfo
) -> None:
    registry.referrers_supported = False

    with pytest.raises(UpstreamError) as caught:
        await client.referrers(NAME, image.manifest_digest, None)

    assert caught.value.status == 404
