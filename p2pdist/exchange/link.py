"""One connection to another node: frames both ways, chunks by sendfile, reading never pauses.

Own sockets with `add_reader` and `add_writer`, because `loop.sendfile` stops reading and forbids
writes meanwhile: two ends that both send 3 MiB deadlocked in a test.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from p2pdist.errors import PeerFault
from p2pdist.exchange.accepting import network_of
from p2pdist.exchange.buffers import BufferPool
from p2pdist.exchange.codec import Decoder, data_header, encode
from p2pdist.exchange.frames import (
    SLICE_BYTES_MAX,
    Data,
    Frame,
    Ping,
    Pong,
    Refuse,
    RefuseReason,
    Small,
)
from p2pdist.exchange.incoming import Incoming, Whole
from p2pdist.exchange.outgoing import BulkHold, OutgoingRun, OutgoingRuns
from p2pdist.exchange.sealing import Seal
from p2pdist.exchange.upload import Turn, Upload
from p2pdist.model.handshake import Session

log = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 256 * 1024
# Receives and slices per wake-up, so that one fast link does not starve the others.
TURNS_MAX: Final = 4
CONTROL_BYTES_MAX: Final = 8 << 20
"""Enough for the map of a 256 GiB blob; more unread control is a peer that does not read."""
RUNS_MAX: Final = 64
IDLE_PING_S: Final = 10.0
DEAD_S: Final = 30.0
IDLE: Final = "idle"
"""Why a link ended that neither end had a use for: nothing is wrong with the host."""
CLOSED_THERE: Final = "the other end closed"
FILE_ENDED: Final = "the file ended before its chunk"


class LinkHandler(Protocol):
    """Called on the event loop; must not block. What a call raises closes the link."""

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: str) -> None: ...

    def frame(self, link: Link, frame: Frame) -> None: ...

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None:
        """A whole expected chunk came in, unverified; `data` is the handler's now."""
        ...

    def small(self, link: Link, request_id: int, media_type: str, body: bytes) -> None: ...


