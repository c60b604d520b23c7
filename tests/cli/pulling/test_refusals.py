"""What `p2pdist pull` says of each reason: a sentence, an exit code, a hint."""

from __future__ import annotations

import pytest

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.pulling.refusals import refused
from p2pdist.errors import ErrorReason, RegistryError
from p2pdist.oci.errors import error_body
from p2pdist.oci.refusals import blob_refusal, fix_of, refusal

REGISTRY = "registry.corp:5443"
WHAT = f"{REGISTRY}/team/app:nope"
CODES = {
    ErrorReason.UNKNOWN: Exit.NOT_FOUND,
    ErrorReason.NOT_LISTED: Exit.DENIED,
    ErrorReason.NOT_SHARED: Exit.DENIED,
    ErrorReason.MEMBERS_ONLY: Exit.DENIED,
    ErrorReason.CREDENTIALS: Exit.DENIED,
    ErrorReason.CALLER: Exit.DENIED,
    ErrorReason.DENIED: Exit.DENIED,
}


def body_of(error: RegistryError) -> bytes:
    return error_body(error.code, str(error), error.reason)


@pytest.mark.parametrize("make", [refusal, blob_refusal])
@pytest.mark.parametrize("reason", ErrorReason)
def test_each_reason_has_its_exit_code_and_its_hint(reason: ErrorReason, make: object) -> None:
    """Whatever status a runtime was given."""
    assert callable(make)
    told = make(reason, REGISTRY, "it happened")

    error = refused(told.status, body_of(told), registry=REGISTRY, what=WHAT, kind="tag")

    assert error.code is CODES.get(reason, Exit.UPSTREAM)
    assert error.hint == fix_of(reason, REGISTRY)
    assert str(error).startswith(f"{WHAT}: ")
    assert error.hint not in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("MANIFEST_UNKNOWN", "tag", "the registry knows no such tag"),
        ("MANIFEST_UNKNOWN", "manifest", "the registry knows no such manifest"),
        ("NAME_UNKNOWN", "tag", "the registry knows no such name"),
    ],
)
def test_what_is_unknown_is_named(code: str, kind: str, text: str) -> None:
    body = error_body(code, "registry.corp:5443 answered 404", ErrorReason.UNKNOWN)

    error = refused(404, body, registry=REGISTRY, what=WHAT, kind=kind)

    assert str(error) == f"{WHAT}: {text}"


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, Exit.DENIED), (403, Exit.DENIED), (404, Exit.NOT_FOUND), (500, Exit.UPSTREAM)],
)
def test_a_registry_that_is_asked_itself_has_only_a_status(status: int, code: Exit) -> None:
    body = b'{"errors":[{"code":"X","message":"it says\\u001b[2J"}]}'

    error = refused(status, body, registry=REGISTRY, what=WHAT, kind="tag")

    assert error.code is code
    assert str(error) == f"{WHAT}: the mirror answered {status}, X: it says?[2J"
    assert error.hint
