"""An index by itself: which bytes a span is made of, and what is none.

Indexes of real archives: `tests/streaming/test_building.py`.
"""

from __future__ import annotations

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import digest_of
from p2pdist.model.layer_index import INDEX_VERSION
from p2pdist.streaming.core import index as index_module
from p2pdist.streaming.core.index import (
    SPAN_BYTES_MAX,
    WINDOW_BYTES_MAX,
    LayerIndex,
    Span,
    decode_index,
    encode_index,
    window_of,
)
from p2pdist.streaming.core.tar import UnfitLayer

HASH = bytes(32)
WINDOW = zstandard.ZstdCompressor().compress(b"before")
GZIP = LayerIndex(
    digest_of(b"blob"),
    digest_of(b"archive"),
    300,
    1000,
    "gzip",
    [Span(10, 0, 0, HASH), Span(100, 3, 400, HASH, WINDOW), Span(200, 0, 900, HASH, WINDOW)],
    [],
)


def windowed(before: bytes, *, tells: bool = True) -> Span:
    packer = zstandard.ZstdCompressor(write_content_size=tells)
    return Span(0, 0, 0, HASH, packer.compress(before))


def test_a_span_is_found_by_any_of_its_bytes() -> None:
    offsets = [0, 399, 400, 899, 900, 999]

    assert [GZIP.span_at(offset) for offset in offsets] == [0, 0, 1, 1, 2, 2]
    assert [GZIP.span_end(number) for number in range(3)] == [400, 900, 1000]


def test_a_span_that_begins_within_a_byte_needs_that_byte_as_well() -> None:
    assert [GZIP.span_range(number) for number in range(3)] == [(10, 100), (99, 200), (200, 300)]


def test_what_is_encoded_comes_back() -> None:
    assert decode_index(encode_index(GZIP)) == GZIP
    empty = msgspec.structs.replace(GZIP, diff_bytes=0, spans=[])
    assert decode_index(encode_index(empty)) == empty


def test_a_window_is_what_came_before_and_no_more_than_may_be_referred_to() -> None:
    assert window_of(GZIP.spans[0]) is None
    assert window_of(GZIP.spans[1]) == b"before"
    assert window_of(windowed(bytes(WINDOW_BYTES_MAX))) == bytes(WINDOW_BYTES_MAX)


@pytest.mark.parametrize("tells", [True, False], ids=["tells its size", "does not"])
def test_a_window_that_comes_to_more_is_refused_before_it_is_unpacked(tells: bool) -> None:
    for size in (WINDOW_BYTES_MAX + 1, 200 << 20):
        with pytest.raises(UnfitLayer, match="broken window"):
            window_of(windowed(bytes(size), tells=tells))
    with pytest.raises(UnfitLayer, match="broken window"):
        window_of(Span(0, 0, 0, HASH, b"garbage"))


@pytest.mark.parametrize(
    "spans",
    [
        [Span(10, 0, 1, HASH)],
        [Span(10, 0, 0, HASH), Span(100, 0, 0, HASH)],
        [Span(10, 0, 0, HASH), Span(100, 0, 1000, HASH)],
        [Span(100, 0, 0, HASH), Span(10, 0, 400, HASH)],
        [Span(300, 0, 0, HASH)],
        [Span(0, 1, 0, HASH)],
    ],
)
def test_spans_that_cannot_be_are_refused(spans: list[Span]) -> None:
    with pytest.raises(UnfitLayer):
        decode_index(encode_index(msgspec.structs.replace(GZIP, spans=spans)))


def test_a_span_may_be_as_long_as_is_fit_to_be_read_at_once() -> None:
    one = msgspec.structs.replace(GZIP, spans=GZIP.spans[:1], diff_bytes=SPAN_BYTES_MAX)
    decode_index(encode_index(one))

    longer = msgspec.structs.replace(one, diff_bytes=SPAN_BYTES_MAX + 1)
    with pytest.raises(UnfitLayer, match="span 0"):
        decode_index(encode_index(longer))


def test_an_index_of_another_version_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(index_module, "INDEX_VERSION", INDEX_VERSION + 1)
        told = encode_index(GZIP)

    with pytest.raises(UnfitLayer, match=f"version {INDEX_VERSION + 1}"):
        decode_index(told)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_index_or_unfit(data: bytes) -> None:
    with pytest.raises(UnfitLayer):
        decode_index(data)
