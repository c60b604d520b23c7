"""The sending half of one control connection: a bounded queue and its writer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from aiohttp import WSCloseCode, web

from p2pdist.model.members import Member
from p2pdist.runtime.control_socket import FrameCodec

# A handout is about 2 KB, all revocations that are kept about 750 KB: a host that lets 4 MiB
# pile up reads no more. Full: the connection is cut, the host comes back and announces anew.
QUEUE_BYTES_MAX: Final = 4 << 20
CLOSE_S: Final = 1.0


class Connection:
    """One host's WebSocket; `link` is its number, never used twice."""

    def __init__(
        self,
        link: int,
        member: Member,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        codec: FrameCodec,
    ) -> None:
        self.link = link
        self.member = member
        self.socket = socket
        self.codec = codec
        self.closing = False
        self._transport = transport
        self._frames: deque[bytes] = deque()
        self._queued_bytes = 0
        self._close: tuple[int, str] | None = None
        self._wake = asyncio.Event()

    @property
    def finishing(self) -> bool:
        """The writer is about to close the connection, or did."""
        return self._close is not None

    def send(self, frame: bytes) -> None:
        """Queue a packed frame; never waits."""
        if self.closing:
            return
        if self._queued_bytes + len(frame) > QUEUE_BYTES_MAX:
            self.closing = True
            self._transport.abort()
            return
        self._frames.append(frame)
        self._queued_bytes += len(frame)
        self._wake.set()

    def close(self, reason: str, code: int = WSCloseCode.POLICY_VIOLATION) -> None:
        """Say why and close, behind what is queued; never waits."""
        if not self.closing:
            self.closing = True
            self._close = (code, reason)
            self._wake.set()

    async def write_frames(self) -> None:
        """Send what is queued, until `close` was called and carried out."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            close = self._close
            if close is not None:
                await self._finish(*close)
                return
            while self._frames:
                frame = self._frames.popleft()
                await self.socket.send_bytes(frame)
                self._queued_bytes -= len(frame)

    async def _finish(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                while self._frames:
                    await self.socket.send_bytes(self._frames.popleft())
                # RFC 6455, 5.5: a control frame carries at most 125 bytes, two are the code.
                await self.socket.close(code=code, message=reason.encode()[:123])
        except TimeoutError:
            self._transport.abort()
