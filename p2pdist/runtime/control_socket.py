"""What both ends of a control connection share: the handshake's messages and the frames after it.

The handshake takes three binary WebSocket messages: the client's hello; the server's proof (32
bytes) with its hello behind; the client's proof. Then every binary message is one frame: msgpack
as it is or, where both ends set `FEATURE_ZSTD`, behind one byte that says raw (0) or zstd (1).
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import zstandard
from aiohttp import WSMessage, WSMsgType

from p2pdist.errors import PeerFault
from p2pdist.model.control import FRAME_BYTES_MAX
from p2pdist.model.handshake import PROOF_BYTES, ClientHandshake, ServerHandshake, Session

FEATURE_ZSTD: Final = 1 << 0
FEATURES: Final = FEATURE_ZSTD
HANDSHAKE_S: Final = 5.0
# One byte tells how the frame is packed; aiohttp refuses a message of the limit itself.
MESSAGE_BYTES_MAX: Final = FRAME_BYTES_MAX + 2
# Below about one packet there is nothing to win.
COMPRESS_FROM_BYTES: Final = 1024

_RAW: Final = 0
_ZSTD: Final = 1


class Socket(Protocol):
    """The part of aiohttp's two WebSocket classes that the handshake needs."""

    async def receive(self) -> WSMessage: ...

    async def send_bytes(self, data: bytes) -> None: ...


class FrameCodec:
    """Packs and unpacks frames; may serve any number of connections of one event loop."""

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

    def unpack(self, frame: bytes) -> bytes:
        """Return the msgpack bytes; raise PeerFault for a frame that is none of ours."""
        if not self.compresses:
            return frame
        if not frame or frame[0] not in (_RAW, _ZSTD):
            raise PeerFault("control frame of an unknown packing")
        return frame[1:] if frame[0] == _RAW else self._decompress(frame[1:])

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


async def shake_as_client(socket: Socket, handshake: ClientHandshake) -> Session:
    """Raise PeerFault where the server is not one of ours, TimeoutError where it is too slow."""
    async with asyncio.timeout(HANDSHAKE_S):
        await socket.send_bytes(handshake.hello)
        answer = await _receive_binary(socket)
        proof, session = handshake.finish(answer[PROOF_BYTES:], answer[:PROOF_BYTES])
        await socket.send_bytes(proof)
    return session


async def shake_as_server(socket: Socket, handshake: ServerHandshake) -> Session:
    """Raise PeerFault where the client is not one of ours, TimeoutError where it is too slow."""
    async with asyncio.timeout(HANDSHAKE_S):
        hello, proof = handshake.answer(await _receive_binary(socket))
        await socket.send_bytes(proof + hello)
        return handshake.finish(await _receive_binary(socket))


async def _receive_binary(socket: Socket) -> bytes:
    message = await socket.receive()
    if message.type is not WSMsgType.BINARY:
        raise PeerFault(f"the handshake ended with {message.type.name}")
    data: bytes = message.data
    return data
