"""Registry contract, statements on protocol: `test_rcNN` checks statement NN."""

from __future__ import annotations

import hashlib
import random
from urllib.parse import urlsplit

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.errors import ERROR_CODES
from p2pdist.oci.manifest import DOCKER_MANIFEST, MANIFEST_ACCEPT, OCI_INDEX
from tests.conformance.bodies import SHAPES, image, index
from tests.conformance.conftest import Endpoint
from tests.fakes.http_client import raw_exchange

ABSENT = digest_of(b"nobody has this")


async def test_rc01_ping_is_answered_without_an_upstream(endpoint: Endpoint) -> None:
    answer = await endpoint.get("/v2/")
    assert answer.status == 200
    assert set(answer.json()) <= {"registries"}
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert endpoint.upstream_requests() == 0


@pytest.mark.parametrize("by_tag", [True, False])
async def test_rc02_head_of_a_manifest(endpoint: Endpoint, by_tag: bool) -> None:
    body = image(b"layer")
    (digest,) = endpoint.seed(tag="1", manifest=body)
    target = f"/v2/library/app/manifests/{'1' if by_tag else digest}"
    answer = await endpoint.get(target, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(body))
    assert answer.headers["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
    assert answer.headers["Docker-Content-Digest"] == digest


async def test_rc03_a_manifest_comes_byte_for_byte(endpoint: Endpoint) -> None:
    body = image(b"layer")
    endpoint.seed(tag="1", manifest=body)
    answer = await endpoint.get("/v2/library/app/manifests/1")
    assert answer.body == body
    sha256 = hashlib.sha256(answer.body).hexdigest()
    assert answer.headers["Docker-Content-Digest"] == f"sha256:{sha256}"


async def test_rc04_unknown_manifest_and_unknown_repository(endpoint: Endpoint) -> None:
    endpoint.seed(tag="1", manifest=image())
    manifest = await endpoint.get("/v2/library/app/manifests/2")
    assert (manifest.status, manifest.error_codes) == (404, ["MANIFEST_UNKNOWN"])
    repository = await endpoint.get("/v2/library/nothing/manifests/1")
    assert (repository.status, repository.error_codes) == (404, ["NAME_UNKNOWN"])


@pytest.mark.parametrize("kind", ["blobs", "manifests", "referrers"])
@pytest.mark.parametrize(
    "digest",
    [
        "sha256:abc",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 65,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256:" + "g" * 64,
        "sha256:..%2e" + "a" * 60,
    ],
)
async def test_rc05_malformed_digest(endpoint: Endpoint, kind: str, digest: str) -> None:
    answer = await endpoint.get(f"/v2/library/app/{kind}/{digest}")
    assert (answer.status, answer.error_codes) == (400, ["DIGEST_INVALID"])
    assert endpoint.upstream_requests() == 0


@pytest.mark.parametrize(
    "target",
    [
        "/v2/UPPER/x/manifests/1",
        f"/v2/{'a' * 256}/manifests/1",
        "/v2/../x/manifests/1",
        "/v2/a/../../x/manifests/1",
        "/v2/%2e%2e/x/manifests/1",
        "/v2/a/%2e%2e/x/manifests/1",
        "/v2/%252e%252e/x/manifests/1",
        "/v2/library%2Fapp/manifests/1",
        "/v2/library/a%00p/manifests/1",
        "/v2/library/%0d%0aa/manifests/1",
        "/v2/library//app/manifests/1",
        "/v2//library/app/manifests/1",
        "/v2/library/%C3%A4pp/manifests/1",
        "/v2/library/app/manifests/.1",
        f"/v2/library/app/manifests/{'t' * 129}",
        "/v2/library/app/manifests/a%2Fb",
        "/v2/library/app/manifests/a%00",
        "/v2/library/app/manifests/",
        "/v2/manifests/1",
        "/v2/library/app",
        "/v2/_catalog",
        "/elsewhere",
        "/",
        "//",
    ],
)
async def test_rc06_invalid_name_or_tag(endpoint: Endpoint, target: str) -> None:
    answer = await endpoint.get(target)
    assert answer.status in (400, 404)
    assert set(answer.error_codes) <= ERROR_CODES
    assert endpoint.upstream_requests() == 0


@pytest.mark.parametrize(
    "repository",
    [
        "blobs/manifests",
        "manifests/blobs",
        "x/tags/list",
        "a/uploads",
        "x/blobs/uploads/y",
        "referrers/x",
        "v2/v2",
    ],
)
async def test_rc07_names_made_of_route_words(endpoint: Endpoint, repository: str) -> None:
    manifest, blob = image(b"x"), repository.encode()
    _, blob_digest = endpoint.seed("ghcr.io", repository, tag="1", manifest=manifest, blobs=(blob,))
    by_tag = await endpoint.get(f"/v2/{repository}/manifests/1?ns=ghcr.io")
    assert by_tag.body == manifest
    by_digest = await endpoint.get(f"/v2/{repository}/blobs/{blob_digest}?ns=ghcr.io")
    assert by_digest.body == blob
    tags = await endpoint.get(f"/v2/{repository}/tags/list?ns=ghcr.io")
    assert tags.json()["tags"] == ["1"]


@pytest.mark.parametrize("shape", sorted(SHAPES))
async def test_rc08_all_shapes_of_manifest_pass(endpoint: Endpoint, shape: str) -> None:
    body, media_type = SHAPES[shape]
    endpoint.seed(tag="1", manifest=body)
    answer = await endpoint.get("/v2/library/app/manifests/1")
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["Content-Type"] == media_type


async def test_rc08_a_blob_of_no_bytes_passes(endpoint: Endpoint) -> None:
    (digest,) = endpoint.seed(blobs=(b"",))
    for _ in ("cold", "warm"):
        answer = await endpoint.get(f"/v2/library/app/blobs/{digest}")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Length"] == "0"


@pytest.mark.parametrize(
    "accept", [None, "*/*", DOCKER_MANIFEST, "application/vnd.docker.distribution.manifest.v1+json"]
)
async def test_rc09_the_stored_type_whatever_is_accepted(
    endpoint: Endpoint, accept: str | None
) -> None:
    body = index(image(b"layer"))
    endpoint.seed(tag="1", manifest=body)
    headers = [("Accept", accept)] if accept else []
    answer = await endpoint.get("/v2/library/app/manifests/1", headers=headers)
    assert answer.headers["Content-Type"] == OCI_INDEX
    assert answer.body == body


async def test_rc10_accept_in_any_number_of_lines_and_order(endpoint: Endpoint) -> None:
    endpoint.seed(tag="1", manifest=index(image(b"layer")))
    shuffled = [*MANIFEST_ACCEPT, "*/*"]
    random.Random(10).shuffle(shuffled)
    variants = [
        [("Accept", media_type) for media_type in (*MANIFEST_ACCEPT, "*/*")],
        [("Accept", media_type) for media_type in shuffled],
        [("Accept", ", ".join(shuffled))],
    ]
    answers = [await endpoint.get("/v2/library/app/manifests/1", headers=v) for v in variants]
    assert len({(a.status, a.headers["Content-Type"], a.body) for a in answers}) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_rc11_304_only_when_asked_for_and_equal(endpoint: Endpoint, method: str) -> None:
    manifest, blob = endpoint.seed(tag="1", manifest=image(b"l"), blobs=(b"l" * 5000,))
    for target, digest in (("manifests/1", manifest), (f"blobs/{blob}", blob)):
        path = f"/v2/library/app/{target}"
        equal = [("If-None-Match", f'"{ABSENT}", "{digest}"')]
        other = [("If-None-Match", f'"{ABSENT}"')]
        answer = await endpoint.get(path, method=method, headers=equal)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == f'"{digest}"'
        assert (await endpoint.get(path, method=method, headers=other)).status == 200
        assert (await endpoint.get(path, method=method)).status == 200


async def test_rc11_no_304_for_a_blob_that_is_not_there(endpoint: Endpoint) -> None:
    endpoint.seed(tag="1", manifest=image())
    headers = [("If-None-Match", f'"{ABSENT}"')]
    answer = await endpoint.get(f"/v2/library/app/blobs/{ABSENT}", headers=headers)
    assert answer.status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_rc12_quoted_etag_cold_and_warm(endpoint: Endpoint, method: str) -> None:
    manifest, blob = endpoint.seed(tag="1", manifest=image(b"l"), blobs=(b"l" * 5000,))
    for target, digest in (("manifests/1", manifest), (f"blobs/{blob}", blob)):
        path = f"/v2/library/app/{target}"
        cold = await endpoint.get(path, method=method)
        await endpoint.warm(path)
        warm = await endpoint.get(path, method=method)
        assert cold.headers["ETag"] == warm.headers["ETag"] == f'"{digest}"'


@pytest.mark.parametrize("accepted", ["gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5", "*"])
async def test_rc13_never_a_content_encoding(endpoint: Endpoint, accepted: str) -> None:
    blob_digest, blob = endpoint.seed_cold_blob(5000)
    body = image(b"l")
    endpoint.seed(tag="1", manifest=body)
    headers = [("Accept-Encoding", accepted)]
    for target, expected in ((f"blobs/{blob_digest}", blob), ("manifests/1", body)):
        for _ in ("cold", "warm"):
            answer = await endpoint.get(f"/v2/library/app/{target}", headers=headers)
            assert answer.headers["Content-Encoding"] is None
            assert answer.body == expected


async def test_rc18_head_of_a_blob(endpoint: Endpoint) -> None:
    digest, blob = endpoint.seed_cold_blob(5000)
    answer = await endpoint.get(f"/v2/library/app/blobs/{digest}", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(blob))
    assert answer.headers["Docker-Content-Digest"] == digest
    assert answer.headers["Location"] is None


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"/v2/library/app/blobs/{ABSENT}"),
        ("GET", "/v2/library/app/manifests/none"),
        ("GET", "/v2/UPPER/manifests/1"),
        ("GET", "/v2/library/app/blobs/sha256:1"),
        ("GET", "/v2/evil.example/app/manifests/1"),
        ("PUT", "/v2/library/app/manifests/1"),
        ("GET", "/nothing"),
    ],
)
async def test_rc19_error_bodies(endpoint: Endpoint, method: str, target: str) -> None:
    answer = await endpoint.get(target, method=method)
    assert answer.status >= 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    (error,) = answer.json()["errors"]
    assert error["code"] in ERROR_CODES
    assert error["message"]
    head = await endpoint.get(target, method="HEAD")
    assert (head.status >= 400, head.body) == (True, b"")


