"""What both ends of a control connection share: its frames, as bytes in and records out.

The client sends `MAGIC`, then both ends send frames: `length (4) | kind (1) | payload`. The
handshake takes three of them: the client's HELLO; the server's ANSWER (proof and hello) or RETRY;
the client's PROOF. Then every MESSAGE is msgpack as it is or, where both ends set `FEATURE_ZSTD`,
behind one byte that says raw (0) or zstd (1). A client says nothing between its proof and the
tracker's welcome.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import zstandard

from p2pdist.errors import PeerFault
from p2pdist.model.clocks import UNIX_MS_MAX
from p2pdist.model.control import FRAME_BYTES_MAX
from p2pdist.model.handshake import HELLO_BYTES_MAX, PROOF_BYTES
from p2pdist.model.members import Address

MAGIC: Final = b"p2pdist-control/1\n"
SCHEME: Final = "tcp"

CONNECT_S: Final = 5.0
"""A host's patience from its dial to the tracker's answer. The tracker refuses, or drops unread,
whom it would not greet within it: work for who has gone would be taken from who waits."""
HANDSHAKE_S: Final = 5.0
"""What each end has for the rest of the handshake."""

FEATURE_ZSTD: Final = 1 << 0
FEATURE_RENEW: Final = 1 << 1
"""Of a tracker: it signs hosts' next certificates, over TLS. Of a host: it knows how to ask."""
FEATURE_REVOKED_HOSTS: Final = 1 << 2
"""Of a tracker: it tells whose certificates were taken back. Of a host: it wants to hear."""
FEATURE_PRIVATE: Final = 1 << 3
"""Of a tracker: it knows private digests, and keeps swarms of them. Of a host: the same."""
FEATURES: Final = FEATURE_ZSTD | FEATURE_RENEW | FEATURE_REVOKED_HOSTS | FEATURE_PRIVATE
"""Of a host; a tracker leaves out what it does not offer."""
# One byte tells how the frame is packed.
MESSAGE_BYTES_MAX: Final = FRAME_BYTES_MAX + 1
REASON_BYTES_MAX: Final = 200
# Below about one packet there is nothing to win.
COMPRESS_FROM_BYTES: Final = 1024

_HEAD: Final = struct.Struct(">IB")
_DELAY: Final = struct.Struct(">I")
_MILLISECONDS: Final = struct.Struct(">Q")
_RAW: Final = 0
_ZSTD: Final = 1


class Kind(enum.IntEnum):
    HELLO = 1
    ANSWER = 2
    PROOF = 3
    MESSAGE = 4
    PING = 5
    PONG = 6
    """The answer to a PING; a tracker tells its wall clock in it, in milliseconds."""
    CLOSE = 7
    """The end of the connection: one byte of `CloseCode`, then why."""
    RETRY = 8
    """In place of an answer: come back in so many milliseconds."""


class CloseCode(enum.IntEnum):
    GOODBYE = 0
    """A host that leaves: it will not be back soon."""
    GOING_AWAY = 1
    """A tracker that stops."""
    REFUSED = 2
    """The other end did what it must not do; the reason says what."""
    ID_IN_USE = 3
    """A host whose id another one has, which is connected; the reason says where."""
    IDENTITY = 4
    """Its certificate is not for who the hello names, or it has none; the reason says more."""


Limits = Mapping[int, int]
_CLOSE_BYTES_MAX: Final = 1 + REASON_BYTES_MAX
CLIENT_HANDSHAKE: Final[Limits] = {
    Kind.HELLO: HELLO_BYTES_MAX,
    Kind.PROOF: PROOF_BYTES,
    Kind.CLOSE: _CLOSE_BYTES_MAX,
}
SERVER_HANDSHAKE: Final[Limits] = {
    Kind.ANSWER: PROOF_BYTES + HELLO_BYTES_MAX,
    Kind.RETRY: _DELAY.size,
    Kind.CLOSE: _CLOSE_BYTES_MAX,
}
SESSION: Final[Limits] = {
    Kind.MESSAGE: MESSAGE_BYTES_MAX,
    Kind.PING: 0,
    Kind.PONG: _MILLISECONDS.size,
    Kind.CLOSE: _CLOSE_BYTES_MAX,
}
"""What may come, by who sends it and when, with the largest payload of each."""

Frame = tuple[int, bytes]


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    return _HEAD.pack(len(payload), kind) + payload


def close_frame(code: CloseCode, reason: str = "") -> bytes:
    return frame(Kind.CLOSE, bytes([code]) + reason.encode()[:REASON_BYTES_MAX])


def read_close(payload: bytes) -> tuple[int, str]:
    """Return code and reason; whatever code another version sends is no reason to stumble."""
    code = payload[0] if payload else CloseCode.REFUSED
    return code, payload[1:].decode(errors="replace")


