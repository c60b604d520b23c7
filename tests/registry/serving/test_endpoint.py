from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from p2pdist.errors import ErrorReason, RegistryError
from p2pdist.oci.errors import ToldError, told_error
from tests.conformance.bodies import image
from tests.registry.serving.registry_lab import RegistryLab, registry_lab

MANIFEST = "/v2/library/app/manifests/1"


@pytest.fixture
def target(lab: RegistryLab) -> str:
    lab.backend.content.seed("docker.io", "library/app", tag="1", manifest=image(b"x"))
    return MANIFEST


async def test_proxy_headers_go_with_the_ping_only(tmp_path: Path) -> None:
    async with registry_lab(tmp_path, proxy_headers=lambda: {"P2pdist-Proxy": "p1"}) as lab:
        assert (await lab.get("/v2/")).headers["P2pdist-Proxy"] == "p1"
        assert (await lab.get(MANIFEST)).headers["P2pdist-Proxy"] is None


async def test_the_request_id_of_the_answer_is_the_one_of_the_record(
    lab: RegistryLab, target: str
) -> None:
    answer = await lab.get(target)
    record = await lab.wait_record()
    assert answer.headers["X-P2pdist-Request-Id"] == record.request_id
    assert record.request_id == lab.backend.contexts[0].request_id


async def test_request_ids_differ(lab: RegistryLab) -> None:
    ids = {(await lab.get("/v2/")).headers["X-P2pdist-Request-Id"] for _ in range(3)}
    assert len(ids) == 3


async def test_a_served_manifest_is_recorded(lab: RegistryLab, target: str) -> None:
    await lab.get(target)
    record = await lab.wait_record()
    assert (record.kind, record.status, record.outcome) == ("manifest", 200, "served")
    assert (str(record.name), record.reference) == ("docker.io/library/app", "1")
    assert record.sent_bytes == len(image(b"x"))


async def test_a_head_sends_no_bytes(lab: RegistryLab, target: str) -> None:
    await lab.get(target, method="HEAD")
    assert (await lab.wait_record()).sent_bytes == 0


async def test_a_refused_manifest_is_recorded(lab: RegistryLab) -> None:
    await lab.get("/v2/library/app/manifests/none")
    record = await lab.wait_record()
    assert (record.status, record.outcome) == (404, "refused")


async def test_a_path_prefix_client_is_sticky(lab: RegistryLab, target: str) -> None:
    await lab.get(target)
    await lab.get("/v2/docker.io/library/app/manifests/1")
    await lab.get("/v2/docker.io/library/app/manifests/1?ns=docker.io")
    assert [context.sticky for context in lab.backend.contexts] == [False, True, False]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 502])
async def test_a_manifest_error_passes_as_the_backend_gave_it(
    lab: RegistryLab, status: int
) -> None:
    lab.backend.refusal = RegistryError(status, "UNAUTHORIZED", "no")
    answer = await lab.get(MANIFEST)
    assert (answer.status, answer.error_codes) == (status, ["UNAUTHORIZED"])
    assert answer.headers["WWW-Authenticate"] is None


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503])
async def test_rc35_what_clients_would_retry_on_a_blob_becomes_404(
    lab: RegistryLab, status: int
) -> None:
    lab.backend.refusal = RegistryError(status, "TOOMANYREQUESTS", "busy")
    _, target = lab.seed_blob(b"x")
    answer = await lab.get(target)
    assert (answer.status, answer.error_codes) == (404, ["BLOB_UNKNOWN"])
    assert (await lab.wait_record()).status == 404


async def test_a_blob_that_is_refused_keeps_its_reason(lab: RegistryLab) -> None:
    lab.backend.refusal = RegistryError(403, "DENIED", "no", reason=ErrorReason.DENIED)
    _, target = lab.seed_blob(b"x")

    answer = await lab.get(target)

    assert (answer.status, answer.error_codes) == (404, ["BLOB_UNKNOWN"])
    assert told_error(answer.body) == ToldError("BLOB_UNKNOWN", "no", ErrorReason.DENIED)


def refused_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    said = [record for record in caplog.records if record.message == "registry.refused"]
    return [record.__dict__["fields"] for record in said]


async def test_unlisted_registries_are_counted_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However many registries a client makes up."""
    renewed: list[bool] = []

    async def renew() -> None:
        renewed.append(True)

    async with registry_lab(tmp_path, renew=renew) as lab:
        for n in range(3):
            answer = await lab.get(f"/v2/app/manifests/1?ns=made-up-{n}.test")
            assert (answer.status, answer.error_codes) == (404, ["NAME_UNKNOWN"])
        counts = {s.labels["reason"]: s.value for s in lab.endpoint.refused.samples()}

    assert len(renewed) == 3
    assert lab.backend.contexts == []
    assert counts["not_listed"] == 3
    (line,) = refused_lines(caplog)
    assert (line["registry"], line["reason"]) == ("made-up-0.test", "not_listed")
    assert "[[upstream]]" in line["fix"]


async def test_a_wrong_request_is_no_refusal(lab: RegistryLab) -> None:
    await lab.get("/v2/app/manifests/1?ns=no%20host")

    assert not any(sample.value for sample in lab.endpoint.refused.samples())


@pytest.mark.parametrize(("kind", "code"), [("blobs", "BLOB"), ("manifests", "MANIFEST")])
async def test_a_fault_of_ours_sends_the_client_on(
    lab: RegistryLab, caplog: pytest.LogCaptureFixture, kind: str, code: str
) -> None:
    lab.backend.refusal = ZeroDivisionError("a bug")
    digest, _ = lab.seed_blob(b"x")
    answer = await lab.get(f"/v2/library/app/{kind}/{digest}")
    assert (answer.status, answer.error_codes) == (404, [f"{code}_UNKNOWN"])
    assert b"a bug" not in answer.body
    assert "a bug" in caplog.text
    record = await lab.wait_record()
    assert (record.status, record.outcome) == (404, "failed")


async def test_a_range_on_a_manifest_is_ignored(lab: RegistryLab, target: str) -> None:
    answer = await lab.get(target, headers=[("Range", "bytes=0-")])
    assert (answer.status, answer.body) == (200, image(b"x"))


async def test_a_page_of_no_tags_asks_nobody(lab: RegistryLab) -> None:
    answer = await lab.get("/v2/library/app/tags/list?n=0")
    assert answer.json() == {"name": "library/app", "tags": []}
    assert lab.backend.content.requests == []


async def test_manifests_by_digest_are_cached_for_ever_by_tag_never(
    lab: RegistryLab, target: str
) -> None:
    by_tag = await lab.get(target)
    digest = by_tag.headers["Docker-Content-Digest"]
    by_digest = await lab.get(f"/v2/library/app/manifests/{digest}")
    assert by_tag.headers["Cache-Control"] == "no-cache"
    assert by_digest.headers["Cache-Control"] == "max-age=31536000, immutable"


async def test_credentials_of_clients_are_never_logged(
    lab: RegistryLab, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await lab.get(target, headers=[("Authorization", "Basic c2VjcmV0")])
    await lab.get("/v2/library/app/blobs/x", headers=[("Authorization", "Basic c2VjcmV0")])
    lines = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert any("pull.ended" in line for line in lines)
    assert not any("c2VjcmV0" in line for line in lines)
