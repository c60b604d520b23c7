"""How an archive is put together again from its files, to the last byte: what containers/storage
keeps beside a layer (vbatts/tar-split, `tar/storage`), one JSON object a line.

A line has a piece of the archive itself, or names a file whose content comes next, with the CRC-64
(ISO, as Go's `hash/crc64`) of that. It stands in `<layer>.tar-split.gz`.
"""

from __future__ import annotations

import base64
import gzip
from typing import Final

import msgspec

_FILE: Final = 1
_SEGMENT: Final = 2
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ONES: Final = (1 << 64) - 1
CRC_BYTES: Final = 1 << 16
"""At once: twice as fast as with pieces of 4 KiB or of 1 MiB."""


class _Line(msgspec.Struct, omit_defaults=True):
    type: int
    payload: str
    position: int | None = None
    name: str = ""
    name_raw: str = ""
    size: int = 0


class Lines:
    """Makes the lines in the order of the archive."""

    def __init__(self) -> None:
        self._position = 0

    def segment(self, data: bytes | memoryview) -> bytes:
        """A piece of the archive that is no content of a file."""
        return self._line(_Line(_SEGMENT, _base64(data)))

    def file(self, path: bytes, size_bytes: int, crc: int) -> bytes:
        """All of the content of a file; `path`: in its layer."""
        line = _Line(_FILE, _base64(crc.to_bytes(8, "big")), size=size_bytes)
        try:
            line.name = path.decode()
        except UnicodeDecodeError:
            line.name_raw = _base64(path)
        return self._line(line)

    def _line(self, line: _Line) -> bytes:
        line.position = self._position
        self._position += 1
        return msgspec.json.encode(line) + b"\n"


def refusal(text: str) -> bytes:
    """A `.tar-split.gz` of which no archive can be made: whoever tries says `text`."""
    return gzip.compress(Lines().file(text.encode(), 1, 0), mtime=0)


def crc64(data: bytes | memoryview, crc: int = 0) -> int:
    """The CRC of `data`, after what has the CRC `crc`."""
    with memoryview(data) as view:
        for at in range(0, len(view), CRC_BYTES):
            crc = _crc64(bytes(view[at : at + CRC_BYTES]), crc)
    return crc


def _crc64(data: bytes, crc: int) -> int:
    """In steps of the whole: no table in Python is as fast."""
    message = int.from_bytes(data.translate(_REVERSED), "big") << 64
    return _reflected(_remainder(message ^ (_reflected(crc ^ _ONES) << 8 * len(data)))) ^ _ONES


def _remainder(number: int) -> int:
    """Of a polynomial over GF(2), divided by x^64 + x^4 + x^3 + x + 1. There x^64 is x^4 + x^3 + x
    + 1, and squaring both sides squares each term."""
    while (bits := number.bit_length()) > 64:
        power = 1
        while 128 * power < bits:
            power *= 2
        high = number >> 64 * power
        low = number & ((1 << 64 * power) - 1)
        number = low ^ high ^ (high << power) ^ (high << 3 * power) ^ (high << 4 * power)
    return number


def _reflected(number: int) -> int:
    return int(f"{number:064b}"[::-1], 2)


def _base64(data: bytes | memoryview) -> str:
    return base64.b64encode(data).decode("ascii")
