"""What starts read of a layer, from its bytes and back."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.control import TRACE_UNIT_MAX, TRACE_UNITS_MAX
from p2pdist.oci.traces import BODY_BYTES_MAX, decode_trace, encode_trace


@given(st.lists(st.integers(0, TRACE_UNIT_MAX), max_size=TRACE_UNITS_MAX))
def test_what_is_told_comes_back_in_its_order(units: list[int]) -> None:
    assert decode_trace(encode_trace(units)) == units


def test_the_longest_trace_fits_its_body_with_room() -> None:
    """Five bytes for each unit at most: what is bounded as units is bounded as bytes."""
    longest = encode_trace([TRACE_UNIT_MAX] * TRACE_UNITS_MAX)
    assert len(longest) == 3 + 5 * TRACE_UNITS_MAX < BODY_BYTES_MAX == 4096


@pytest.mark.parametrize(
    "told", [[-1], [TRACE_UNIT_MAX + 1], ["1"], [0] * (TRACE_UNITS_MAX + 1), {"a": 1}, None]
)
def test_what_is_no_trace_is_refused(told: object) -> None:
    with pytest.raises(ValueError, match="no trace"):
        decode_trace(msgspec.msgpack.encode(told))


def test_a_long_body_is_not_read() -> None:
    with pytest.raises(ValueError, match="a trace of 4097 bytes"):
        decode_trace(bytes(BODY_BYTES_MAX + 1))


@given(st.binary(max_size=100))
def test_whatever_comes_is_refused_or_a_trace(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(0 <= unit <= TRACE_UNIT_MAX for unit in decode_trace(body))
