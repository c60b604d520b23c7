"""What a command says and returns when it fails: what happened, and a hint."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from p2pdist.cli.exit_codes import Exit
from p2pdist.errors import ConfigError, ErrorReason, P2pdistError, RegistryError, UpstreamError

_EXITS: Final[Mapping[ErrorReason, Exit]] = {
    ErrorReason.UNKNOWN: Exit.NOT_FOUND,
    ErrorReason.NOT_LISTED: Exit.DENIED,
    ErrorReason.NOT_SHARED: Exit.DENIED,
    ErrorReason.CREDENTIALS: Exit.DENIED,
    ErrorReason.DENIED: Exit.DENIED,
}


def exit_for(reason: ErrorReason) -> Exit:
    """Not found, refused, or something that stands between us and the registry."""
    return _EXITS.get(reason, Exit.UPSTREAM)


class CommandError(P2pdistError):
    """A command could not do its work; carries its exit code and a hint."""

    def __init__(self, message: str, code: Exit, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def explain(error: BaseException) -> tuple[Exit, str, str]:
    """Return exit code, message and hint for an error that ends a command."""
    match error:
        case CommandError():
            return error.code, str(error), error.hint
        case ConfigError():
            return (
                Exit.USAGE,
                str(error),
                "`p2pdist config show --origin` says where values come from",
            )
        case UpstreamError(reason=reason) | RegistryError(reason=ErrorReason() as reason):
            return exit_for(reason), str(error), ""
        case RegistryError(status=404):
            return Exit.NOT_FOUND, str(error), ""
        case RegistryError(status=401 | 403):
            return Exit.DENIED, str(error), ""
        case TimeoutError():
            return Exit.TIMEOUT, "the deadline passed", ""
        case OSError(errno=errno.EADDRINUSE):
            return (
                Exit.USAGE,
                str(error),
                "another daemon has that port; choose one with --…-listen",
            )
        case OSError() | P2pdistError():
            return Exit.UNEXPECTED, str(error), ""
        case _:
            return Exit.UNEXPECTED, f"{type(error).__name__}: {error}", ""
