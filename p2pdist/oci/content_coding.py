"""Bodies that a server packed although it was asked not to."""

from __future__ import annotations

import zlib
from typing import Final

from p2pdist.model.ids import Digest, digest_algorithm, digest_of

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_GZIP_FRAME: Final = 16 + zlib.MAX_WBITS
# Each costs a copy of all that follows it: 4 MiB of empty ones would take seconds.
_MEMBERS_MAX: Final = 16


def unpacked(body: bytes, coding: str, limit_bytes: int, digest: Digest | None = None) -> bytes:
    """Return what was meant by a `body` of this Content-Encoding: at most `limit_bytes`.

    `digest` decides where it is known: some label what was pushed as it is. Raises ValueError for
    one that is damaged or larger.
    """
    if coding.strip().lower() not in _GZIP:
        return body
    if digest is not None and digest_of(body, digest_algorithm(digest)) == digest:
        return body
    return _gunzipped(body, limit_bytes)


def _gunzipped(body: bytes, limit_bytes: int) -> bytes:
    """No more than the limit is ever unpacked, however small a bomb is."""
    plain, packed = bytearray(), body
    for _ in range(_MEMBERS_MAX):
        stream = zlib.decompressobj(_GZIP_FRAME)
        try:
            plain += stream.decompress(packed, limit_bytes + 1 - len(plain))
        except zlib.error as error:
            raise ValueError(f"not gzip: {error}") from None
        if len(plain) > limit_bytes:
            raise ValueError(f"more than {limit_bytes} bytes when unpacked")
        if not stream.eof:
            raise ValueError("gzip that ends too early")
        packed = stream.unused_data
        if not packed:
            return bytes(plain)
    raise ValueError(f"gzip of more than {_MEMBERS_MAX} members")