class Link:
    """Made by the transport after the handshake."""

    def __init__(
        self,
        sock: socket.socket,
        session: Session,
        *,
        dialled: bool,
        handler: LinkHandler,
        buffer: bytearray,
        pool: BufferPool,
        upload: Upload | None = None,
        hold: BulkHold,
        seal: Seal | None = None,
        on_closed: Callable[[Link, str], None],
    ) -> None:
        self.session = session
        self.dialled = dialled
        self.closed = False
        self.payload_sent = 0
        self.payload_received = 0
        self.unsent_small_bytes = 0
        """Of bodies in memory that wait for the other end to read."""
        self.remote = _name_of(sock)
        self._sock = sock
        self._handler = handler
        self._buffer = memoryview(buffer)
        self._pool = pool
        self._upload = upload
        self._turn: Turn | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._seal = seal
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._decoder = Decoder()
        self._incoming = Incoming(pool)
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        self._pending: memoryview = memoryview(b"")
        self._runs = OutgoingRuns(hold, RUNS_MAX)
        self._slice_left = 0
        self._slicing: OutgoingRun | None = None
        self._writing = False
        self._watched = False  # the selector tells when the socket takes more
        self.heard_s = self._loop.time()
        """When something came last."""
        self._timer = self._loop.call_later(IDLE_PING_S, self._on_idle)

    def start(self) -> None:
        """Begin to read; nothing is delivered before this."""
        self._loop.add_reader(self._sock, self._on_readable)

    @property
    def sealed(self) -> bool:
        """Both ends have shown their certificates, and nobody in between can say a word."""
        return self._seal is not None

    @property
    def network(self) -> str:
        """Where the other end is; see `network_of`."""
        return network_of(self._sock)

    @property
    def sending(self) -> bool:
        """A run is on its way or waits for its turn."""
        return bool(self._runs)

    @property
    def busy(self) -> bool:
        """Something is on its way here, or there, or waits to go out."""
        return bool(self._runs or self._incoming or self._control or self._pending)

    async def wait_closed(self) -> None:
        await self._ended.wait()

    # --- sending --------------------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Queue a control frame; a peer that does not read its frames loses the link."""
        self.send_encoded(encode(frame))

    def send_encoded(self, data: bytes) -> None:
        """Like `send`, for a frame that goes to many: it is encoded once."""
        if self.closed:
            return
        self._control.append(data)
        self._control_bytes += len(data)
        if self._control_bytes > CONTROL_BYTES_MAX:
            self.close("does not read")
            return
        self._want_write()

    def send_run(
        self,
        request_id: int,
        source: int | bytes,
        chunks: Sequence[tuple[int, int, int]],
        done: Callable[[int], None],
        *,
        bulk: bool = False,
    ) -> None:
        """Send chunks, each (index, offset, length), in order, from an open file or from bytes.

        `done` is called once with the bytes that went out: at the end, after a cancel, or when the
        link is closed. `bulk`: after everything else that this node sends to anybody. Beyond
        `RUNS_MAX` outstanding runs of its kind the request is refused as busy.
        """
        if self.closed or self._runs.full(bulk=bulk):
            done(0)
            self.send(Refuse(request_id, RefuseReason.BUSY))  # type: ignore[arg-type]  # an int id
            return
        run = OutgoingRun(request_id, done, source, bulk=bulk, chunks=deque(chunks))
        self._runs.add(run)
        self._want_write()

    def send_small(
        self, request_id: int, media_type: str, body: bytes, done: Callable[[], None]
    ) -> None:
        """Answer a `GetSmall` with a whole body from memory.

        `done` is called once: when all of it went out, after a cancel, or when the link is closed.
        """
        self.send(Small(request_id, len(body), media_type))  # type: ignore[arg-type]  # an int id
        if not body or self.closed:
            done()
            return

        def over(_: int) -> None:
            self.unsent_small_bytes -= len(body)
            done()

        self.unsent_small_bytes += len(body)
        run = OutgoingRun(request_id, over, body, small=True)
        run.chunks.append((0, 0, len(body)))
        self._runs.add(run)
        self._want_write()

    def cancel_run(self, request_id: int) -> bool:
        """Stop sending a run; a slice on its way is finished. True if there was such a run."""
        run = self._runs.find(request_id)
        if run is None:
            return False
        run.cancelled = True
        if run is not self._slicing or not self._slice_left:
            run.chunks.clear()
        self._want_write()
        return True

    def _want_write(self) -> None:
        if not self._writing and not self.closed:
            self._writing = True
            self._loop.call_soon(self._write_at_once)

    def _write_at_once(self) -> None:
        """Most of what is said fits into the socket: it spares two changes of the selector, which
        cost as much as the rest where a thousand links are told something each."""
        if self._writing and not self._watched and not self.closed:
            self._on_writable()
        if self._writing and not self._watched and not self.closed:
            self._watched = True
            self._loop.add_writer(self._sock, self._on_writable)

    def _on_writable(self) -> None:
        try:
            for _ in range(TURNS_MAX):
                if not self._write_some():
                    return
        except BlockingIOError:
            return
        except OSError as error:
            self.close(f"write failed: {error}")

    def _write_some(self) -> bool:
        """Move one piece to the socket; False when there is nothing left to send."""
        if self._pending:
            flags = socket.MSG_MORE if self._slice_left else 0
            self._pending = self._pending[self._sock.send(self._pending, flags) :]
            return True
        if self._slicing is not None and self._slice_left:
            self._send_slice(self._slicing)
            return True
        if self._control:
            control = b"".join(self._control)
            self._pending = memoryview(self._seal.seal(control) if self._seal else control)
            self._control.clear()
            self._control_bytes = 0
            return True
        return self._next_slice()

    def _next_slice(self) -> bool:
        now_s = self._loop.time()
        self._slicing = None
        run = self._runs.next(now_s)
        if run is None:
            if self._turn is not None and self._turn.granted:
                self._leave_turn()  # else it is kept: who comes and goes has one place in the line
            self._stop_writing(self._runs.held_s(now_s))
            return False
        chunk, _, length = run.chunks[0]
        slice_bytes = self._allowed(min(SLICE_BYTES_MAX, length - run.offset))
        if not slice_bytes:
            self._stop_writing()
            return False
        self._runs.begin(run, now_s)
        self._slicing, self._slice_left = run, slice_bytes
        header = data_header(run.request_id, chunk, run.offset, self._slice_left)
        if self._seal is None:
            self._pending = memoryview(header)
        else:
            piece = self._read_slice(run)
            if not piece:
                self.close(FILE_ENDED)
                return False
            self._pending = memoryview(self._seal.seal(header + piece))
            self._sent(run, len(piece))
        return True

    def _allowed(self, slice_bytes: int) -> int:
        """How much of a slice may go now; 0: we are told when it is our turn."""
        if self._upload is None:
            return slice_bytes
        if self._turn is None:
            self._turn = self._upload.ask(slice_bytes, self._want_write)
            return 0 if self._turn is not None else slice_bytes
        if not self._turn.granted:
            return 0
        # Perhaps another run is the first one by now, with less or more left of its chunk.
        turn, self._turn = self._turn, None
        allowed = min(slice_bytes, turn.nbytes)
        self._upload.give_back(turn.nbytes - allowed)
        return allowed

    def _leave_turn(self) -> None:
        if self._turn is not None and self._upload is not None:
            self._upload.leave(self._turn)
            self._turn = None

    def _stop_writing(self, wait_s: float = 0.0) -> None:
        """Leave the socket alone; come back after `wait_s`, or when there is more to send (0)."""
        self._writing = False
        self._unwatch()
        if wait_s:
            if self._send_timer is not None:
                self._send_timer.cancel()
            self._send_timer = self._loop.call_later(wait_s, self._want_write)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_writer(self._sock)

    def _send_slice(self, run: OutgoingRun) -> None:
        _, start, _ = run.chunks[0]
        at = start + run.offset
        if isinstance(run.source, int):
            sent = os.sendfile(self._sock.fileno(), run.source, at, self._slice_left)
        else:
            sent = self._sock.send(memoryview(run.source)[at : at + self._slice_left])
        if sent == 0:
            self.close(FILE_ENDED)
            return
        self._sent(run, sent)

    def _read_slice(self, run: OutgoingRun) -> bytes:
        """The whole of the slice, to be sealed; empty: it is not there."""
        _, start, _ = run.chunks[0]
        at = start + run.offset
        if isinstance(run.source, bytes):
            return run.source[at : at + self._slice_left]
        piece = os.pread(run.source, self._slice_left, at)
        return piece if len(piece) == self._slice_left else b""

    def _sent(self, run: OutgoingRun, sent: int) -> None:
        _, _, length = run.chunks[0]
        run.offset += sent
        run.sent_bytes += sent
        self.payload_sent += sent
        self._slice_left -= sent
        if run.offset == length:
            run.offset = 0
            run.chunks.popleft()
        if run.cancelled and not self._slice_left:
            run.chunks.clear()

    # --- receiving ------------------------------------------------------------------------------

    def expect_chunks(self, request_id: int, chunks: Sequence[tuple[int, int]]) -> None:
        """Allow (index, length) chunks to come for `request_id`, in this order and no others."""
        self._incoming.expect_chunks(request_id, chunks)

    def expect_small(self, request_id: int) -> None:
        """Allow one small body to come for `request_id`."""
        self._incoming.expect_small(request_id)

    def give_back(self, data: bytearray) -> None:
        """Return the buffer of a chunk that was delivered and is not looked at any more."""
        self._pool.give(data)

    def forget(self, request_id: int) -> None:
        """Drop what still comes for a request that was cancelled or refused."""
        self._incoming.forget(request_id)

    def _on_readable(self) -> None:
        try:
            for _ in range(TURNS_MAX):
                if self.closed:
                    return
                nbytes = self._sock.recv_into(self._buffer)
                if nbytes == 0:
                    self.close(CLOSED_THERE)
                    return
                self.heard_s = self._loop.time()
                self._hear(self._buffer[:nbytes])
                if nbytes < len(self._buffer):
                    return
        except BlockingIOError:
            return
        except OSError as error:
            self.close(f"read failed: {error}")
        except PeerFault as fault:
            self.close(f"protocol: {fault}")
        except Exception:  # the top of a callback: one link must not take the loop down
            log.exception("link handler failed")
            self.close("internal error")

    def _hear(self, data: memoryview) -> None:
        for plain in (data,) if self._seal is None else self._seal.opened(data):
            for frame in self._decoder.feed(plain):
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        if self.closed:
            return  # by what an earlier frame of the same read led to
        match frame:
            case Data():
                self.payload_received += len(frame.payload)
                self._deliver(self._incoming.take(frame))
            case Small():
                self._deliver(self._incoming.take_small(frame))
            case Ping(nonce):
                self.send(Pong(nonce))
            case Pong():
                pass
            case Refuse(request_id):
                self.forget(request_id)
                self._handler.frame(self, frame)
            case _:
                self._handler.frame(self, frame)

    def _deliver(self, whole: Whole | None) -> None:
        if whole is None:
            return
        if whole.media_type is None:
            self._handler.chunk(self, whole.request_id, whole.chunk, whole.data)
        else:
            self._handler.small(self, whole.request_id, whole.media_type, bytes(whole.data))

    # --- the end --------------------------------------------------------------------------------

    def _on_idle(self) -> None:
        silent_s = self._loop.time() - self.heard_s
        if silent_s > DEAD_S:
            self.close("silent")
            return
        if silent_s >= IDLE_PING_S:
            self.send(Ping(0))
        self._timer = self._loop.call_later(IDLE_PING_S, self._on_idle)

    def close(self, reason: str) -> None:
        """End the link; what was on its way both ways is over. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        self._timer.cancel()
        if self._send_timer is not None:
            self._send_timer.cancel()
        self._loop.remove_reader(self._sock)
        self._unwatch()
        self._leave_turn()
        self._sock.close()
        self._runs.end()
        self._incoming.clear()
        self._ended.set()
        # Not at once: the caller may be in the middle of a loop over its links.
        self._loop.call_soon(self._on_closed, self, reason)


def _name_of(sock: socket.socket) -> str:
    try:
        host, port, *_ = sock.getpeername()
    except OSError:
        return "?"
    return f"{host}:{port}"
