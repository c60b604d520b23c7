"""Sealed records: any cutting of them opens to the same bytes, and none that was touched does."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerFault
from p2pdist.exchange.sealing import (
    KEY_BYTES,
    PLAIN_BYTES_MAX,
    TAG_BYTES,
    Seal,
)

HERE, THERE = bytes(KEY_BYTES), b"k" * KEY_BYTES
HEAD = 4


def ends(records_per_key: int = 1000) -> tuple[Seal, Seal]:
    return (
        Seal(HERE, THERE, records_per_key=records_per_key),
        Seal(THERE, HERE, records_per_key=records_per_key),
    )


def opened(seal: Seal, *pieces: bytes) -> bytes:
    return b"".join(itertools.chain.from_iterable(seal.opened(memoryview(p)) for p in pieces))


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1), st.lists(st.integers(1, 400)))
def test_any_cutting_opens_to_what_was_sealed(parts: list[bytes], cuts: list[int]) -> None:
    """Three records a key: keys change on the way."""
    here, there = ends(records_per_key=3)
    stream = b"".join(here.seal(part) for part in parts)
    pieces = []
    for cut in cuts:
        pieces.append(stream[:cut])
        stream = stream[cut:]

    assert opened(there, *pieces, stream) == b"".join(parts)


def test_what_is_longer_than_a_record_goes_in_several() -> None:
    here, there = ends()
    plain = bytes(range(256)) * 1000

    records = here.seal(plain)

    assert len(records) == len(plain) + 4 * (HEAD + TAG_BYTES)
    assert len(plain) > 3 * PLAIN_BYTES_MAX
    assert opened(there, records) == plain


def test_keys_change_and_nothing_is_sealed_twice_the_same() -> None:
    here, there = ends(records_per_key=2)
    records = [here.seal(b"the same again") for _ in range(7)]

    assert len(set(records)) == 7
    assert opened(there, *records) == b"the same again" * 7
    assert ends(records_per_key=9)[0].seal(b"x") == ends()[0].seal(b"x")
    with pytest.raises(PeerFault):  # it goes on with the old key
        opened(ends(records_per_key=9)[1], *records)


@pytest.mark.parametrize("at", [0, 3, HEAD, HEAD + 5, -1])
def test_a_bit_that_was_changed_is_noticed(at: int) -> None:
    here, there = ends()
    record = bytearray(here.seal(b"twelve bytes"))
    record[at] ^= 1

    with pytest.raises(PeerFault):
        opened(there, bytes(record), bytes(1 << 17))


def test_one_left_out_repeated_or_sent_back_is_noticed() -> None:
    here, there = ends()
    first, second = here.seal(b"first"), here.seal(b"second")
    with pytest.raises(PeerFault, match="changed on its way"):
        opened(there, second)

    _, there = ends()
    with pytest.raises(PeerFault, match="changed on its way"):
        opened(there, first, first)
    with pytest.raises(PeerFault, match="changed on its way"):
        opened(here, first)  # back to who said it


@pytest.mark.parametrize("length", [0, TAG_BYTES, PLAIN_BYTES_MAX + TAG_BYTES + 1, 1 << 31])
def test_lengths_are_refused_before_anything_is_kept(length: int) -> None:
    _, there = ends()

    with pytest.raises(PeerFault, match=f"a record of {length} bytes"):
        opened(there, length.to_bytes(HEAD))
