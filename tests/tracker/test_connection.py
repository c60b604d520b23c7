from __future__ import annotations

import asyncio

from aiohttp import web

from p2pdist.runtime.control_socket import FrameCodec
from p2pdist.tracker.connection import QUEUE_BYTES_MAX, Connection
from tests.tracker.hosts import member


class FakeTransport(asyncio.Transport):
    aborts = 0

    def abort(self) -> None:
        self.aborts += 1


class FakeSocket(web.WebSocketResponse):
    """Remembers what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes | tuple[int, bytes]] = []

    async def send_bytes(self, data: bytes, compress: int | None = None) -> None:
        self.sent.append(data)

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        self.sent.append((code, message))
        return True


def connection(socket: FakeSocket, transport: FakeTransport) -> Connection:
    return Connection(1, member(1), socket, transport, FrameCodec(0))


async def test_a_host_that_lets_the_queue_fill_is_cut_off() -> None:
    transport = FakeTransport()
    line = connection(FakeSocket(), transport)

    line.send(bytes(QUEUE_BYTES_MAX))
    assert transport.aborts == 0
    line.send(b"x")

    assert transport.aborts == 1
    assert line.closing


async def test_what_is_queued_goes_out_before_the_close() -> None:
    socket = FakeSocket()
    line = connection(socket, FakeTransport())
    line.send(b"one")
    line.send(b"two")
    line.close("no heartbeat", 1008)
    line.send(b"too late")

    await line.write_frames()

    assert socket.sent == [b"one", b"two", (1008, b"no heartbeat")]


async def test_a_long_reason_fits_into_a_close_frame() -> None:
    socket = FakeSocket()
    line = connection(socket, FakeTransport())
    line.close("x" * 500, 1008)

    await line.write_frames()

    assert socket.sent == [(1008, b"x" * 123)]
