from __future__ import annotations

import gzip
import zlib

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.content_coding import unpacked

BODY = b'{"schemaVersion": 2}' * 50
PACKED = gzip.compress(BODY)
LIMIT = len(BODY)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", " GZIP "])
def test_gzip_is_unpacked(coding: str) -> None:
    assert unpacked(PACKED, coding, LIMIT) == BODY


def test_gzip_of_several_members_is_one_body() -> None:
    assert unpacked(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", LIMIT) == b"ab"


def test_gzip_of_any_number_of_members_is_refused() -> None:
    member = gzip.compress(b"a")

    assert unpacked(member * 16, "gzip", LIMIT) == b"a" * 16
    with pytest.raises(ValueError, match="gzip of more than 16 members"):
        unpacked(member * 17, "gzip", LIMIT)


@pytest.mark.parametrize("coding", ["", "identity", "zstd"])
def test_what_is_not_known_stays_as_it_is(coding: str) -> None:
    assert unpacked(PACKED, coding, LIMIT) == PACKED


def test_the_digest_decides_what_was_meant() -> None:
    assert unpacked(PACKED, "gzip", LIMIT, digest_of(BODY)) == BODY
    assert unpacked(PACKED, "gzip", LIMIT, digest_of(PACKED)) == PACKED
    assert unpacked(BODY, "gzip", LIMIT, digest_of(BODY)) == BODY


@pytest.mark.parametrize(
    "packed",
    [b"{}", PACKED[:-9], PACKED[:20], PACKED + b"junk", zlib.compress(BODY)],
    ids=["plain", "without its end", "cut", "with more behind", "deflate"],
)
def test_damaged_gzip_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="gzip"):
        unpacked(packed, "gzip", LIMIT)


@pytest.mark.parametrize("members", [1, 2])
def test_no_more_than_the_limit_is_unpacked(members: int) -> None:
    part = gzip.compress(BODY + b" ")
    with pytest.raises(ValueError, match="more than"):
        unpacked(part * members, "gzip", members * (LIMIT + 1) - 1)