async def test_rc20_tag_pages_link_back_to_us(endpoint: Endpoint) -> None:
    for tag in ("1", "2", "3"):
        endpoint.seed("ghcr.io", "a/b", tag=tag, manifest=image(tag.encode()))
    target: str | None = "/v2/a/b/tags/list?n=2&ns=ghcr.io"
    pages = []
    while target:
        answer = await endpoint.get(target)
        pages.append(answer.json()["tags"])
        link = answer.headers["Link"]
        target = link.partition("<")[2].partition(">")[0] if link else None
        assert target is None or not urlsplit(target).netloc
    assert pages == [["1", "2"], ["3"]]


async def test_rc20_no_tags_for_n_0(endpoint: Endpoint) -> None:
    endpoint.seed(tag="1", manifest=image())
    assert (await endpoint.get("/v2/library/app/tags/list?n=0")).json()["tags"] == []


async def test_rc21_referrers_are_an_index(endpoint: Endpoint) -> None:
    (digest,) = endpoint.seed(tag="1", manifest=image())
    answer = await endpoint.get(f"/v2/library/app/referrers/{digest}?artifactType=a%2Fsbom")
    assert answer.headers["Content-Type"] == OCI_INDEX
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert answer.json()["manifests"] == []


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v2/library/app/blobs/uploads/"),
        ("PATCH", "/v2/library/app/blobs/uploads/1"),
        ("PUT", "/v2/library/app/manifests/1"),
        ("DELETE", f"/v2/library/app/blobs/{ABSENT}"),
        ("GET", "/v2/library/app/blobs/uploads/1"),
    ],
)
async def test_rc22_push_and_delete(endpoint: Endpoint, method: str, target: str) -> None:
    answer = await endpoint.get(target, method=method)
    assert (answer.status, answer.error_codes) == (405, ["UNSUPPORTED"])
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"BREW /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/" + b"a" * 5000 + b"/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/" + b"a" * 100_000 + b"/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /v2/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/a/manifests/1?n=%zz&n=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[bad/v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_rc24_odd_requests_are_refused(endpoint: Endpoint, request_bytes: bytes) -> None:
    closing = request_bytes.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    status = int((await raw_exchange(endpoint.base_url, closing)).split(b" ", 2)[1])
    assert 400 <= status < 500
    assert (await endpoint.get("/v2/")).status == 200
