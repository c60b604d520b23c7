"""What a command says and returns when it fails: what happened, and a hint."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from typing import Final

from p2pdist.cli.exit_codes import Exit
from p2pdist.errors import (
    CannotListen,
    ConfigError,
    ErrorReason,
    P2pdistError,
    RegistryError,
    UpstreamError,
)
from p2pdist.settings import SECTIONS, TABLES

_EXITS: Final[Mapping[ErrorReason, Exit]] = {
    ErrorReason.UNKNOWN: Exit.NOT_FOUND,
    ErrorReason.NOT_LISTED: Exit.DENIED,
    ErrorReason.NOT_SHARED: Exit.DENIED,
    ErrorReason.MEMBERS_ONLY: Exit.DENIED,
    ErrorReason.CREDENTIALS: Exit.DENIED,
    ErrorReason.CALLER: Exit.DENIED,
    ErrorReason.DENIED: Exit.DENIED,
}
_SETTING: Final = re.compile(rf"({'|'.join(SECTIONS)})\.[a-z_]+\b|({'|'.join(TABLES)}) ")
BUG_HINT: Final = "report it with the lines above, the command and `p2pdist version`"
ORIGIN_HINT: Final = "`p2pdist config show --origin` says where values come from"

# What is wrong with this host or the command line, by what the kernel says; all else is a disk or
# a network that fails, which no other command line mends.
_SYSTEM: Final[Mapping[int, tuple[Exit, str]]] = {
    errno.EACCES: (Exit.USAGE, "run it as root, or name a place that {user} may use"),
    errno.EPERM: (Exit.USAGE, "run it as root, or name a place that {user} may use"),
    errno.EROFS: (Exit.USAGE, "name a place on a file system that is not read-only"),
    errno.ENOENT: (Exit.USAGE, "check the name; directories above a file have to be there"),
    errno.EEXIST: (Exit.USAGE, "choose another name, or take away what is there"),
    errno.EISDIR: (Exit.USAGE, "name a file, not a directory"),
    errno.ENOTDIR: (Exit.USAGE, "name a directory; a part of this path is a file"),
    errno.ENAMETOOLONG: (Exit.USAGE, "choose a shorter name"),
    errno.ELOOP: (Exit.USAGE, "name the place itself, not a link to it"),
    errno.ENOSPC: (Exit.TEMPORARY, "make room there, or choose another place"),
    errno.EDQUOT: (Exit.TEMPORARY, "make room there, or have the quota of {user} raised"),
    errno.EMFILE: (
        Exit.TEMPORARY,
        "allow more open files: `ulimit -n`, or LimitNOFILE of its unit",
    ),
    errno.ENFILE: (Exit.TEMPORARY, "this host has too many files open: raise fs.file-max"),
    errno.ECONNREFUSED: (Exit.UPSTREAM, "is it running, and is that its address?"),
    errno.ECONNRESET: (Exit.UPSTREAM, "try again; its log says why it hung up"),
    errno.EHOSTUNREACH: (Exit.UPSTREAM, "look at the route to that host, and at firewalls"),
    errno.ENETUNREACH: (Exit.UPSTREAM, "look at the route to that host, and at firewalls"),
    errno.ENOMEM: (Exit.TEMPORARY, "this host is out of memory"),
}
_LISTENING: Final[Mapping[int, tuple[str, str]]] = {
    errno.EADDRINUSE: (
        "something else listens there",
        "see `ss -ltnp 'sport = :{port}'`, or choose another {flag}",
    ),
    errno.EADDRNOTAVAIL: (
        "no address of this host",
        "`ip -brief address` lists those it has; 0.0.0.0:{port} is all of them",
    ),
    errno.EACCES: (
        "ports below 1024 are for root",
        "choose a higher {flag}, or grant CAP_NET_BIND_SERVICE",
    ),
}
_NO_ADDRESS: Final = (
    "that name has no address here",
    "name an address of this host, or 0.0.0.0:{port} for all of them",
)


def exit_for(reason: ErrorReason) -> Exit:
    """Not found, refused, or something that stands between us and the registry."""
    return _EXITS.get(reason, Exit.UPSTREAM)


class CommandError(P2pdistError):
    """A command could not do its work; carries its exit code and a hint."""

    def __init__(self, message: str, code: Exit, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def cause_of(error: BaseException) -> BaseException:
    """The first of a group that says more than that its siblings were stopped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def explain(error: BaseException) -> tuple[Exit, str, str]:
    """Return exit code, message and hint for an error that ends a command."""
    match error:
        case CommandError():
            return error.code, str(error), error.hint
        case ConfigError():
            hint = error.hint or (ORIGIN_HINT if _SETTING.match(str(error)) else "")
            return Exit.USAGE, str(error), hint
        case UpstreamError(reason=reason) | RegistryError(reason=ErrorReason() as reason):
            return exit_for(reason), str(error), ""
        case RegistryError(status=404):
            return Exit.NOT_FOUND, str(error), ""
        case RegistryError(status=401 | 403):
            return Exit.DENIED, str(error), ""
        case TimeoutError():
            return Exit.TIMEOUT, "the deadline passed", ""
        case CannotListen():
            where = f"cannot listen on {error.host}:{error.port}"
            return explain_listening(error, where, "--…-listen")
        case OSError():
            return _explain_system(error)
        case P2pdistError():
            return Exit.UNEXPECTED, str(error), ""
        case _:
            text = f"this is a bug in p2pdist: {type(error).__name__}: {error}"
            return Exit.UNEXPECTED, text, BUG_HINT


def is_bug(error: BaseException) -> bool:
    """Whether nobody foresaw it: then only the traceback says where to look."""
    return not isinstance(error, (P2pdistError, OSError))


def explain_listening(error: CannotListen, what: str, flag: str) -> tuple[Exit, str, str]:
    """The same for `what`, an address that `flag` sets."""
    number = error.errno or 0
    default = (str(error), "choose another address with {flag}")
    why, hint = _NO_ADDRESS if number < 0 else _LISTENING.get(number, default)
    return Exit.USAGE, f"{what}: {why}", hint.format(port=error.port, flag=flag)


def _explain_system(error: OSError) -> tuple[Exit, str, str]:
    why = (error.strerror or str(error) or type(error).__name__).strip()
    names = [os.fsdecode(n) for n in (error.filename,) if isinstance(n, (str, bytes))]
    message = ": ".join([*names, why[:1].lower() + why[1:]])
    code, hint = _SYSTEM.get(error.errno or 0, (Exit.UNEXPECTED, ""))
    return code, message, hint.format(user=_user())


def _user() -> str:
    return "root" if os.geteuid() == 0 else f"this user (uid {os.geteuid()})"
