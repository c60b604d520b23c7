"""Only statuses and codes that make clients go on go out."""

from __future__ import annotations

import pytest

from p2pdist.oci.errors import ERROR_CODES
from p2pdist.registry_proxy.core.verdicts import (
    blob_refusal,
    is_answer,
    list_refusal,
    manifest_refusal,
)

STATUSES = [0, 400, 401, 403, 404, 408, 410, 429, 500, 502, 503, 504]


@pytest.mark.parametrize("status", STATUSES)
def test_rc19_every_refusal_has_a_code_of_the_specification(status: int) -> None:
    refusals = [manifest_refusal(status, "ODD", ""), blob_refusal(status, ""),
                list_refusal(status, "")]  # fmt: skip

    assert {refusal.code for refusal in refusals} <= ERROR_CODES


@pytest.mark.parametrize("status", STATUSES)
def test_no_client_is_challenged_or_told_to_hurry_back(status: int) -> None:
    refusals = [manifest_refusal(status, "", ""), list_refusal(status, "")]

    assert {refusal.status for refusal in refusals} <= {403, 404, 502}


@pytest.mark.parametrize("status", STATUSES)
def test_rc32_a_blob_that_cannot_be_had_is_404_or_denied(status: int) -> None:
    assert blob_refusal(status, "").status == (403 if status in (401, 403) else 404)


def test_rc04_an_unknown_repository_keeps_its_code() -> None:
    assert manifest_refusal(404, "NAME_UNKNOWN", "").code == "NAME_UNKNOWN"
    assert manifest_refusal(404, "", "").code == "MANIFEST_UNKNOWN"


def test_a_host_that_is_exhausted_says_that_it_was_its_own_fault() -> None:
    assert manifest_refusal(0, "", "", exhausted=True).status == 503
    assert manifest_refusal(404, "", "", exhausted=True).status == 404


def test_silence_and_overload_are_no_answers() -> None:
    assert [s for s in STATUSES if is_answer(s)] == [401, 403, 404, 410]
