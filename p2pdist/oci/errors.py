"""Error bodies as the OCI distribution specification 1.1 has them ("Error Codes")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from p2pdist.errors import ErrorReason

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

_REASONS: Final = frozenset(ErrorReason)

# Docker does not retry it (moby `distribution/errors.go`): it moves on to the next endpoint.
_FALLBACK_CODE: Final = "UNSUPPORTED"

# An error text may quote what the client sent; a body stays one packet all the same.
_MESSAGE_LENGTH_MAX: Final = 512


def error_body(code: str, message: str, reason: ErrorReason | None = None) -> bytes:
    """Return the JSON body of an error; a code outside of the specification becomes UNSUPPORTED."""
    error: dict[str, str] = {
        "code": code if code in ERROR_CODES else _FALLBACK_CODE,
        "message": _printable(message),
    }
    if reason is not None:
        error["detail"] = reason
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


@dataclass(frozen=True, slots=True)
class ToldError:
    """What an answer of p2pdist's own says; `code` may be anybody's."""

    code: str
    message: str
    reason: ErrorReason


def told_error(body: bytes) -> ToldError | None:
    """Read the first error of a body that names one of our reasons; None: it names none."""
    for error in _errors(body) or ():
        if isinstance(error.detail, str) and error.detail in _REASONS:
            return ToldError(error.code, _printable(error.message), ErrorReason(error.detail))
    return None


def _errors(body: bytes) -> list[_Error] | None:
    try:
        return msgspec.json.decode(body, type=_Body).errors
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _printable(text: str) -> str:
    """Cut `text` and replace what UTF-8 or a terminal could not take."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MESSAGE_LENGTH_MAX])
