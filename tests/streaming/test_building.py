"""Indexes of whole layers, and what is read through them."""

from __future__ import annotations

import contextlib
import hashlib
import random
import tarfile
import zlib
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.model.ids import digest_of
from p2pdist.streaming import building, inflating
from p2pdist.streaming.building import IndexBuilder
from p2pdist.streaming.contents import WrongSpan, open_span
from p2pdist.streaming.core.index import LayerIndex, decode_index, encode_index, window_of
from p2pdist.streaming.core.tar import Member, UnfitLayer
from tests.streaming.archives import (
    SKIPPED,
    archive,
    file,
    gzipped,
    gzipped_and_flushed,
    gzipped_in_members,
    index_of,
    text,
    zstd_in_frames,
)

SPAN_BYTES = 64 << 10
TAR = archive(*(file(f"f{i}", text(100_000, i)) for i in range(20)), file("z", bytes(300_000)))
WAYS = {
    "gzip": gzipped(TAR),
    "stored": gzipped(TAR, 0),
    "members": gzipped_in_members(TAR, 50_000),
    "flushed": gzipped_and_flushed(TAR, 30_000),
    "plain": TAR,
    "frames": zstd_in_frames(TAR, 50_000),
    "large frames": zstd_in_frames(TAR, 180_000),
}


@cache
def index_of_way(way: str) -> LayerIndex:
    return index_of(WAYS[way], span_bytes=SPAN_BYTES)


def index_of_gzip() -> LayerIndex:
    return index_of_way("gzip")


def read_all(index: LayerIndex, blob: bytes) -> bytes:
    """Every span by itself, from its own bytes alone."""
    out = []
    for number in random.Random(1).sample(range(len(index.spans)), len(index.spans)):
        start, stop = index.span_range(number)
        out.append((number, open_span(index, number, blob[start:stop])))
    return b"".join(plain for _, plain in sorted(out))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("piece_bytes", [1 << 20, 10_007])
def test_every_span_is_read_by_itself(way: str, piece_bytes: int) -> None:
    blob = WAYS[way]
    index = index_of(blob, span_bytes=SPAN_BYTES, piece_bytes=piece_bytes)
    assert index.diff_id == f"sha256:{hashlib.sha256(TAR).hexdigest()}"
    assert (index.blob_bytes, index.diff_bytes) == (len(blob), len(TAR))
    assert len(index.spans) > 10
    assert read_all(index, blob) == TAR
    assert decode_index(encode_index(index)) == index


def test_pieces_of_one_byte_make_the_same_index() -> None:
    blob = gzipped(archive(file("f", text(70_000))))
    assert index_of(blob, span_bytes=16 << 10, piece_bytes=1) == index_of(blob, span_bytes=16 << 10)


def test_the_systems_zlib_does_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = WAYS["gzip"]
    expected = index_of(blob, span_bytes=SPAN_BYTES)
    library = inflating.system_zlib()
    monkeypatch.setattr(inflating, "_library", lambda: library)
    index = index_of(blob, span_bytes=SPAN_BYTES)
    assert read_all(index, blob) == TAR
    assert index.diff_id == expected.diff_id


def test_windows_keep_what_is_referred_to_and_no_more() -> None:
    index = index_of(WAYS["gzip"], span_bytes=SPAN_BYTES)
    windows = [window for span in index.spans if (window := window_of(span)) is not None]
    assert windows
    assert all(0 < sum(map(bool, window)) < len(window) // 2 for window in windows)


def test_an_empty_archive_has_no_files() -> None:
    index = index_of(gzipped(bytes(1024)))
    assert list(index.entries) == []
    assert index.span_at(0) == 0


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (b"", "of 0 bytes"),
        (b"\x1f\x8b", "of 2 bytes"),
        (zstd_in_frames(archive(file("f", bytes(9 << 20))), 10 << 20), "no places to begin at"),
        (zstd_in_frames(bytes(200 << 20), 1 << 20), "inflate to more"),
        (WAYS["frames"][:-20_000], "zstd ends too early"),
        (WAYS["frames"] + b"garbage", "its zstd is broken"),
        (WAYS["frames"][:50_000] + b"\xff" * 9000, "its zstd"),
        (WAYS["frames"][: -len(SKIPPED) - 1] + b"!", "its zstd is broken"),
        (zstd_in_frames(b"\xff" * 5000, 1000), "no header"),
        (gzipped(TAR)[:-20_000], "ends too early"),
        (gzipped(TAR)[:-4], "ends too early"),
        (gzipped(TAR)[:50_000] + b"\xff" * 9000, "inflated|no header"),
        (gzipped(TAR) + b"garbage", "inflated|early"),
        (gzipped(b"\xff" * 5000), "no header"),
        (b"\xff" * 5000, "no header"),
        (gzipped(bytes(200 << 20), 9), "inflate to more"),
        (gzipped(archive(file("../out"))), "climbs"),
    ],
)
def test_what_cannot_be_read_from_the_middle_is_unfit(blob: bytes, why: str) -> None:
    with pytest.raises(UnfitLayer, match=why):
        index_of(blob)


