"""A host's end of a control connection: one `asyncio.Protocol`, no task and no queue of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast

import msgspec

from p2pdist.control.older_trackers import without_private
from p2pdist.errors import PeerFault, WrongSecret
from p2pdist.model.cluster_secrets import ClusterSecrets
from p2pdist.model.control import FromTracker, ToTracker, encoder, from_tracker_decoder
from p2pdist.model.control_wire import (
    FEATURE_PRIVATE,
    FEATURE_ZSTD,
    FEATURES,
    MAGIC,
    SERVER_HANDSHAKE,
    SESSION,
    CloseCode,
    FrameCodec,
    FrameReader,
    Kind,
    close_frame,
    frame,
    read_close,
    read_pong,
    read_retry,
)
from p2pdist.model.handshake import NO_PROOF, PROOF_BYTES, ClientHandshake, Session
from p2pdist.model.members import Member, Role
from p2pdist.process.tls import CERTIFICATE, TlsRefused

# An inventory of 100,000 blobs is 8 MB: a tracker that lets more pile up takes nothing in.
WRITE_BYTES_MAX: Final = 16 << 20
# The tracker's machine is gone without a word: the kernel says so, however busy the tracker is.
USER_TIMEOUT_MS: Final = 15_000


@dataclass(frozen=True, slots=True)
class ClockHeard:
    """The wall clock that the other end told between two moments of our `time.monotonic()`."""

    unix_ms: int
    asked_s: float
    answered_s: float


class LineUser(Protocol):
    """What a host does with its line; called on the event loop, must not block."""

    def line_up(self, line: ControlLine, session: Session) -> None:
        """The handshake is done; the tracker's welcome is the first message."""
        ...

    def take(self, line: ControlLine, message: FromTracker) -> None: ...

    def line_lost(self, line: ControlLine, why: str) -> None:
        """It ended; called once for every line that was connected at all."""
        ...


