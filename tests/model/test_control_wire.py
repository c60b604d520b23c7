from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerFault
from p2pdist.model.control import FRAME_BYTES_MAX
from p2pdist.model.control_wire import FEATURE_ZSTD, FrameCodec

ZSTD, PLAIN = FrameCodec(FEATURE_ZSTD), FrameCodec(0)


@pytest.mark.parametrize("codec", [ZSTD, PLAIN])
@pytest.mark.parametrize("payload", [b"", b"short", b"a" * 100_000, bytes(FRAME_BYTES_MAX)])
def test_a_frame_comes_out_as_it_went_in(codec: FrameCodec, payload: bytes) -> None:
    assert codec.unpack(codec.pack(payload)) == payload


def test_only_large_frames_are_compressed() -> None:
    assert ZSTD.pack(b"a" * 1000) == b"\x00" + b"a" * 1000
    assert len(ZSTD.pack(b"a" * 2000)) < 100


def test_without_the_feature_frames_are_sent_as_they_are() -> None:
    assert PLAIN.pack(b"a" * 2000) == b"a" * 2000


def test_a_frame_that_would_unpack_beyond_the_limit_is_refused() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(FRAME_BYTES_MAX + 1))

    with pytest.raises(PeerFault, match="unpacks to"):
        ZSTD.unpack(b"\x01" + bomb)


def test_a_frame_that_hides_its_size_is_refused() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 24))

    with pytest.raises(PeerFault, match="unpacks to"):
        ZSTD.unpack(b"\x01" + bomb)


@given(st.binary(max_size=64))
def test_foreign_bytes_unpack_or_are_the_other_ends_fault(frame: bytes) -> None:
    try:
        assert len(ZSTD.unpack(frame)) <= FRAME_BYTES_MAX
    except PeerFault:
        assert frame[:1] != b"\x00"
