"""Rendezvous hashing: which of several members owns a key (Thaler and Ravishankar, 1998)."""

from __future__ import annotations

from collections.abc import Iterable

import xxhash


def ranked(key: str, members: Iterable[str]) -> list[str]:
    """Members by falling weight for `key`: the first owns it, the next ones take over in turn.

    Taking a member away moves its own keys only. xxh3 is enough: nobody gains by forging a weight.
    """
    return sorted(members, key=lambda m: (_weight(key, m), m), reverse=True)


def place_of(key: str, member: str) -> float:
    """Where `member` stands among any others for `key`, by itself: from 0 up to 1, evenly."""
    return _weight(key, member) / 2**64


def _weight(key: str, member: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{member}\0{key}".encode())
