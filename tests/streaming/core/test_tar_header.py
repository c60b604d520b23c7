"""Headers of archives: what is read here is what the standard library reads."""

from __future__ import annotations

import tarfile
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.streaming.core.tar_header import BLOCK_BYTES, Header, header_of, usual_header

Form = Literal[0, 1]
FORMS: list[Form] = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT]
KINDS = [b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"x", b"g", b"L", b"K"]
PLACES = [0, 99, 100, 107, 108, 124, 135, 148, 154, 155, 156, 157, 256, 257, 329, 345, 346, 499]


def by_the_standard_library(block: bytes) -> Header | None:
    """None: it refuses that."""
    try:
        told = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError):
        return None
    name, target = (text.encode("utf-8", "surrogateescape") for text in (told.name, told.linkname))
    device = told.devmajor, told.devminor
    numbers = told.mode, told.uid, told.gid, told.size, int(told.mtime)
    return Header(told.type, name, *numbers, target, device)


def summed(block: bytearray) -> bytes:
    """With the sum that it should have."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def written(name: str, kind: bytes, form: Form, size: int = 7) -> bytes:
    told = tarfile.TarInfo(name)
    told.type, told.size, told.mtime, told.uid, told.linkname = kind, size, 1_700_000_000, 12, "to"
    return told.tobuf(form)[:BLOCK_BYTES]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"5", b"x", b"L"])
@pytest.mark.parametrize("name", ["etc/passwd", "d/", "p" * 90 + "/" + "n" * 60])
def test_what_is_usual_is_read_without_the_standard_library(
    name: str, kind: bytes, form: Form
) -> None:
    block = written(name, kind, form)

    assert usual_header(block) == by_the_standard_library(block)


@given(
    st.text(max_size=24),
    st.sampled_from(KINDS),
    st.sampled_from(FORMS),
    st.integers(0, 8**12),
    st.lists(
        st.tuples(
            st.sampled_from(PLACES) | st.integers(0, BLOCK_BYTES - 1),
            st.sampled_from(b"\0 /07-8\x80\xff") | st.integers(0, 255),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_any_header_is_read_as_the_standard_library_reads_it(
    name: str, kind: bytes, form: Form, size: int, changed: list[tuple[int, int]], fits: bool
) -> None:
    size %= 8**11 if form == tarfile.USTAR_FORMAT else 8**12  # a number of base 256 above that
    block = bytearray(written(name.replace("\0", ""), kind, form, size))
    for place, byte in changed:
        block[place] = byte
    told = summed(block) if fits else bytes(block)
    expected = by_the_standard_library(told)

    assert usual_header(told) in (None, expected)
    if expected is None:
        with pytest.raises((tarfile.HeaderError, ValueError, OverflowError)):
            header_of(told)
    else:
        assert header_of(told) == expected
