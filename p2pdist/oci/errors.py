"""Error bodies as the OCI distribution specification 1.1 has them ("Error Codes")."""

from __future__ import annotations

from typing import Any, Final

import msgspec

# Docker branches on the code, so no other one may leave this process.
ERROR_CODES: Final = frozenset(
    {
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DENIED",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "TOOMANYREQUESTS",
        "UNAUTHORIZED",
        "UNSUPPORTED",
    }
)

# Details of a 404 that is none: the registry refused whoever asked; nobody said anything.
DENIED_THERE: Final = "denied there"
NO_ANSWER: Final = "no answer"

# Docker does not retry it (moby `distribution/errors.go`): it moves on to the next endpoint.
_FALLBACK_CODE: Final = "UNSUPPORTED"

# An error text may quote what the client sent; a body stays one packet all the same.
_MESSAGE_LENGTH_MAX: Final = 512


def error_body(code: str, message: str, detail: str | None = None) -> bytes:
    """Return the JSON body of an error; a code outside of the specification becomes UNSUPPORTED."""
    error = {
        "code": code if code in ERROR_CODES else _FALLBACK_CODE,
        "message": _printable(message),
    }
    if detail is not None:
        error["detail"] = _printable(detail)
    return msgspec.json.encode({"errors": [error]})


class _Error(msgspec.Struct):
    code: str
    message: str = ""
    detail: Any = None


class _Body(msgspec.Struct):
    errors: list[_Error]


def error_text(body: bytes) -> str:
    """Return what an error's body tells people, in one line; empty where it tells nothing."""
    told = _errors(body)
    if told is None:
        return _printable(" ".join(body.decode(errors="replace").split()))
    return _printable("; ".join(f"{e.code}: {e.message}" if e.message else e.code for e in told))


def error_detail(body: bytes) -> str:
    """Return the detail of the first error that has one, as far as it is a text."""
    details = (error.detail for error in _errors(body) or ())
    return next((detail for detail in details if isinstance(detail, str)), "")


def _errors(body: bytes) -> list[_Error] | None:
    try:
        return msgspec.json.decode(body, type=_Body).errors
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _printable(text: str) -> str:
    """Cut `text` and replace what UTF-8 or a terminal could not take."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MESSAGE_LENGTH_MAX])
