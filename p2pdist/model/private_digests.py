"""Names of blobs that only some may read: what hosts exchange without saying what it is.

A blob of a registry that decides by each caller goes by `private:` and 64 hex characters among
hosts and at trackers: 16 bytes that stand for its repository, its scope, and 16 for the blob in it,
both keyed by what proxies alone know (`registry_proxy.private_names`). So nobody else can tell what
it is, not even whether it is a blob that they have; two repositories with the same blob have two
names for it; and the name itself says under which repository a host must have been let.
"""

from __future__ import annotations

from typing import Final, NewType

from p2pdist.model.ids import PRIVATE, Digest

Scope = NewType("Scope", bytes)
"""16 bytes: a repository, to those who cannot tell which."""

SCOPE_BYTES: Final = 16
_PREFIX: Final = f"{PRIVATE}:"


def is_private(digest: Digest) -> bool:
    return digest.startswith(_PREFIX)


def scope_of(digest: Digest) -> Scope:
    """Return the repository of a private digest."""
    assert is_private(digest)
    start = len(_PREFIX)
    return Scope(bytes.fromhex(digest[start : start + 2 * SCOPE_BYTES]))
