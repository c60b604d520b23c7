"""Bits and records as bytes: any damage is noticed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.chunkset import ChunkSet
from p2pdist.store.bits import Bits, decode_bits, encode_bits
from p2pdist.store.records import decode_records, encode_record

BOOT = "0f7b1c1e-6a0a-4cf7-9b51-1c9f8c2f4d11"


@st.composite
def some_bits(draw: st.DrawFn) -> Bits:
    count = draw(st.integers(1, 300))
    verified = draw(st.integers(0, (1 << count) - 1))
    synced = draw(st.integers(0, (1 << count) - 1))
    return Bits(BOOT, ChunkSet(count, verified), ChunkSet(count, synced))


@given(some_bits())
def test_bits_read_back(bits: Bits) -> None:
    assert decode_bits(encode_bits(bits), bits.verified.chunk_count) == bits


@given(some_bits(), st.integers(0, 1 << 16), st.integers(1, 255))
def test_any_changed_byte_of_bits_is_noticed(bits: Bits, at: int, mask: int) -> None:
    data = bytearray(encode_bits(bits))
    data[at % len(data)] ^= mask

    with pytest.raises(ValueError, match="bits file"):
        decode_bits(bytes(data), bits.verified.chunk_count)


@given(some_bits(), st.integers(1, 40))
def test_bits_of_another_blob_are_noticed(bits: Bits, more: int) -> None:
    with pytest.raises(ValueError, match="bits file"):
        decode_bits(encode_bits(bits), bits.verified.chunk_count + more)


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_records_read_back(records: list[bytes]) -> None:
    assert decode_records(b"".join(map(encode_record, records))) == records


@given(st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=8), st.integers(0, 2000))
def test_a_cut_tail_costs_the_last_records_only(records: list[bytes], cut: int) -> None:
    data = b"".join(map(encode_record, records))
    kept = decode_records(data[: cut % len(data)])

    assert kept == records[: len(kept)]
    assert len(kept) < len(records)


@given(st.binary(max_size=500))
def test_foreign_bytes_never_raise(data: bytes) -> None:
    decode_records(data)
    with contextlib.suppress(ValueError):
        decode_bits(data, 10)
