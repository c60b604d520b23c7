"""What `p2pdist join --if-needed` and `ca issue --if-needed` leave as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.process.ca import CERT_NAME, show_file
from p2pdist.process.certificates import fingerprint
from p2pdist.process.host_identity import HostIdentity, read_identity
from p2pdist.process.identity_files import newest_in

HINT: Final = "name another directory, or move it away; one that is good renews itself"


def is_there(out: Path) -> bool:
    """Whether a certificate lies in `out`, whatever it is worth."""
    return (newest_in(out) / CERT_NAME).exists()


def kept_identity(out: Path, role: str | None) -> HostIdentity:
    """Return what lies in `out`, for a host of `role` (None: of any); raise ConfigError where it is
    none, and for another role."""
    first = show_file(newest_in(out) / CERT_NAME)[:1]
    identity = first[0].identity if first else None
    if identity is None:
        raise ConfigError(f"{out / CERT_NAME} is no host's", hint=HINT)
    if role not in (None, identity.role.value):
        raise ConfigError(f"{out / CERT_NAME} is for {identity}, not for a {role}", hint=HINT)
    try:
        return read_identity(out, identity.role)
    except ValueError as error:
        raise ConfigError(str(error), hint=HINT) from None


def of_no_use(there: HostIdentity, ca: bytes | None, now_s: float) -> str:
    """Why a host can do nothing with what it has; empty: it can, or that is for its operator.

    `ca`: the fingerprint of the one that would issue another, None where nobody knows. A host that
    was revoked is not certified again by itself: whoever did so meant this one.
    """
    if there.says.ends_s <= now_s:
        return "has ended"
    if ca is not None and ca not in map(fingerprint, there.cas):
        return "is not of the CA that issues now"
    return ""
