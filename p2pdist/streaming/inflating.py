"""Inflates gzip so that it can be gone on with from the middle: zlib by its own interface.

Python's `zlib` tells nothing of blocks, which is what a checkpoint lies between: at the end of a
block, its bit offset and the last 32 KiB of output are all the state that there is (zlib's
`examples/zran.c`). The functions come from the shared library of the `zlib-ng` package, which
inflates more than twice as fast as the zlib of most systems, or from that.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Final, Self

from p2pdist.streaming.core.tar import UnfitLayer

WINDOW_BYTES: Final = 32 << 10
_GZIP: Final = 31
_RAW: Final = -15
_TRAILER_BYTES: Final = 8

_Z_BLOCK: Final = 5
_Z_NO_FLUSH: Final = 0
_Z_OK: Final = 0
_Z_STREAM_END: Final = 1
_Z_BUF_ERROR: Final = -5
_AT_BLOCK_END: Final = 128
_IN_LAST_BLOCK: Final = 64
_UNUSED_BITS: Final = 7

OUT_BYTES: Final = 1 << 20


class _Stream(ctypes.Structure):
    """`z_stream`; that of zlib-ng differs in the width of `adler` alone, which is not read."""

    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


class _Library:
    """The functions of one zlib."""

    def __init__(self, library: ctypes.CDLL, prefix: str) -> None:
        def function(name: str, *types: Any) -> Any:
            found = getattr(library, prefix + name)
            found.argtypes, found.restype = (ctypes.POINTER(_Stream), *types), ctypes.c_int
            return found

        self.inflate = function("inflate", ctypes.c_int)
        self.end = function("inflateEnd")
        self.reset = function("inflateReset2", ctypes.c_int)
        self.prime = function("inflatePrime", ctypes.c_int, ctypes.c_int)
        self.set_dictionary = function("inflateSetDictionary", ctypes.c_char_p, ctypes.c_uint)
        self.get_dictionary = function(
            "inflateGetDictionary", ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint)
        )
        if prefix:
            self._init = function("inflateInit2", ctypes.c_int)
            self.init = self._init
        else:
            init = function("inflateInit2_", ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
            size = ctypes.sizeof(_Stream)
            self.init = lambda stream, bits: init(stream, bits, b"1.2.11", size)


def system_zlib() -> _Library:
    """The zlib that the system brings: any Linux has one. Raises OSError."""
    return _Library(ctypes.CDLL(ctypes.util.find_library("z") or "libz.so.1"), "")


@cache
def _library() -> _Library:
    try:
        from zlib_ng import zlib_ng

        return _Library(ctypes.CDLL(zlib_ng.__file__), "zng_")
    except (ImportError, AttributeError, OSError):
        return system_zlib()


# Bytes whose content is not set yet, which the C API lets us write to until anybody else has them.
# A buffer of our own is zeroed first and copied then: a tenth of what a span costs.
_new_bytes: Final = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes, _new_bytes.restype = (ctypes.c_char_p, ctypes.c_ssize_t), ctypes.py_object


def _address(held: bytes | bytearray) -> int:
    """Where they lie; the caller keeps them for as long as that is used."""
    if isinstance(held, bytearray):
        return ctypes.addressof(ctypes.c_char.from_buffer(held))
    return ctypes.cast(ctypes.c_char_p(held), ctypes.c_void_p).value or 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where inflating can be gone on with."""

    in_offset: int
    """The first byte of the blob that is read whole."""
    bits: int
    """So many high bits of the byte before belong to the block as well; 0 to 7."""
    out_offset: int
    window: bytes | None
    """What came before; None: a gzip member begins here."""


class _Inflater:
    """One `z_stream`, and the buffer that it writes to."""

    def __init__(self, window_bits: int, out: bytes | bytearray) -> None:
        """`out` is overwritten: bytes have to be new ones, which nobody else knows."""
        self.library = _library()
        self.stream = _Stream()
        self.out = out
        self._address = _address(out)
        if self.library.init(self.stream, window_bits) != _Z_OK:
            raise MemoryError("zlib has no memory")
        self.empty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.library.end(self.stream)

    def empty(self) -> None:
        """What was written is taken: begin at the start of the buffer."""
        self.stream.next_out = self._address
        self.stream.avail_out = len(self.out)

    @property
    def written(self) -> int:
        return len(self.out) - int(self.stream.avail_out)

    def run(self, flush: int) -> int:
        """Inflate on; raise UnfitLayer for what is no gzip."""
        code = int(self.library.inflate(self.stream, flush))
        if code not in (_Z_OK, _Z_STREAM_END, _Z_BUF_ERROR):
            why = (self.stream.msg or b"it is compressed with a dictionary").decode("ascii")
            raise UnfitLayer(f"not to be inflated: {why}")
        return code

    def window(self) -> bytes:
        held, length = ctypes.create_string_buffer(WINDOW_BYTES), ctypes.c_uint(0)
        self.library.get_dictionary(self.stream, held, length)
        return bytes(held.raw[: length.value])


