"""Frames as bytes and back: any cutting of the stream, and hostile bytes."""

from __future__ import annotations

import contextlib
import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerFault
from p2pdist.exchange import frames as fr
from p2pdist.exchange.codec import BUFFER_BYTES_MAX, HEADER, Decoder, data_header, encode
from p2pdist.model.ids import Digest, MapId, RequestId, TagKey
from p2pdist.model.member_wire import MEMBERS_MAX
from p2pdist.model.statements import RECORD_BYTES_MAX
from tests.model.test_member_wire import members

u32 = st.integers(0, (1 << 32) - 1)
request_ids = u32.map(RequestId)
digests = st.binary(min_size=32, max_size=32).map(lambda b: Digest(f"sha256:{b.hex()}"))
long_digests = st.binary(min_size=64, max_size=64).map(lambda b: Digest(f"sha512:{b.hex()}"))
map_ids = st.binary(min_size=16, max_size=16).map(MapId)
records = st.binary(min_size=1, max_size=200)
ranges = st.lists(st.tuples(u32, u32), max_size=20).map(tuple)
run_lengths = st.integers(1, fr.RUN_CHUNKS_MAX)
media_types = st.text("abcdefghijklmnopqrstuvwxyz/+.-", max_size=80)
named = st.lists(members, max_size=MEMBERS_MAX).map(tuple)
payloads = st.binary(min_size=1, max_size=3000).map(lambda data: memoryview(data))

frames = st.one_of(
    st.builds(fr.Interest, digests | long_digests, st.booleans(), st.booleans(), st.booleans()),
    st.builds(fr.Uninterest, digests),
    st.builds(fr.MapRecord, records),
    st.builds(fr.Offer, digests | long_digests, map_ids, ranges),
    st.builds(fr.Retract, digests),
    st.builds(fr.Working, digests),
    st.builds(
        fr.Request,
        request_ids,
        digests,
        map_ids,
        u32,
        st.integers(1, fr.RUN_CHUNKS_MAX),
        st.booleans(),
    ),
    st.builds(fr.Cancel, request_ids),
    st.builds(fr.Refuse, request_ids, st.sampled_from(fr.RefuseReason)),
    st.builds(fr.Data, request_ids, u32, st.integers(0, 1 << 22), payloads),
    st.builds(fr.GetSmall, request_ids, digests),
    st.builds(fr.Small, request_ids, st.integers(0, fr.SMALL_BYTES_MAX), media_types),
    st.builds(fr.GetStatement, request_ids, st.binary(min_size=32, max_size=32).map(TagKey)),
    st.builds(fr.StatementIs, request_ids, st.binary(max_size=200)),
    st.builds(fr.Ping, st.integers(0, (1 << 64) - 1)),
    st.builds(fr.Pong, st.integers(0, (1 << 64) - 1)),
    st.builds(fr.LinkUse, st.booleans()),
    st.builds(fr.WhoElse, digests | long_digests),
    st.builds(fr.Others, digests | long_digests, named),
    st.builds(fr.Ticket, st.binary(min_size=1, max_size=500)),
)


def decode_in_pieces(stream: bytes, cuts: list[int]) -> list[fr.Frame]:
    """Feed `stream` cut at `cuts`; adjacent parts of one slice of data are joined again."""
    decoder, got = Decoder(), list[fr.Frame]()
    edges = [0, *sorted(c % (len(stream) + 1) for c in cuts), len(stream)]
    for start, stop in itertools.pairwise(edges):
        for frame in decoder.feed(stream[start:stop]):
            assert decoder.buffered_bytes <= BUFFER_BYTES_MAX
            last = got[-1] if got else None
            if (
                isinstance(frame, fr.Data)
                and isinstance(last, fr.Data)
                and (frame.request_id, frame.chunk) == (last.request_id, last.chunk)
                and frame.offset == last.offset + len(last.payload)
            ):
                joined = memoryview(bytes(last.payload) + bytes(frame.payload))
                got[-1] = fr.Data(last.request_id, last.chunk, last.offset, joined)
            elif isinstance(frame, fr.Data):
                copy = memoryview(bytes(frame.payload))
                got.append(fr.Data(frame.request_id, frame.chunk, frame.offset, copy))
            else:
                got.append(frame)
    return got


@given(frames)
def test_every_frame_reads_back(frame: fr.Frame) -> None:
    assert decode_in_pieces(encode(frame), []) == [frame]


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 1 << 20), max_size=30))
def test_any_cutting_of_the_stream_gives_the_same_frames(
    sent: list[fr.Frame], cuts: list[int]
) -> None:
    stream = b"".join(encode(frame) for frame in sent)

    assert decode_in_pieces(stream, cuts) == decode_in_pieces(stream, [])


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=10))
def test_hostile_bytes_are_a_peers_fault_and_stay_within_bounds(
    stream: bytes, cuts: list[int]
) -> None:
    with contextlib.suppress(PeerFault):  # anything else fails the test
        decode_in_pieces(stream, cuts)


@given(st.lists(frames, min_size=1, max_size=5), st.integers(0, 1 << 30), st.integers(0, 255))
def test_one_changed_byte_is_a_peers_fault_or_another_frame(
    sent: list[fr.Frame], at: int, value: int
) -> None:
    stream = bytearray(b"".join(encode(frame) for frame in sent))
    stream[at % len(stream)] = value
    decoder = Decoder()

    with contextlib.suppress(PeerFault):  # anything else fails the test
        decoder.feed(bytes(stream))
    assert decoder.buffered_bytes <= BUFFER_BYTES_MAX


@pytest.mark.parametrize("kind", [*range(1, 20)])
def test_an_oversize_frame_is_refused_from_its_header_alone(kind: int) -> None:
    with pytest.raises(PeerFault):
        Decoder().feed(HEADER.pack(1 << 20, kind))


def test_a_record_may_have_its_largest_size() -> None:
    frame = fr.MapRecord(Random(1).randbytes(RECORD_BYTES_MAX))

    assert decode_in_pieces(encode(frame), [7, 4000]) == [frame]


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(PeerFault, match="unknown type 99"):
        Decoder().feed(HEADER.pack(1, 99))


def test_a_broken_stream_stays_broken() -> None:
    decoder = Decoder()
    with pytest.raises(PeerFault):
        decoder.feed(HEADER.pack(1, 99))

    with pytest.raises(PeerFault, match="broke before"):
        decoder.feed(encode(fr.Ping(1)))


def test_a_data_header_is_the_start_of_the_frame() -> None:
    payload = memoryview(b"x" * 100)
    frame = fr.Data(RequestId(3), 4, 5, payload)

    assert data_header(3, 4, 5, 100) + b"x" * 100 == encode(frame)


def test_payload_is_surfaced_without_being_gathered() -> None:
    decoder = Decoder()
    stream = encode(fr.Data(RequestId(1), 0, 0, memoryview(bytes(60_000))))

    parts = decoder.feed(stream[:1000])

    assert isinstance(parts[0], fr.Data)
    assert decoder.buffered_bytes == 0


@pytest.mark.parametrize("flag", [8, 255])
def test_a_flag_that_is_none_is_refused(flag: int) -> None:
    frame = bytearray(encode(fr.Interest(Digest("sha256:" + "5" * 64), bulk=True)))
    frame[HEADER.size] = flag

    with pytest.raises(PeerFault):
        Decoder().feed(bytes(frame))
