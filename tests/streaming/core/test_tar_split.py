"""Archives, put together again from files and what is between them."""

from __future__ import annotations

import base64
import gzip
import json

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.streaming.core.tar_split import Lines, crc64, refusal


def slowly(data: bytes) -> int:
    """As in Go's `hash/crc64`, a bit at a time."""
    crc = 2**64 - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xD800000000000000 if crc & 1 else 0)
    return crc ^ 2**64 - 1


def test_the_crc_is_that_of_the_catalogues() -> None:
    assert crc64(b"123456789") == 0xB90956C775A41001
    assert crc64(b"") == 0


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_the_crc_is_the_same_however_the_data_comes(data: bytes, cut: int) -> None:
    assert crc64(data) == slowly(data)
    assert crc64(data[cut:], crc64(data[:cut])) == slowly(data)
    assert crc64(memoryview(data)) == slowly(data)


def test_lines_say_what_comes_next() -> None:
    lines = Lines()
    made = [lines.segment(b"header"), lines.file(b"a/b", 3, 5), lines.file(b"\xff", 1, 0)]

    assert [json.loads(line) for line in made] == [
        {"type": 2, "payload": base64.b64encode(b"header").decode(), "position": 0},
        {
            "type": 1,
            "name": "a/b",
            "size": 3,
            "payload": base64.b64encode(bytes(7) + b"\x05").decode(),
            "position": 1,
        },
        {
            "type": 1,
            "name_raw": base64.b64encode(b"\xff").decode(),
            "size": 1,
            "payload": base64.b64encode(bytes(8)).decode(),
            "position": 2,
        },
    ]


def test_of_a_refusal_no_archive_can_be_made() -> None:
    (line,) = gzip.decompress(refusal("not yet")).splitlines()
    assert json.loads(line)["name"] == "not yet"
