"""Decompresses zstd that was written as many frames, each of which can be begun at.

So do zstd:chunked (a frame or more for each file), the seekable format and pzstd. Within a frame
nothing can be begun at: what comes before may be referred to from 8 MiB and more away, by tables
that come from before, too (RFC 8878, sections 3.1.1 and 4). A layer that is one frame is pulled as
ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import zstandard

from p2pdist.streaming.core.tar import UnfitLayer
from p2pdist.streaming.inflating import Checkpoint

MAGIC_BYTES: Final = 4
FRAME_BYTES_MAX: Final = 8 << 20
"""Of output. Who reads a byte of a frame decompresses all of it: 8 MiB take 10 ms."""
WINDOW_BYTES_MAX: Final = 128 << 20
"""What `zstd` itself decompresses without being asked to."""
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC: Final = b"\x2a\x4d\x18"
"""After a byte from 0x50 to 0x5f."""
_SLICE_BYTES: Final = 16 << 10
"""Of input at a time: a block of 128 KiB of zeros has 4 bytes."""


def is_zstd(begins: bytes) -> bool:
    """`begins`: the first `MAGIC_BYTES` of a blob."""
    skippable = begins[1:4] == _SKIPPABLE_MAGIC and begins[0] >> 4 == 5
    return begins.startswith(_MAGIC) or skippable


class ZstdFrames:
    """All frames of a blob, one after the other, with a checkpoint between two of them at least
    `spacing_bytes` of output after the last one."""

    def __init__(self, spacing_bytes: int) -> None:
        self._spacing_bytes = spacing_bytes
        self._frame: Any = None
        self._frame_out = 0
        self._in_total = 0
        self._out_total = 0
        self._last_out = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._frame = None

    @property
    def in_member(self) -> bool:
        """The input so far ends within a frame."""
        return self._frame is not None

    def feed(self, data: bytes) -> Iterator[memoryview | Checkpoint]:
        """Yield output, and the checkpoints between it. Raises UnfitLayer."""
        for at in range(0, len(data), _SLICE_BYTES):
            rest = data[at : at + _SLICE_BYTES]
            while rest:
                if self._frame is None:
                    if self._out_total - self._last_out >= self._spacing_bytes:
                        yield Checkpoint(self._in_total, 0, self._out_total, None)
                        self._last_out = self._out_total
                    self._frame, self._frame_out = _frame(), 0
                plain, left = self._decompressed(rest)
                self._in_total += len(rest) - len(left)
                self._out_total += len(plain)
                if plain:
                    yield memoryview(plain)
                rest = left

    def _decompressed(self, data: bytes) -> tuple[bytes, bytes]:
        """Output, and the input behind the end of the frame."""
        try:
            plain: bytes = self._frame.decompress(data)
        except zstandard.ZstdError as error:
            raise UnfitLayer(f"its zstd is broken: {error}") from None
        self._frame_out += len(plain)
        if self._frame_out > FRAME_BYTES_MAX:
            raise UnfitLayer(
                f"a frame of zstd with more than {FRAME_BYTES_MAX >> 20} MiB, in which there are"
                " no places to begin at"
            )
        left: bytes = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
        return plain, left


def unzstd_from(data: bytes, out_bytes: int) -> bytes:
    """Decompress `out_bytes` of whole frames; fewer where `data` ends before that. Raises
    UnfitLayer."""
    try:
        with _decompressor().stream_reader(data, read_across_frames=True) as reader:
            plain: bytes = reader.read(out_bytes)
            return plain
    except zstandard.ZstdError as error:
        raise UnfitLayer(f"its zstd is broken: {error}") from None


def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)


def _frame() -> Any:
    return _decompressor().decompressobj()