class ControlLine(asyncio.Protocol):
    """One connection; for `loop.create_connection`. `codecs`: by negotiated features, shared."""

    __slots__ = (
        "_against",
        "_asked_s",
        "_codec",
        "_codecs",
        "_drained",
        "_handshake",
        "_heard",
        "_private",
        "_proves",
        "_reader",
        "_transport",
        "_user",
        "_why",
        "clock",
        "id_in_use",
        "identity_refused",
        "mark",
        "on_clock",
        "on_heard",
        "retry_after_s",
        "wrong_secret",
    )

    def __init__(
        self,
        user: LineUser,
        secret: ClusterSecrets,
        me: Member,
        codecs: Mapping[int, FrameCodec],
        *,
        unix_ms: int = 0,
        instance: bytes = b"",
        proves: bool = True,
        against: Callable[[bytes, Member], str] = lambda der, member: "nobody looks at it",
    ) -> None:
        """`unix_ms`: what to tell the tracker of this host's clock; 0: nothing. `instance`: of this
        process, see `clones`; empty: none. `proves`: without it the tracker gets no proof of ours,
        and takes no host in. `against`: why the tracker's certificate (DER), in TLS, is not for
        that member; empty: it is."""
        self.retry_after_s: float | None = None
        """The delay that the tracker named in place of an answer."""
        self.wrong_secret = False
        """The tracker does not know our cluster secret."""
        self.id_in_use = ""
        """What the tracker says of another host with our id, which is connected."""
        self.mark = b""
        """Of the secret that both ends have proved, once they have."""
        self.identity_refused = ""
        """Why one end does not believe the other one's certificate, or asks for one."""
        self.clock: ClockHeard | None = None
        """What the tracker told last of its wall clock."""
        self.on_clock: Callable[[ClockHeard], None] = lambda _: None
        self.on_heard: Callable[[], None] = lambda: None
        """Something came, for the first time since a ping."""
        self._heard = False
        self._private = False
        self._user = user
        self._proves = proves
        self._against = against
        self._codecs = codecs
        self._handshake: ClientHandshake | None = ClientHandshake(
            secret, me, os.urandom, FEATURES, unix_ms, instance
        )
        self._asked_s = 0.0
        self._reader = FrameReader(SERVER_HANDSHAKE)
        self._drained: asyncio.Future[None] | None = None
        self._why = ""
        self._transport: asyncio.Transport
        self._codec: FrameCodec

    # --- for the host ---------------------------------------------------------------------------

    def send(self, message: ToTracker) -> None:
        """Write a message; never waits. On a line that has ended it does nothing."""
        if self._transport.is_closing():
            return
        told = message if self._private else without_private(message)
        if told is not None:
            self._write(frame(Kind.MESSAGE, self._codec.pack(encoder.encode(told))))

    def ping(self) -> None:
        if not self._transport.is_closing():
            self._heard = False
            self._asked_s = time.monotonic()
            self._write(frame(Kind.PING))

    async def drained(self) -> None:
        """Return once most of what was written has left."""
        if self._drained is not None:
            await self._drained

    def hang_up(self, code: CloseCode) -> None:
        """Say goodbye behind what was written; the end of it is not waited for."""
        if not self._transport.is_closing():
            self._transport.write(close_frame(code))
            self._transport.close()

    def abort(self, why: str = "hung up") -> None:
        """End it without a word."""
        self._why = self._why or why
        self._transport.abort()

    # --- called by the loop ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's class is one by its methods only.
        self._transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        assert self._handshake is not None
        self._asked_s = time.monotonic()
        self._transport.write(MAGIC + frame(Kind.HELLO, self._handshake.hello))

    def data_received(self, data: bytes) -> None:
        if not self._heard:
            self._heard = True
            self.on_heard()
        try:
            for kind, payload in self._reader.feed(data):
                self._take(kind, payload)
        except WrongSecret as error:
            self.wrong_secret, self._why = True, str(error)
            self._transport.write(frame(Kind.PROOF, NO_PROOF))
            self._transport.close()
        except (PeerFault, msgspec.DecodeError) as error:
            self.abort(str(error))

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        if isinstance(exc, TlsRefused):
            self.identity_refused = str(exc)
        self._user.line_lost(self, self._why or str(exc or "connection closed"))

    # --- the parts of a connection --------------------------------------------------------------

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == Kind.MESSAGE:
            message: FromTracker = from_tracker_decoder.decode(self._codec.unpack(payload))
            self._user.take(self, message)
        elif kind == Kind.ANSWER:
            self._finish(payload)
        elif kind == Kind.RETRY:
            self.retry_after_s = read_retry(payload)
            self.abort(f"told to come back in {self.retry_after_s:.1f} s")
        elif kind == Kind.CLOSE:
            self._closed(*read_close(payload))
        elif kind == Kind.PING:
            self._write(frame(Kind.PONG))
        elif kind == Kind.PONG:
            self._hear_clock(read_pong(payload))

    def _closed(self, code: int, reason: str) -> None:
        if code == CloseCode.ID_IN_USE and self._handshake is None:  # behind the tracker's proof
            self.id_in_use = reason
        elif code == CloseCode.IDENTITY:
            self.identity_refused = reason
        self.abort(f"closed by the tracker: {reason}")

    def _hear_clock(self, unix_ms: int) -> None:
        self.clock = ClockHeard(unix_ms, self._asked_s, time.monotonic())
        self.on_clock(self.clock)

    def _finish(self, answer: bytes) -> None:
        handshake, self._handshake = self._handshake, None
        if handshake is None:
            raise PeerFault("a second answer")
        proof, session = handshake.finish(answer[PROOF_BYTES:], answer[:PROOF_BYTES])
        self.mark = session.mark
        self._check_identity(session.member)
        if self._proves:
            self._write(frame(Kind.PROOF, proof))
        self._hear_clock(session.unix_ms)
        self._reader.limits = SESSION
        self._codec = self._codecs[session.features & FEATURE_ZSTD]
        self._private = bool(session.features & FEATURE_PRIVATE)
        self._user.line_up(self, session)

    def _check_identity(self, tracker: Member) -> None:
        """Who spoke TLS is the tracker that its hello names: the secret alone all hosts know."""
        der: bytes | None = self._transport.get_extra_info(CERTIFICATE)
        if der is None:
            return
        why = self._against(der, tracker)
        if not why and tracker.role is not Role.TRACKER:
            why = f"the certificate is for a {tracker.role.value}, not for a tracker"
        if why:
            self.identity_refused = why
            raise PeerFault(why)

    def _write(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > WRITE_BYTES_MAX:
            self.abort("the tracker takes nothing in")
        else:
            self._transport.write(data)
