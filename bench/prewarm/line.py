"""A host's end of a control connection in one `asyncio.Protocol`: no task, no session, no queue.

Ten thousand of them share a core with nothing but the benchmark itself. The handshake, the packing
and the messages are the product's; only the WebSocket below is written out here, as aiohttp's
client costs about ten times the CPU of a frame and 60 KB a connection. It speaks as much of
RFC 6455 as the tracker's end does: whole binary frames below 1 MiB, pings, close.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import Callable
from typing import Final, Protocol, cast

import msgspec

from p2pdist.errors import PeerFault
from p2pdist.model.control import FromTracker, ToTracker, encoder, from_tracker_decoder
from p2pdist.model.handshake import PROOF_BYTES, ClientHandshake
from p2pdist.model.members import Member
from p2pdist.runtime.control_socket import FEATURES, MESSAGE_BYTES_MAX, FrameCodec

_BINARY: Final = 0x82  # with FIN, as the codes below
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A
_MASKED: Final = 0x80
# Clients must mask; what is masked with zeros stays as it is. Masks keep intermediaries from
# taking payload for HTTP, and there are none here.
_MASK: Final = bytes(4)
_HEAD_BYTES_MAX: Final = 8192
_UPGRADE: Final = (
    "GET /control HTTP/1.1\r\nHost: tracker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
    "\r\n"
).encode()


class LineUser(Protocol):
    """What a host does with its line; called on the event loop."""

    member: Member

    def line_up(self, line: ControlLine) -> None:
        """The handshake is done; the tracker's welcome is the first message."""
        ...

    def take(self, message: FromTracker) -> None: ...

    def line_lost(self, line: ControlLine, why: str) -> None:
        """It ended; called once a line that was connected at all."""
        ...


class ControlLine(asyncio.Protocol):
    """One connection; for `loop.create_connection`. `codecs`: by negotiated features, shared."""

    def __init__(self, user: LineUser, secret: bytes, codecs: dict[int, FrameCodec]) -> None:
        self._user = user
        self._secret = secret
        self._codecs = codecs
        self._buffer = b""
        self._next: Callable[[bytes], None] = self._take_answer
        self._upgraded = False
        self._why = ""
        self._transport: asyncio.Transport
        self._handshake: ClientHandshake
        self._codec: FrameCodec

    def send(self, message: ToTracker) -> None:
        if not self._transport.is_closing():
            self._write(_BINARY, self._codec.pack(encoder.encode(message)))

    def abort(self) -> None:
        """Vanish without a goodbye."""
        self._give_up("hung up")

    # --- called by the loop ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's class is one by its methods only.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_UPGRADE)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            if not self._upgraded and not self._take_head():
                return
            while self._take_frame():
                pass
        except (PeerFault, msgspec.DecodeError) as error:
            self._give_up(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._user.line_lost(self, self._why or str(exc or "connection closed"))

    # --- the parts of a connection --------------------------------------------------------------

    def _take_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            if len(head) > _HEAD_BYTES_MAX:
                raise PeerFault("an answer without an end")
            return False
        if not head.startswith(b"HTTP/1.1 101 "):
            raise PeerFault("the tracker takes nobody in just now")
        self._upgraded, self._buffer = True, rest
        self._handshake = ClientHandshake(self._secret, self._user.member, os.urandom, FEATURES)
        self._write(_BINARY, self._handshake.hello)
        return True

    def _take_answer(self, answer: bytes) -> None:
        proof, session = self._handshake.finish(answer[PROOF_BYTES:], answer[:PROOF_BYTES])
        self._write(_BINARY, proof)
        self._codec = self._codecs[session.features]
        self._next = self._take_message
        self._user.line_up(self)

    def _take_message(self, frame: bytes) -> None:
        self._user.take(from_tracker_decoder.decode(self._codec.unpack(frame)))

    def _take_frame(self) -> bool:
        """Take one whole frame off the buffer; return whether there was one."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        code, length = buffer[0], buffer[1]
        start = 2
        if length >= 126:
            form, start = ("!H", 4) if length == 126 else ("!Q", 10)
            if len(buffer) < start:
                return False
            (length,) = struct.unpack_from(form, buffer, 2)
        if length > MESSAGE_BYTES_MAX:
            raise PeerFault("a frame beyond every limit")
        if len(buffer) < start + length:
            return False
        payload, self._buffer = buffer[start : start + length], buffer[start + length :]
        self._dispatch(code, payload)
        return True

    def _dispatch(self, code: int, payload: bytes) -> None:
        if code == _BINARY:
            self._next(payload)
        elif code == _PING:
            self._write(_PONG, payload)
        elif code == _CLOSE:
            self._give_up(f"closed by the tracker: {payload[2:].decode(errors='replace')}")
        elif code != _PONG:
            raise PeerFault(f"a frame of code {code:#x}")

    def _give_up(self, why: str) -> None:
        self._why = self._why or why
        self._transport.abort()

    def _write(self, code: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            head = bytes((code, _MASKED | length))
        elif length < 1 << 16:
            head = struct.pack("!BBH", code, _MASKED | 126, length)
        else:
            head = struct.pack("!BBQ", code, _MASKED | 127, length)
        self._transport.write(head + _MASK + payload)
