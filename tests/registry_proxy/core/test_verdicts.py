"""Only statuses and codes that make clients go on go out."""

from __future__ import annotations

import pytest

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.oci.errors import ERROR_CODES
from p2pdist.registry_proxy.core.verdicts import (
    blob_refusal,
    is_answer,
    list_refusal,
    manifest_refusal,
)

REGISTRY = "registry.test"
STATUSES = [0, 400, 401, 403, 404, 408, 410, 429, 500, 502, 503, 504]
ERRORS = [*(UpstreamError("x", status=s) for s in STATUSES),
          *(UpstreamError("x", reason=reason) for reason in ErrorReason)]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_rc19_every_refusal_has_a_code_of_the_specification(error: UpstreamError) -> None:
    refusals = [
        manifest_refusal(error, REGISTRY, "ODD"),
        blob_refusal(error, REGISTRY),
        list_refusal(error, REGISTRY),
    ]

    assert {refusal.code for refusal in refusals} <= ERROR_CODES
    assert {refusal.reason for refusal in refusals} == {error.reason}


@pytest.mark.parametrize("error", ERRORS)
def test_no_client_is_challenged_or_told_to_hurry_back(error: UpstreamError) -> None:
    refusals = [manifest_refusal(error, REGISTRY, ""), list_refusal(error, REGISTRY)]

    ours = {ErrorReason.EXHAUSTED: {503}, ErrorReason.CALLER_BUDGET: {429}}
    expected = ours.get(error.reason, {403, 404, 502})
    assert {refusal.status for refusal in refusals} <= expected


def test_when_to_come_back_is_passed_on() -> None:
    error = UpstreamError("x", status=429, reason=ErrorReason.CALLER_BUDGET)
    error.retry_after_s = 7.5
    told = (manifest_refusal(error, REGISTRY, ""), blob_refusal(error, REGISTRY))

    assert {refusal.retry_after_s for refusal in (*told, list_refusal(error, REGISTRY))} == {7.5}


@pytest.mark.parametrize("error", ERRORS)
def test_rc32_a_blob_that_cannot_be_had_is_404(error: UpstreamError) -> None:
    refusal = blob_refusal(error, REGISTRY)

    assert (refusal.status, refusal.code) == (404, "BLOB_UNKNOWN")


def test_rc04_an_unknown_repository_keeps_its_code() -> None:
    unknown = UpstreamError("x", status=404)

    assert manifest_refusal(unknown, REGISTRY, "NAME_UNKNOWN").code == "NAME_UNKNOWN"
    assert manifest_refusal(unknown, REGISTRY, "").code == "MANIFEST_UNKNOWN"


def test_silence_and_overload_are_no_answers() -> None:
    answers = [s for s in STATUSES if is_answer(UpstreamError("x", status=s))]

    assert answers == [401, 403, 404, 410]