def test_more_files_than_an_index_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "ENTRIES_MAX", 1000)
    blob = gzipped(archive(*(file(f"{number:04}") for number in range(1200))))
    with pytest.raises(UnfitLayer, match="more than 1000 files"):
        index_of(blob)


def test_zeros_for_ever_are_left_after_a_moment() -> None:
    """Ten gigabytes of them are ten megabytes of gzip; no more is inflated than a bomb may."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(32 << 20)
    fed: list[bytes] = []
    header = file("zeros", b"")[0]
    header.size = 10 << 30

    def feed(builder: IndexBuilder) -> None:
        builder.feed(packer.compress(header.tobuf(tarfile.PAX_FORMAT)))
        while len(fed) < header.size // len(zeros):
            fed.append(packer.compress(zeros) + packer.flush(zlib.Z_SYNC_FLUSH))
            builder.feed(fed[-1])

    builder = IndexBuilder(digest_of(b"a bomb"))
    with contextlib.closing(builder), pytest.raises(UnfitLayer, match="inflate to more"):
        feed(builder)
    assert len(fed) * len(zeros) < 200 << 20


def test_empty_members_of_gzip_are_passed_over() -> None:
    plain = archive(file("f", text(70_000)))
    blob = gzipped(b"") * 5000 + gzipped(plain) + gzipped(b"") * 5000
    index = index_of(blob, span_bytes=16 << 10)
    assert read_all(index, blob) == plain


@settings(max_examples=100)
@given(st.sampled_from(["gzip", "frames"]), st.integers(0, 2**31), st.integers(1, 200))
def test_bytes_that_are_not_those_of_the_blob_never_come_out(
    way: str, seed: int, flips: int
) -> None:
    blob, rng = WAYS[way], random.Random(seed)
    index = index_of_way(way)
    number = rng.randrange(len(index.spans))
    start, stop = index.span_range(number)
    data = bytearray(blob[start:stop])
    for _ in range(flips):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    out = index.spans[number].out_offset
    with contextlib.suppress(WrongSpan):
        assert open_span(index, number, bytes(data)) == TAR[out : index.span_end(number)]


@pytest.mark.parametrize("way", ["gzip", "frames"])
@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_span_that_is_cut_off_is_none(way: str, cut: int) -> None:
    index = index_of_way(way)
    start, _ = index.span_range(3)
    with pytest.raises(WrongSpan):
        open_span(index, 3, WAYS[way][start : start + cut] or b"\0")


def test_a_layer_may_begin_with_what_is_skipped() -> None:
    blob = SKIPPED + WAYS["frames"]
    assert read_all(index_of(blob, span_bytes=SPAN_BYTES), blob) == TAR


@pytest.mark.parametrize(
    "change",
    [
        {"blob": "sha256:x"},
        {"diff_bytes": 5},
        {"blob_bytes": 5},
        {"spans": []},
        {"entries": [Member(b"0", b"f", 0o644, 0, 0, 1000, len(TAR) - 512, 0)]},
        {"entries": [Member(b"9", b"f", 0o644, 0, 0, 0, 0, 0)]},
        {"compression": "none"},
        {"compression": "zstd"},
        {"compression": "lz4"},
        {"spans": index_of_gzip().spans[1:]},
        {"spans": index_of_gzip().spans[::-1]},
    ],
)
def test_an_index_that_contradicts_itself_is_none(change: dict[str, object]) -> None:
    bad = msgspec.structs.replace(index_of_gzip(), **change)
    with pytest.raises(UnfitLayer):
        decode_index(encode_index(bad))


@settings(max_examples=100)
@given(st.integers(0, 2**31))
def test_an_index_with_flipped_bits_is_unfit_or_harmless(seed: int) -> None:
    data, rng = bytearray(encode_index(index_of_gzip())), random.Random(seed)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    with contextlib.suppress(UnfitLayer):
        index = decode_index(bytes(data))
        start, stop = index.span_range(0)
        open_span(index, 0, WAYS["gzip"][start:stop])
