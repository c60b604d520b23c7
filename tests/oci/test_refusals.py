"""Each reason has its own answer: one that sends clients on, and says what to do."""

from __future__ import annotations

import pytest

from p2pdist.errors import ErrorReason
from p2pdist.oci.errors import ERROR_CODES
from p2pdist.oci.refusals import blob_refusal, fix_of, refusal, sentence, without_fix

REGISTRY = "registry.test:5000"
ANSWERS = {
    ErrorReason.UNKNOWN: (404, "MANIFEST_UNKNOWN"),
    ErrorReason.NOT_LISTED: (404, "NAME_UNKNOWN"),
    ErrorReason.NOT_SHARED: (403, "DENIED"),
    ErrorReason.CREDENTIALS: (403, "UNAUTHORIZED"),
    ErrorReason.CALLER: (403, "DENIED"),
    ErrorReason.MEMBERS_ONLY: (403, "DENIED"),
    ErrorReason.DENIED: (403, "DENIED"),
    ErrorReason.CALLER_BUDGET: (429, "TOOMANYREQUESTS"),
    ErrorReason.EXHAUSTED: (503, "MANIFEST_UNKNOWN"),
}


@pytest.mark.parametrize("reason", ErrorReason)
def test_rc34_a_manifest_is_refused_as_the_fact_is(reason: ErrorReason) -> None:
    refused = refusal(reason, REGISTRY, "it happened")

    expected = ANSWERS.get(reason, (502, "MANIFEST_UNKNOWN"))
    assert (refused.status, refused.code, refused.reason) == (*expected, reason)
    assert refused.code in ERROR_CODES


@pytest.mark.parametrize("reason", ErrorReason)
def test_rc32_a_blob_is_404_whatever_the_reason(reason: ErrorReason) -> None:
    refused = blob_refusal(reason, REGISTRY, "it happened")

    assert (refused.status, refused.code, refused.reason) == (404, "BLOB_UNKNOWN", reason)


@pytest.mark.parametrize("reason", ErrorReason)
def test_what_is_passed_on_names_the_fix_once(reason: ErrorReason) -> None:
    once = str(refusal(reason, REGISTRY, "it happened"))

    assert once == f"it happened: {fix_of(reason, REGISTRY)}"
    assert sentence(reason, REGISTRY, once) == once
    assert without_fix(reason, REGISTRY, once) == "it happened"


def test_each_reason_has_a_fix_of_its_own() -> None:
    assert len({fix_of(reason, REGISTRY) for reason in ErrorReason}) == len(ErrorReason)
    named = [r for r in ErrorReason if "check the name" in fix_of(r, REGISTRY)]
    assert named == [ErrorReason.UNKNOWN]
