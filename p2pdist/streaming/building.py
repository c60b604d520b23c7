"""Makes the index of a layer while its bytes pass by, once and in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import zstandard
from blake3 import blake3

from p2pdist.model.ids import Digest, parse_digest
from p2pdist.streaming.core.index import (
    ENTRIES_MAX,
    SPAN_BYTES,
    SPAN_BYTES_MAX,
    Compression,
    LayerIndex,
    Span,
)
from p2pdist.streaming.core.tar import Member, TarReader, UnfitLayer
from p2pdist.streaming.core.tree import LayerTree
from p2pdist.streaming.inflating import WINDOW_BYTES, Checkpoint, Inflating
from p2pdist.streaming.unzstd import MAGIC_BYTES, ZstdFrames, is_zstd
from p2pdist.streaming.windows import HEAD_BYTES, sparse_window

GZIP_MAGIC: Final = b"\x1f\x8b"
# Layers shrink to a third, logs and databases to a thirtieth; what grows more is a bomb, or made of
# zeros, and is left to the runtime.
GROWTH_MAX: Final = 200
GROWTH_FREE_BYTES: Final = 64 << 20


class IndexBuilder:
    """`feed` it the blob, then `finish`; both raise UnfitLayer. Blocks: for a thread or process."""

    def __init__(self, blob: Digest, *, span_bytes: int = SPAN_BYTES) -> None:
        self._blob = blob
        self._span_bytes = span_bytes
        self._hash = hashlib.sha256()
        self._tar = TarReader()
        self._entries: list[Member] = []
        self._in_bytes = 0
        self._out_bytes = 0
        self._begins = b""
        self._compression: Compression | None = None
        self._inflating: Inflating | ZstdFrames | None = None
        self._spans = _Spans()

    def feed(self, data: bytes) -> None:
        if self._compression is None:
            self._begins += data
            if len(self._begins) < MAGIC_BYTES:
                return
            self._begin()
            data, self._begins = self._begins, b""
        self._feed(data)

    def _begin(self) -> None:
        if is_zstd(self._begins):
            self._compression, self._inflating = "zstd", ZstdFrames(self._span_bytes)
            return
        if self._begins.startswith(GZIP_MAGIC):
            self._compression, self._inflating = "gzip", Inflating(self._span_bytes)
            return
        self._compression = "none"

    def _feed(self, data: bytes) -> None:
        self._spans.compressed(data)
        for piece in self._pieces(data):
            if isinstance(piece, Checkpoint):
                self._spans.cut(piece)
                continue
            self._hash.update(piece)
            self._spans.plain(piece)
            self._out_bytes += len(piece)
            self._entries += self._tar.feed(piece)
        self._in_bytes += len(data)
        if len(self._entries) > ENTRIES_MAX:
            raise UnfitLayer(f"it has more than {ENTRIES_MAX} files")
        if self._out_bytes > GROWTH_FREE_BYTES + GROWTH_MAX * self._in_bytes:
            raise UnfitLayer(f"{self._in_bytes} bytes inflate to more than {self._out_bytes}")

    def _pieces(self, data: bytes) -> Iterator[memoryview | Checkpoint]:
        if self._inflating is not None:
            yield from self._inflating.feed(data)
            return
        view, at = memoryview(data), self._in_bytes
        while view:
            room = self._span_bytes - at % self._span_bytes
            yield view[:room]
            at += len(view[:room])
            view = view[room:]
            if at % self._span_bytes == 0:
                yield Checkpoint(at, 0, at, None)

    def finish(self) -> LayerIndex:
        """All of the blob came."""
        if self._compression is None:
            raise UnfitLayer(f"a layer of {len(self._begins)} bytes")
        if self._inflating is not None and self._inflating.in_member:
            raise UnfitLayer(f"its {self._compression} ends too early")
        self._tar.finish()
        spans = self._spans.finish(self._out_bytes)
        LayerTree(self._entries)  # whoever mounts it is to find no surprise
        return LayerIndex(
            self._blob,
            parse_digest(f"sha256:{self._hash.hexdigest()}"),
            self._in_bytes,
            self._out_bytes,
            self._compression,
            spans,
            self._entries,
        )

    def close(self) -> None:
        """Give back what its library holds."""
        if self._inflating is not None:
            self._inflating.__exit__(None, None, None)


class _Spans:
    """Cuts at checkpoints; keeps of the span that is open what its window is made sparse with."""

    def __init__(self) -> None:
        self._done: list[Span] = []
        self._compressor = zstandard.ZstdCompressor(level=9)
        self._open = Checkpoint(0, 0, 0, None)
        self._hash = blake3()
        self._head = bytearray()
        """The first bytes of the open span."""
        self._data = b""
        """The last piece of the blob; it begins at `_data_at`."""
        self._data_at = 0
        self._following = bytearray()
        """The blob from the open checkpoint on."""

    def compressed(self, data: bytes) -> None:
        """What is inflated next."""
        self._follow(data)
        # A checkpoint may share its first byte with the end of the piece before.
        self._data_at += len(self._data) - len(self._data[-1:])
        self._data = self._data[-1:] + data

    def _follow(self, data: bytes) -> None:
        room = HEAD_BYTES - len(self._following)
        if self._open.window is not None and room > 0:
            self._following += data[:room]

    def plain(self, piece: memoryview) -> None:
        self._hash.update(piece)
        if (room := WINDOW_BYTES - len(self._head)) > 0:
            self._head += piece[:room]

    def cut(self, checkpoint: Checkpoint) -> None:
        if checkpoint.out_offset == self._open.out_offset:
            return
        self._close(checkpoint.out_offset)
        self._open, self._hash = checkpoint, blake3()
        self._head.clear()
        self._following.clear()
        start = checkpoint.in_offset - (1 if checkpoint.bits else 0) - self._data_at
        self._follow(self._data[start:])

    def finish(self, out_bytes: int) -> list[Span]:
        if out_bytes > self._open.out_offset:
            self._close(out_bytes)
        return self._done

    def _close(self, stop: int) -> None:
        opened = self._open
        if stop - opened.out_offset > SPAN_BYTES_MAX:
            raise UnfitLayer(f"a block of {stop - opened.out_offset} bytes")
        window: bytes | None = None
        if opened.window is not None:
            sparse = sparse_window(opened, bytes(self._following), bytes(self._head))
            window = self._compressor.compress(sparse)
        span = Span(opened.in_offset, opened.bits, opened.out_offset, self._hash.digest(), window)
        self._done.append(span)
