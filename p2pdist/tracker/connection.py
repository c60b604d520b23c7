"""The tracker's end of a control connection: cuts bytes into frames, writes frames, no rule."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, cast

from p2pdist.errors import PeerFault
from p2pdist.model.control_wire import (
    CLIENT_HANDSHAKE,
    MAGIC,
    CloseCode,
    FrameCodec,
    FrameReader,
    Kind,
    close_frame,
    frame,
)
from p2pdist.model.handshake import ServerHandshake
from p2pdist.model.members import Member
from p2pdist.process.tls import CERTIFICATE, TlsRefused

# A handout is about 2 KB, all revocations that are kept about 750 KB: a host that lets 4 MiB
# pile up reads no more. Full: the connection is cut, the host comes back and announces anew.
QUEUE_BYTES_MAX: Final = 4 << 20
# What is still sent to a host before the word that this is the end: what one turn may have written.
CLOSE_BEHIND_MAX: Final = 64 << 10
# What may wait to be taken in, beside one frame; full: no more is read.
UNREAD_BYTES_MAX: Final = 4096
# A hello, a proof, and a goodbye.
HANDSHAKE_FRAMES_MAX: Final = 3


class Taker(Protocol):
    """Who takes in what comes on a connection; called on the event loop."""

    def opened(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, kind: int, payload: bytes) -> None: ...

    def faulted(self, connection: Connection, error: PeerFault) -> None:
        """What came is no control connection, or none any more."""
        ...

    def ended(self, connection: Connection, why: str) -> None:
        """Called once; nothing is received after it. `why`: where TLS came to nothing."""
        ...


class Connection(asyncio.Protocol):
    """One host's connection; `link` is its number, never used twice.

    There are tens of thousands: no task, no timer, no queue of its own, and no bytes kept while
    nothing is under way.
    """

    __slots__ = (
        "_taker",
        "_transport",
        "_unread_bytes",
        "closing",
        "codec",
        "features",
        "handshake",
        "instance",
        "leaving",
        "link",
        "mark",
        "member",
        "reader",
        "refused",
    )

    def __init__(self, taker: Taker, link: int, handshake: ServerHandshake) -> None:
        self.link = link
        self.handshake: ServerHandshake | None = handshake
        """Until it is done; what follows down to `codec` is there from then on."""
        self.member: Member
        self.instance: bytes
        self.mark: bytes
        """Of the secret that the host has proved."""
        self.features: int
        self.codec: FrameCodec
        self.refused = ""
        """What it is told of addresses that it announced and did not prove."""
        self.closing = False
        """We ended it: nothing is sent or taken in any more."""
        self.leaving = False
        """The host said goodbye."""
        self._taker = taker
        self.reader = FrameReader(CLIENT_HANDSHAKE, MAGIC)
        self._transport: asyncio.Transport
        self._unread_bytes = 0

    @property
    def peername(self) -> Any:
        """Of the socket; None where it had gone before it was accepted."""
        return self._transport.get_extra_info("peername")

    @property
    def sockname(self) -> Any:
        """Where it came to, like `peername`."""
        return self._transport.get_extra_info("sockname")

    @property
    def peer(self) -> str:
        name = self.peername
        return str(name[0]) if name else ""

    @property
    def certificate(self) -> bytes | None:
        """The host's certificate in DER, of a CA of ours; None for a connection in clear."""
        der: bytes | None = self._transport.get_extra_info(CERTIFICATE)
        return der

    # --- sending --------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Write a packed message; never waits."""
        self.write(frame(Kind.MESSAGE, message))

    def write(self, data: bytes) -> None:
        """Write a whole frame; never waits."""
        if self.closing or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() + len(data) > QUEUE_BYTES_MAX:
            self.abort()
        else:
            self._transport.write(data)

    def close(self, reason: str, code: CloseCode = CloseCode.REFUSED) -> None:
        """Say why and close, behind what was written; never waits.

        A host that does not read is cut off: it would hold what waits for it as long as it likes.
        """
        if self.closing:
            return
        self.closing = True
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > CLOSE_BEHIND_MAX:
            self._transport.abort()
        else:
            self._transport.write(close_frame(code, reason))
            self._transport.close()

    def abort(self) -> None:
        self.closing = True
        self._transport.abort()

    # --- taking in ------------------------------------------------------------------------------

    def taken(self, nbytes: int) -> None:
        """What was `received` has been dealt with: make room for more."""
        was_full = self._unread_bytes > UNREAD_BYTES_MAX
        self._unread_bytes -= nbytes
        if was_full and self._unread_bytes <= UNREAD_BYTES_MAX and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's class is one by its methods only.
        self._transport = cast(asyncio.Transport, transport)
        self._taker.opened(self)

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        try:
            frames = self.reader.feed(data)
            if self.handshake is not None and len(frames) > HANDSHAKE_FRAMES_MAX:
                raise PeerFault("more than a handshake before the welcome")
        except PeerFault as error:
            self._taker.faulted(self, error)
            return
        was_full = self._unread_bytes > UNREAD_BYTES_MAX
        for kind, payload in frames:
            self._unread_bytes += cost_bytes(payload)
            self._taker.received(self, kind, payload)
        full = self._unread_bytes > UNREAD_BYTES_MAX
        if full and not was_full and not self._transport.is_closing():
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        # What came before is still to be taken in: a host says goodbye and closes.
        self._taker.ended(self, str(exc) if isinstance(exc, TlsRefused) else "")


def cost_bytes(payload: bytes) -> int:
    """What a frame that waits counts for: an empty one is not for nothing."""
    return 64 + len(payload)
