"""Registry contract, statements 25 to 30: which upstream a request means."""

from __future__ import annotations

import pytest

from tests.conformance.bodies import image
from tests.conformance.conftest import Endpoint

HUB, GHCR, PORT = image(b"hub"), image(b"ghcr"), image(b"port")


@pytest.fixture
def seeded(endpoint: Endpoint) -> Endpoint:
    endpoint.seed("docker.io", "library/app", tag="1", manifest=HUB)
    endpoint.seed("ghcr.io", "library/app", tag="1", manifest=GHCR)
    endpoint.seed("registry.test:5000", "library/app", tag="1", manifest=PORT)
    return endpoint


async def test_rc25_no_hint_is_the_default(seeded: Endpoint) -> None:
    answer = await seeded.get("/v2/library/app/manifests/1")
    assert answer.body == HUB
    assert answer.headers["OCI-Namespace"] is None


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        ("ghcr.io", GHCR),
        ("registry.test:5000", PORT),
        ("registry.test%3A5000", PORT),
        ("docker.io", HUB),
        ("registry-1.docker.io", HUB),
        ("GHCR.io", GHCR),
        ("ghcr.io:443", GHCR),
    ],
)
async def test_rc26_ns_names_the_upstream(seeded: Endpoint, ns: str, expected: bytes) -> None:
    answer = await seeded.get(f"/v2/library/app/manifests/1?ns={ns}")
    assert answer.body == expected
    assert answer.headers["OCI-Namespace"] == ns.replace("%3A", ":")


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("ghcr.io", GHCR), ("registry.test:5000", PORT), ("registry.test%3A5000", PORT)],
)
async def test_rc27_a_path_prefix_names_the_upstream(
    seeded: Endpoint, prefix: str, expected: bytes
) -> None:
    answer = await seeded.get(f"/v2/{prefix}/library/app/manifests/1")
    assert answer.body == expected


async def test_rc28_prefix_and_ns_that_agree(seeded: Endpoint) -> None:
    answer = await seeded.get("/v2/ghcr.io/library/app/manifests/1?ns=ghcr.io")
    assert answer.body == GHCR


async def test_rc28_prefix_and_ns_that_disagree(seeded: Endpoint) -> None:
    for ns in ("docker.io", "registry.test%3A5000"):
        answer = await seeded.get(f"/v2/ghcr.io/library/app/manifests/1?ns={ns}")
        assert (answer.status, answer.error_codes) == (400, ["NAME_INVALID"])
    assert seeded.upstream_requests() == 0


@pytest.mark.parametrize("ns", ["", "ghcr.io%0d%0aX-Evil:1", "ghcr.io/x", "a..b", "ghcr.io&ns=x"])
async def test_rc28_a_malformed_ns_is_not_reflected(seeded: Endpoint, ns: str) -> None:
    answer = await seeded.get(f"/v2/library/app/manifests/1?ns={ns}")
    assert answer.status == 400
    assert answer.headers["OCI-Namespace"] is None
    assert answer.headers["X-Evil"] is None


@pytest.mark.parametrize(
    "target",
    [
        "/v2/library/app/manifests/1?ns=evil.example",
        "/v2/evil.example/library/app/manifests/1",
        "/v2/library/app/manifests/1?ns=127.0.0.1%3A1",
        "/v2/169.254.169.254/latest/manifests/1",
        "/v2/localhost:1/x/manifests/1",
        "/v2/library/app/manifests/1?ns=%5B%3A%3A1%5D",
        "/v2/library/app/manifests/1?ns=ghcr.io.evil.example",
        "/v2/library/app/manifests/1?ns=ghcr.io%3A8443",
    ],
)
async def test_rc29_an_upstream_that_is_not_listed(seeded: Endpoint, target: str) -> None:
    answer = await seeded.get(target)
    assert (answer.status, answer.error_codes) == (404, ["NAME_UNKNOWN"])
    assert seeded.upstream_requests() == 0


async def test_rc30_library_is_inserted_for_docker_hub_only(seeded: Endpoint) -> None:
    assert (await seeded.get("/v2/app/manifests/1")).body == HUB
    assert (await seeded.get("/v2/docker.io/app/manifests/1")).body == HUB
    assert (await seeded.get("/v2/app/manifests/1?ns=ghcr.io")).status == 404
    seeded.seed("ghcr.io", "app", tag="2", manifest=GHCR)  # a tag that was not refused before
    assert (await seeded.get("/v2/app/manifests/2?ns=ghcr.io")).body == GHCR
