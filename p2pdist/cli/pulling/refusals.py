"""What a refusal of the mirror means to whoever pulls: a sentence, an exit code, a hint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError, exit_for
from p2pdist.errors import ErrorReason
from p2pdist.oci.errors import ToldError, error_text, told_error
from p2pdist.oci.refusals import fix_of, without_fix
from p2pdist.process.terminal import printable

REFUSAL_BYTES_MAX: Final = 64 * 1024
# Of a registry that is asked itself, or a p2pdist that does not name reasons yet.
_BY_STATUS: Final[Mapping[int, tuple[Exit, str]]] = {
    401: (Exit.DENIED, "it wants an account; a mirror reads with that of the proxy"),
    403: (Exit.DENIED, "the account may not read it, or this registry is not served there"),
    404: (Exit.NOT_FOUND, "check the name"),
}
_NOTHING: Final = (Exit.UPSTREAM, "try again later")


def refused(status: int, body: bytes, *, registry: str, what: str, kind: str) -> CommandError:
    """`what` was asked for, a `kind` of thing: `tag`, `manifest` or `blob`."""
    if (told := told_error(body)) is not None:
        hint = fix_of(told.reason, registry)
        text = printable(_sentence(told, registry, kind))
        return CommandError(f"{what}: {text}", exit_for(told.reason), hint)
    code, hint = _BY_STATUS.get(status, _NOTHING)
    text = printable(error_text(body))
    said = f"{status}, {text}" if text else str(status)
    return CommandError(f"{what}: the mirror answered {said}", code, hint)


def _sentence(told: ToldError, registry: str, kind: str) -> str:
    if told.reason is ErrorReason.UNKNOWN:
        return f"the registry knows no such {'name' if told.code == 'NAME_UNKNOWN' else kind}"
    return without_fix(told.reason, registry, told.message)
