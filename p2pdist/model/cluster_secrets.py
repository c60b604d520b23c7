"""The secrets that a host of the cluster believes: one, or two while one replaces the other."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

SECRET_BYTES_MIN: Final = 16
SECRETS_MAX: Final = 2
MARK_BYTES: Final = 32
_FINGERPRINT_BYTES: Final = 3
"""Enough to tell the two or three apart that a cluster has seen, and of no use in guessing one."""
_PURPOSE: Final = b"p2pdist cluster secret mark 1"


@dataclass(frozen=True, slots=True)
class ClusterSecrets:
    """One or two; the first is the one to go by where the other end knows both."""

    each: tuple[bytes, ...] = field(repr=False)

    @property
    def first(self) -> bytes:
        return self.each[0]

    @property
    def marks(self) -> tuple[bytes, ...]:
        """A keyed hash of each (`MARK_BYTES`), which tells them apart and nothing else."""
        return tuple(mark_of(secret) for secret in self.each)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What may be shown of each: 6 hex characters."""
        return tuple(mark[:_FINGERPRINT_BYTES].hex() for mark in self.marks)

    def __str__(self) -> str:
        return shown(self.fingerprints)


SecretSource = Callable[[], ClusterSecrets]
"""Those of this moment; asked at each handshake."""


def shown(fingerprints: Sequence[str]) -> str:
    """For people, such as `1f09aa first, 77c0de as well`."""
    first, *others = fingerprints
    return f"{first} first, {', '.join(others)} as well" if others else first


def mark_of(secret: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE, "sha256")


def parse_secrets(data: bytes) -> ClusterSecrets:
    """Return what a secret file holds; raise ValueError, which quotes no secret.

    A file of text has a secret in each line. Any other one, such as 32 bytes from /dev/urandom, is
    one secret as a whole: a newline in it ends nothing.
    """
    parts = [part for line in _lines(data) if (part := line.strip())]
    if not parts or min(map(len, parts)) < SECRET_BYTES_MIN:
        raise ValueError(f"a cluster secret has at least {SECRET_BYTES_MIN} bytes")
    if len(parts) > SECRETS_MAX:
        raise ValueError(f"{len(parts)} secrets, a line each; at most {SECRETS_MAX} are believed")
    if len(set(parts)) < len(parts):
        raise ValueError("the same cluster secret twice")
    return ClusterSecrets(tuple(parts))


def _lines(data: bytes) -> list[bytes]:
    """A single one for what is no text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return [data]
    is_text = all(c.isprintable() or c in "\n\r\t" for c in text)
    return data.split(b"\n") if is_text else [data]