def pong_frame(unix_ms: int) -> bytes:
    return frame(Kind.PONG, _MILLISECONDS.pack(min(unix_ms, UNIX_MS_MAX)))


def read_pong(payload: bytes) -> int:
    """Return the wall clock in a PONG, 0 for none; raise PeerFault for what is no time."""
    if not payload:
        return 0
    if len(payload) != _MILLISECONDS.size:
        raise PeerFault("malformed pong of the tracker")
    unix_ms = int(_MILLISECONDS.unpack(payload)[0])
    if unix_ms > UNIX_MS_MAX:
        raise PeerFault("a tracker beyond the end of time")
    return unix_ms


def retry_frame(after_s: float) -> bytes:
    return frame(Kind.RETRY, _DELAY.pack(min(round(after_s * 1000), (1 << 32) - 1)))


def read_retry(payload: bytes) -> float:
    """Return the seconds of a RETRY; raise PeerFault for a short one."""
    if len(payload) != _DELAY.size:
        raise PeerFault("malformed retry of the tracker")
    return float(_DELAY.unpack(payload)[0]) / 1000


class FrameReader:
    """Cuts bytes into frames, however they were cut on the way; what is too large is refused from
    its header. `limits` may be replaced between two calls of `feed`."""

    __slots__ = ("_magic", "_rest", "limits")

    def __init__(self, limits: Limits, magic: bytes = b"") -> None:
        self.limits = limits
        self._magic = magic
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are whole now; raise PeerFault for what is none of ours."""
        buffer = self._rest + data if self._rest else data
        at = 0
        if self._magic:
            begin = buffer[: len(self._magic)]
            if not self._magic.startswith(begin):
                raise PeerFault("not a p2pdist host")
            if len(begin) < len(self._magic):
                self._rest = buffer
                return []
            at, self._magic = len(begin), b""
        found: list[Frame] = []
        while len(buffer) - at >= _HEAD.size:
            length, kind = _HEAD.unpack_from(buffer, at)
            if length > self.limits.get(kind, -1):
                raise PeerFault(f"control frame of kind {kind} with {length} bytes")
            end = at + _HEAD.size + length
            if end > len(buffer):
                break
            found.append((kind, buffer[at + _HEAD.size : end]))
            at = end
        self._rest = buffer[at:]
        return found


class FrameCodec:
    """Packs and unpacks messages; may serve any number of connections of one event loop."""

    def __init__(self, features: int) -> None:
        self.compresses = bool(features & FEATURE_ZSTD)
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=FRAME_BYTES_MAX)

    def pack(self, payload: bytes) -> bytes:
        assert len(payload) <= FRAME_BYTES_MAX
        if not self.compresses:
            return payload
        if len(payload) >= COMPRESS_FROM_BYTES:
            packed = self._compressor.compress(payload)
            if len(packed) < len(payload):
                return bytes([_ZSTD]) + packed
        return bytes([_RAW]) + payload

    def unpack(self, packed: bytes) -> bytes:
        """Return the msgpack bytes; raise PeerFault for a message that is none of ours."""
        if not self.compresses:
            return packed
        if not packed or packed[0] not in (_RAW, _ZSTD):
            raise PeerFault("control frame of an unknown packing")
        return packed[1:] if packed[0] == _RAW else self._decompress(packed[1:])

    def _decompress(self, packed: bytes) -> bytes:
        try:
            # The library takes a size written into the frame for granted: look at it first.
            # -1 (not written) is none of ours either, `pack` always writes it.
            size_bytes = zstandard.frame_content_size(packed)
            if not 0 <= size_bytes <= FRAME_BYTES_MAX:
                raise PeerFault(f"control frame that unpacks to {size_bytes} bytes")
            return self._decompressor.decompress(packed, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise PeerFault(f"control frame that does not unpack: {error}") from None


def shared_codecs() -> dict[int, FrameCodec]:
    """One codec for each set of features, for all connections of one event loop."""
    return {features: FrameCodec(features) for features in (0, FEATURE_ZSTD)}


def parse_tracker_url(url: str) -> Address:
    """Read `tcp://host:port`; raise ValueError, with what to write, for anything else."""
    parts = urlsplit(url)
    if parts.scheme in ("ws", "wss"):
        raise ValueError(f"control is no WebSocket any more: write tcp://{parts.netloc}")
    port = parts.port  # raises ValueError itself beyond 65535
    rest = parts.path.rstrip("/") + parts.query + parts.fragment
    if parts.scheme != SCHEME or not parts.hostname or not port or rest or "@" in parts.netloc:
        raise ValueError(f"expected tcp://host:port, such as tcp://10.0.0.2:5200, not {url!r}")
    return Address(parts.hostname, port)
