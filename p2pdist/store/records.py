"""Signed records in a file, one after the other, each with its length and an xxh3 footer."""

from __future__ import annotations

import struct
from typing import Final

import xxhash

from p2pdist.model.statements import RECORD_BYTES_MAX

_LENGTH: Final = struct.Struct("<H")
_FOOT_BYTES: Final = 8


def encode_record(record: bytes) -> bytes:
    assert len(record) <= RECORD_BYTES_MAX
    return _LENGTH.pack(len(record)) + record + xxhash.xxh3_64_digest(record)


def decode_records(data: bytes) -> list[bytes]:
    """The records up to the first torn or damaged one: a kill cuts the tail at most."""
    records, at = [], 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        start, stop = at + _LENGTH.size, at + _LENGTH.size + length
        record, foot = data[start:stop], data[stop : stop + _FOOT_BYTES]
        if length > RECORD_BYTES_MAX or xxhash.xxh3_64_digest(record) != foot:
            break
        records.append(record)
        at = stop + _FOOT_BYTES
    return records
