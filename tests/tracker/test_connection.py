from __future__ import annotations

import asyncio

import pytest

from p2pdist.errors import PeerFault
from p2pdist.model.control_wire import MAGIC, CloseCode, Kind, close_frame, frame
from p2pdist.model.handshake import ServerHandshake
from p2pdist.tracker.connection import (
    CLOSE_BEHIND_MAX,
    QUEUE_BYTES_MAX,
    UNREAD_BYTES_MAX,
    Connection,
    cost_bytes,
)
from tests.fakes.secrets import only
from tests.tracker.servers import SECRET, TRACKER


class FakeTransport(asyncio.Transport):
    """Takes nothing off its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.aborts = 0
        self.reading = True
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True
        self.aborts += 1

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class FakeTaker:
    """Remembers what it is handed."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.faults: list[str] = []

    def opened(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, kind: int, payload: bytes) -> None:
        self.frames.append((kind, payload))

    def faulted(self, connection: Connection, error: PeerFault) -> None:
        self.faults.append(str(error))

    def ended(self, connection: Connection, why: str) -> None: ...


@pytest.fixture
def taker() -> FakeTaker:
    return FakeTaker()


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def line(taker: FakeTaker, transport: FakeTransport) -> Connection:
    line = Connection(taker, 1, ServerHandshake(only(SECRET), TRACKER, bytes))
    line.connection_made(transport)
    return line


def test_a_host_that_lets_the_queue_fill_is_cut_off(
    line: Connection, transport: FakeTransport
) -> None:
    line.write(bytes(QUEUE_BYTES_MAX))
    assert transport.aborts == 0
    line.write(b"x")

    assert transport.aborts == 1
    assert line.closing


def test_what_was_written_goes_out_before_the_close(
    line: Connection, transport: FakeTransport
) -> None:
    line.send(b"one")
    line.close("no heartbeat")
    line.send(b"too late")

    goodbye = close_frame(CloseCode.REFUSED, "no heartbeat")
    assert transport.sent == frame(Kind.MESSAGE, b"one") + goodbye
    assert transport.closed


def test_a_host_that_reads_nothing_is_told_nothing_more(
    line: Connection, transport: FakeTransport
) -> None:
    line.write(bytes(CLOSE_BEHIND_MAX + 1))
    line.close("no heartbeat")

    assert transport.aborts == 1


def test_no_more_is_read_than_is_taken_in(
    line: Connection, taker: FakeTaker, transport: FakeTransport
) -> None:
    hello = bytes(UNREAD_BYTES_MAX)

    line.data_received(MAGIC + frame(Kind.HELLO, hello))
    paused = not transport.reading
    line.taken(cost_bytes(hello))

    assert taker.frames == [(Kind.HELLO, hello)]
    assert paused
    assert transport.reading


def test_more_than_a_handshake_before_the_welcome_is_a_fault(
    line: Connection, taker: FakeTaker
) -> None:
    line.data_received(MAGIC + 4 * frame(Kind.PROOF))

    assert taker.frames == []
    assert taker.faults == ["more than a handshake before the welcome"]
