from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerFault
from p2pdist.model.clocks import UNIX_MS_MAX
from p2pdist.model.control import FRAME_BYTES_MAX
from p2pdist.model.control_wire import (
    CLIENT_HANDSHAKE,
    FEATURE_ZSTD,
    MAGIC,
    MESSAGE_BYTES_MAX,
    SERVER_HANDSHAKE,
    SESSION,
    CloseCode,
    FrameCodec,
    FrameReader,
    Kind,
    close_frame,
    frame,
    parse_tracker_url,
    pong_frame,
    read_close,
    read_pong,
    read_retry,
    retry_frame,
)
from p2pdist.model.members import Address

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
def test_foreign_bytes_unpack_or_are_the_other_ends_fault(packed: bytes) -> None:
    try:
        assert len(ZSTD.unpack(packed)) <= FRAME_BYTES_MAX
    except PeerFault:
        assert packed[:1] != b"\x00"


PARTS = st.lists(st.integers(1, 40), max_size=50)
FRAMES = st.lists(st.tuples(st.sampled_from([Kind.MESSAGE, Kind.CLOSE]), st.binary(max_size=99)))


@given(FRAMES, PARTS)
def test_frames_come_out_however_they_were_cut(
    frames: list[tuple[Kind, bytes]], parts: list[int]
) -> None:
    wire = MAGIC + b"".join(frame(kind, payload) for kind, payload in frames)
    reader, found = FrameReader(SESSION, MAGIC), []
    for size in [*parts, len(wire)]:
        found += reader.feed(wire[:size])
        wire = wire[size:]

    assert found == frames


@given(st.binary(max_size=300))
def test_foreign_bytes_are_frames_within_their_limits_or_a_fault(data: bytes) -> None:
    reader = FrameReader(CLIENT_HANDSHAKE, MAGIC)
    try:
        found = reader.feed(MAGIC + data)
    except PeerFault:
        return
    assert all(len(payload) <= CLIENT_HANDSHAKE[kind] for kind, payload in found)


def test_what_is_too_large_is_refused_from_its_header() -> None:
    reader = FrameReader(SESSION)

    with pytest.raises(PeerFault, match="kind 4"):
        reader.feed(frame(Kind.MESSAGE, bytes(MESSAGE_BYTES_MAX + 1))[:5])


@pytest.mark.parametrize("data", [b"G", b"GET /", b"p2pdist/1\n"])
def test_another_protocol_is_refused_from_its_first_bytes(data: bytes) -> None:
    with pytest.raises(PeerFault, match="not a p2pdist host"):
        FrameReader(CLIENT_HANDSHAKE, MAGIC).feed(data)


def test_a_delay_and_a_goodbye_are_read_as_they_were_written() -> None:
    (retry,) = FrameReader(SERVER_HANDSHAKE).feed(retry_frame(12.5))
    (close,) = FrameReader(SESSION).feed(close_frame(CloseCode.GOODBYE, "ü" * 500))

    assert read_retry(retry[1]) == 12.5
    assert read_close(close[1])[0] == CloseCode.GOODBYE


@pytest.mark.parametrize(
    "url",
    [
        "ws://h:1",
        "http://h:1",
        "tcp://h",
        "tcp://:1",
        "tcp://h:1/x",
        "tcp://u@h:1",
        "h:1",
        "tcp://h:99999",
    ],
)
def test_only_a_tcp_url_names_a_tracker(url: str) -> None:
    with pytest.raises(ValueError, match=r"tcp://|range"):
        parse_tracker_url(url)


def test_a_websocket_url_is_answered_with_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"write tcp://10\.0\.0\.2:5200$"):
        parse_tracker_url("ws://10.0.0.2:5200")
    assert parse_tracker_url("tcp://[::1]:5200/") == Address("::1", 5200)


@given(st.integers(0, UNIX_MS_MAX))
def test_a_pong_tells_the_wall_clock(unix_ms: int) -> None:
    ((kind, payload),) = FrameReader(SESSION).feed(pong_frame(unix_ms))

    assert (kind, read_pong(payload)) == (Kind.PONG, unix_ms)


@given(st.binary(max_size=8))
def test_a_pong_is_a_time_nothing_or_refused(payload: bytes) -> None:
    try:
        unix_ms = read_pong(payload)
    except PeerFault:
        assert payload
    else:
        assert 0 <= unix_ms <= UNIX_MS_MAX


def test_a_host_need_not_tell_the_time() -> None:
    assert read_pong(b"") == 0