class Inflating:
    """All members of a gzip blob, one after the other, with a checkpoint between blocks at least
    `spacing_bytes` of output after the last one."""

    def __init__(self, spacing_bytes: int) -> None:
        self._spacing_bytes = spacing_bytes
        self._inflater = _Inflater(_GZIP, bytearray(OUT_BYTES))
        self._in_total = 0
        self._out_total = 0
        self._last_out = 0
        self._member_begins = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inflater.__exit__(kind, error, traceback)

    @property
    def in_member(self) -> bool:
        """The input so far ends within a member."""
        return not self._member_begins

    def feed(self, data: bytes) -> Iterator[memoryview | Checkpoint]:
        """Yield output, and the checkpoints between it. A piece is valid until the next one."""
        inflater, stream = self._inflater, self._inflater.stream
        stream.next_in = _address(data)
        stream.avail_in = len(data)
        begin = self._in_total
        while True:
            if self._member_begins and stream.avail_in:
                self._member_begins = False
                if self._due():
                    yield Checkpoint(self._in_total, 0, self._out_total, None)
                    self._last_out = self._out_total
            code = inflater.run(_Z_BLOCK)
            self._in_total = begin + len(data) - stream.avail_in
            at_end, exhausted = code == _Z_STREAM_END, code == _Z_BUF_ERROR
            full = not stream.avail_out
            due = self._at_block_end() and self._due(inflater.written)
            if (full or due or at_end or exhausted or not stream.avail_in) and inflater.written:
                self._out_total += inflater.written
                yield memoryview(inflater.out)[: inflater.written]
                inflater.empty()
            if due and not at_end:
                bits = stream.data_type & _UNUSED_BITS
                yield Checkpoint(self._in_total, bits, self._out_total, inflater.window())
                self._last_out = self._out_total
            if at_end:
                inflater.library.reset(stream, _GZIP)
                self._member_begins = True
            if not stream.avail_in and not full and (exhausted or at_end or not self._pending()):
                return

    def _due(self, more: int = 0) -> bool:
        return self._out_total + more - self._last_out >= self._spacing_bytes

    def _at_block_end(self) -> bool:
        kind = int(self._inflater.stream.data_type)
        return bool(kind & _AT_BLOCK_END) and not kind & _IN_LAST_BLOCK

    def _pending(self) -> bool:
        """The input is used up, but a block's end may be all that stopped it."""
        return bool(self._inflater.stream.data_type & _AT_BLOCK_END)


def inflate_from(
    data: bytes, out_bytes: int, *, bits: int = 0, window: bytes | None = None
) -> bytes:
    """Inflate `out_bytes` from a checkpoint on. `data` begins at its `in_offset`, or one byte
    before that where it has `bits`.

    Raises UnfitLayer where `data` is not what the checkpoint was taken in, or too short.
    """
    plain: bytes = _new_bytes(None, out_bytes)
    with _Inflater(_GZIP if window is None else _RAW, plain) as inflater:
        stream, library = inflater.stream, inflater.library
        start = 1 if bits else 0
        if bits:
            library.prime(stream, bits, data[0] >> (8 - bits))
        if window:
            library.set_dictionary(stream, window, len(window))
        stream.next_in = _address(data) + start
        stream.avail_in = len(data) - start
        raw = window is not None
        while stream.avail_out:
            before = stream.avail_in, stream.avail_out
            if inflater.run(_Z_NO_FLUSH) == _Z_STREAM_END:
                if raw:  # what follows is the trailer, then another member
                    stream.next_in += min(_TRAILER_BYTES, stream.avail_in)
                    stream.avail_in -= min(_TRAILER_BYTES, stream.avail_in)
                    raw = False
                library.reset(stream, _GZIP)
            elif before == (stream.avail_in, stream.avail_out):
                raise UnfitLayer("the compressed bytes end too early")
    return plain
