"""Rendezvous hashing: which of several members owns a key (Thaler and Ravishankar, 1998)."""

from __future__ import annotations

from collections.abc import Iterable

import xxhash


def ranked(key: str, members: Iterable[str]) -> list[str]:
    """Members by falling weight for `key`: the first owns it, the next ones take over in turn.

    Taking a member away moves its own keys only. xxh3 is enough: nobody gains by forging a weight.
    """
    return sorted(
        members, key=lambda m: (xxhash.xxh3_64_intdigest(f"{m}\0{key}".encode()), m), reverse=True
    )
