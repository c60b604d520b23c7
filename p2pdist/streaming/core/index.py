"""The index of one layer: its files, and where in the compressed blob each of their bytes begins.

    blob (gzip)   |······|····|·······|···|·····|        spans, cut at blocks of the compressed data
    archive (tar) |··········|··········|··········|     1 MiB each, and a hash of each
    files                a      b  c          d          offsets in the archive

It is bound to both ends: to the blob by its digest, to the archive by the diff id that the image's
config names. A span is read by itself: its range of the blob, the window of what came before it,
and its hash for what comes out. So lazy reads use the chunks of ordinary pulls, and nothing is
stored twice.

Encoded with msgpack; entries and windows are compressed with zstd. The largest part is the windows:
only what the next 32 KiB refer to is kept of them (`streaming.windows`), which is a tenth.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
import zstandard

from p2pdist.model.geometry import BLOB_SIZE_MAX_BYTES
from p2pdist.model.ids import Digest, parse_digest
from p2pdist.model.layer_index import INDEX_BYTES_MAX, INDEX_VERSION
from p2pdist.streaming.core.tar import SIZE_MAX_BYTES, Member, UnfitLayer

SPAN_BYTES: Final = 1 << 20
"""Of the archive. What is read at once costs 0.35 MB of a gzip blob and 3 ms of inflating; half as
much would double the windows."""
ENTRIES_MAX: Final = 1_000_000
TABLE_BYTES_MAX: Final = 512 << 20
WINDOW_BYTES_MAX: Final = 32 << 10
SPAN_BYTES_MAX: Final = 64 << 20
"""A block of gzip may be as long as it likes; what is longer than this is not for reading in it."""
HASH_BYTES: Final = 32

Compression = Literal["gzip", "zstd", "none"]


class Span(msgspec.Struct, frozen=True, array_like=True):
    """A piece of the archive that can be read without what comes before it."""

    in_offset: Annotated[int, msgspec.Meta(ge=0, le=BLOB_SIZE_MAX_BYTES)]
    """Its first byte in the blob, after `bits` bits of the byte before."""
    bits: Annotated[int, msgspec.Meta(ge=0, le=7)]
    out_offset: Annotated[int, msgspec.Meta(ge=0, le=SIZE_MAX_BYTES)]
    hash: Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
    """BLAKE3 of its bytes in the archive."""
    window: Annotated[bytes, msgspec.Meta(max_length=WINDOW_BYTES_MAX + 1024)] | None = None
    """What it refers to of the archive before it, compressed; None: nothing, it begins anew."""

    @property
    def in_start(self) -> int:
        """The first byte of the blob that is needed."""
        return self.in_offset - (1 if self.bits else 0)


class _Index(msgspec.Struct, frozen=True, array_like=True):
    version: int
    blob: str
    diff_id: str
    blob_bytes: Annotated[int, msgspec.Meta(ge=0, le=BLOB_SIZE_MAX_BYTES)]
    diff_bytes: Annotated[int, msgspec.Meta(ge=0, le=SIZE_MAX_BYTES)]
    compression: Compression
    spans: list[Span]
    entries: bytes


class LayerIndex(msgspec.Struct, frozen=True):
    """What `decode_index` returns: checked, so that whoever uses it need not."""

    blob: Digest
    diff_id: Digest
    blob_bytes: int
    diff_bytes: int
    """Of the archive."""
    compression: Compression
    spans: Sequence[Span]
    entries: Sequence[Member]

    def span_at(self, offset: int) -> int:
        """The number of the span that holds byte `offset` of the archive."""
        return bisect_right(self.spans, offset, key=lambda span: span.out_offset) - 1

    def span_end(self, number: int) -> int:
        """Where a span ends in the archive."""
        after = number + 1
        return self.spans[after].out_offset if after < len(self.spans) else self.diff_bytes

    def span_range(self, number: int) -> tuple[int, int]:
        """The bytes of the blob that a span is made of: start and stop."""
        after = number + 1
        stop = self.spans[after].in_offset if after < len(self.spans) else self.blob_bytes
        return self.spans[number].in_start, stop


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Index)
_entries: Final = msgspec.msgpack.Decoder(list[Member])


def encode_index(index: LayerIndex) -> bytes:
    compressor = zstandard.ZstdCompressor(level=9)
    entries = compressor.compress(_encoder.encode(index.entries))
    return _encoder.encode(
        _Index(
            INDEX_VERSION,
            index.blob,
            index.diff_id,
            index.blob_bytes,
            index.diff_bytes,
            index.compression,
            list(index.spans),
            entries,
        )
    )


def decode_index(data: bytes) -> LayerIndex:
    """Raise UnfitLayer for what is no index, of another version, or contradicts itself."""
    if len(data) > INDEX_BYTES_MAX:
        raise UnfitLayer(f"an index of {len(data)} bytes")
    try:
        raw = _decoder.decode(data)
        blob, diff_id = parse_digest(raw.blob), parse_digest(raw.diff_id)
        table_bytes = zstandard.frame_content_size(raw.entries)
        if not 0 <= table_bytes <= TABLE_BYTES_MAX:
            raise UnfitLayer(f"an index whose table has {table_bytes} bytes")
        table = zstandard.ZstdDecompressor().decompress(raw.entries, max_output_size=table_bytes)
        entries = _entries.decode(table)
    except (msgspec.DecodeError, zstandard.ZstdError, ValueError) as error:
        raise UnfitLayer(f"not an index of a layer: {error}") from None
    if raw.version != INDEX_VERSION or len(entries) > ENTRIES_MAX:
        raise UnfitLayer(f"an index of version {raw.version} with {len(entries)} entries")
    index = LayerIndex(
        blob, diff_id, raw.blob_bytes, raw.diff_bytes, raw.compression, raw.spans, entries
    )
    _check_spans(index)
    for entry in entries:
        entry.check_decoded()
        if entry.size_bytes and entry.offset + entry.size_bytes > index.diff_bytes:
            raise UnfitLayer(f"an entry that ends behind the archive: {entry.name[:80]!r}")
    return index


def window_of(span: Span) -> bytes | None:
    """What came before a span, as far as it refers to that; raise UnfitLayer for garbage."""
    if span.window is None:
        return None
    try:
        # `max_output_size` bounds only what does not tell its size: 33 KiB may come to a gigabyte.
        if zstandard.frame_content_size(span.window) > WINDOW_BYTES_MAX:
            raise UnfitLayer("an index with a broken window: it tells of more than 32 KiB")
        return zstandard.ZstdDecompressor().decompress(
            span.window, max_output_size=WINDOW_BYTES_MAX
        )
    except zstandard.ZstdError as error:
        raise UnfitLayer(f"an index with a broken window: {error}") from None


def _check_spans(index: LayerIndex) -> None:
    if bool(index.spans) is not bool(index.diff_bytes) or (
        index.spans and index.spans[0].out_offset
    ):
        raise UnfitLayer("an index whose spans do not begin with the archive")
    for number, span in enumerate(index.spans):
        start, stop = index.span_range(number)
        length = index.span_end(number) - span.out_offset
        if not (0 < length <= SPAN_BYTES_MAX and 0 <= start < stop <= index.blob_bytes):
            raise UnfitLayer(f"an index whose span {number} is none")
        if index.compression != "gzip" and (span.bits or span.window is not None):
            raise UnfitLayer(f"an index whose span {number} begins in the middle of what it cannot")
        if index.compression == "none" and stop - start != length:
            raise UnfitLayer(f"an index whose span {number} is as long as it cannot be")
