"""The list of registries that a proxy serves, as it tells it with `GET /v2/`.

Clients of registries do not read that body; peers do, so that one list counts for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from p2pdist.oci.reference import canonical_upstream

LIST_BYTES_MAX: Final = 64 * 1024
_NOTHING: Final = b"{}"


class _Body(msgspec.Struct, omit_defaults=True):
    registries: list[str] | None = None
    by_caller: list[str] = []


def encode_registries(hosts: Iterable[str], by_caller: Iterable[str] = ()) -> bytes:
    """Return the body that tells `hosts`, and which of them decide by the credentials of each
    caller; one that would be too long tells nothing."""
    told = _Body(sorted(set(hosts)), sorted(set(by_caller)))
    body = msgspec.json.encode(told)
    return body if len(body) <= LIST_BYTES_MAX else _NOTHING


def parse_registries(body: bytes) -> frozenset[str] | None:
    """Read such a body; None: it tells nothing. What is no registry's name is left out."""
    try:
        told = msgspec.json.decode(body, type=_Body).registries
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if told is None else frozenset(filter(_is_canonical, told))


def parse_by_caller(body: bytes) -> frozenset[str]:
    """The registries of such a body that decide by their callers; an older proxy tells none."""
    try:
        told = msgspec.json.decode(body, type=_Body).by_caller
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return frozenset()
    return frozenset(filter(_is_canonical, told))


def _is_canonical(host: str) -> bool:
    try:
        return canonical_upstream(host) == host
    except ValueError:
        return False
