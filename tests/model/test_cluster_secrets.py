"""What a secret file holds: one secret as ever, two in two lines, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.cluster_secrets import SECRET_BYTES_MIN, parse_secrets
from tests.fakes.secrets import only

OLD, NEW = b"0123456789abcdef", b"another one of enough bytes"


@pytest.mark.parametrize(
    ("data", "each"),
    [
        (OLD, (OLD,)),
        (OLD + b"\n", (OLD,)),
        (b"  " + OLD + b"\t\r\n\n", (OLD,)),
        (OLD + b"\n" + NEW, (OLD, NEW)),
        (NEW + b"\r\n\r\n" + OLD + b"\r\n", (NEW, OLD)),
        ("Straße, lang genug\nund eine zweite Zeile".encode(), None),
        (b"\x01\xfe" + OLD + b"\n" + NEW + b"\n", (b"\x01\xfe" + OLD + b"\n" + NEW,)),
        (b"\x00 and no text" + OLD + b"\n" + NEW, (b"\x00 and no text" + OLD + b"\n" + NEW,)),
    ],
)
def test_text_has_a_secret_in_each_line_and_anything_else_is_one(
    data: bytes, each: tuple[bytes, ...] | None
) -> None:
    assert parse_secrets(data).each == (each or tuple(data.split(b"\n")))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "at least 16 bytes"),
        (b"\n \n", "at least 16 bytes"),
        (OLD[1:], "at least 16 bytes"),
        (OLD + b"\nshort\n", "at least 16 bytes"),
        (OLD + b"\n" + NEW + b"\n" + OLD * 2, "3 secrets, a line each; at most 2"),
        (OLD + b"\n" + OLD + b"\n", "twice"),
    ],
)
def test_a_file_that_is_no_good_is_told_without_a_word_of_it(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_secrets(data)

    assert OLD.decode() not in str(caught.value)


@given(st.binary(max_size=200))
def test_whatever_is_read_is_one_or_two_of_enough_bytes(data: bytes) -> None:
    try:
        each = parse_secrets(data).each
    except ValueError:
        return
    assert 1 <= len(each) <= 2
    assert min(map(len, each)) >= SECRET_BYTES_MIN


def test_fingerprints_tell_secrets_apart_in_any_place_and_show_none() -> None:
    (old,), (new,) = only(OLD).fingerprints, only(NEW).fingerprints

    assert old != new
    assert only(OLD, NEW).fingerprints == (old, new)
    assert str(only(NEW, OLD)) == f"{new} first, {old} as well"
    assert str(only(NEW)) == new
    assert len(old) == 6
    assert OLD.decode() not in repr(only(OLD))
