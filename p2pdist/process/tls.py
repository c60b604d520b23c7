"""TLS between a transport and a protocol of ours, over memory buffers.

Not asyncio's own: that one keeps 256 KiB for each connection, of which a tracker has tens of
thousands, drops the alert that tells the other end why it is refused, and cannot share a port.

Both ends may find that the other one speaks no TLS, from its first byte: a server then serves it
as it did before there was TLS; a client says nothing, and hears what it was told in clear.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from p2pdist.exchange.tls_refusal import refusal_text

_RECORD_BYTES: Final = 16 << 10
# The first byte of a TLS record, RFC 8446, section 5.1: alert, handshake.
_ALERT: Final = 0x15
TLS_HANDSHAKE: Final = 0x16
CERTIFICATE: Final = "p2pdist_certificate"
"""The extra information that is the other end's certificate, in DER."""


class TlsRefused(OSError):
    """The handshake came to nothing; the text says why."""


class _State(enum.Enum):
    OPEN = enum.auto()
    """Nothing came yet."""
    SHAKING = enum.auto()
    UP = enum.auto()
    CLEAR = enum.auto()
    """The other end speaks no TLS."""
    ENDED = enum.auto()


class TlsTransport(asyncio.Protocol, asyncio.Transport):
    """The protocol of a real transport and the transport of `inner`, without a task or a timer.

    `inner` is told of the connection before the handshake, so that its deadlines hold for that as
    well; its `connection_lost` gets TlsRefused where the handshake failed. What a client writes
    before the handshake is done goes out right behind it.
    """

    __slots__ = ("_context", "_failure", "_incoming", "_inner", "_later", "_outgoing", "_pending",
                 "_raw", "_state", "_tls", "certificate", "in_clear", "server_side")  # fmt: skip

    def __init__(
        self,
        inner: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        later: Callable[[TlsTransport], None] | None = None,
    ) -> None:
        """`later` is to have `go_on` called for each step of the handshake, of half a millisecond:
        a thousand of them in one turn of the loop are half a second. None: it is done at once."""
        self.certificate = b""
        """The other end's, in DER, once the handshake is done."""
        self.in_clear = False
        """The other end turned out to speak no TLS."""
        self.server_side = server_side
        self._inner: asyncio.Protocol | None = inner
        self._context = context
        self._incoming: ssl.MemoryBIO
        self._outgoing: ssl.MemoryBIO
        self._tls: ssl.SSLObject | None = None
        """There once TLS has begun, as are the buffers; None again at the end."""
        self._later = later
        self._pending = b""
        self._state = _State.OPEN
        self._failure: TlsRefused | None = None
        self._raw: asyncio.Transport

    # --- called by the real transport -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's class is one by its methods only.
        self._raw = cast(asyncio.Transport, transport)
        assert self._inner is not None
        self._inner.connection_made(self)
        if not self.server_side and not self._raw.is_closing():
            self._begin()
            self._shake()

    def data_received(self, data: bytes) -> None:
        if self._state is _State.OPEN:
            self._hear_first(data[0])
        if self._state is _State.CLEAR:
            self._hand_on(data)
            return
        if self._state is _State.ENDED:
            return
        self._incoming.write(data)
        if self._state is _State.SHAKING and self._later is not None:
            self._raw.pause_reading()  # what waits here is what came at once, and no more
            self._later(self)
        else:
            self.go_on()

    def go_on(self) -> bool:
        """Take in what came, unless it has ended meanwhile; False, as there is no more to do."""
        if self._state is _State.SHAKING:
            if self._later is not None and not self._raw.is_closing():
                self._raw.resume_reading()
            self._shake()
        if self._state is _State.UP:
            self._read()
        return False

    def eof_received(self) -> bool:
        return False  # what was to be told has its own end

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _State.ENDED
        inner, self._inner, self._tls = self._inner, None, None
        if inner is not None:
            inner.connection_lost(self._failure or exc)

    # --- called by the protocol -----------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._state is _State.UP:
            self._encrypt(data)
            self._flush()
        elif self._state is _State.CLEAR:
            self._raw.write(data)
        elif self._state is not _State.ENDED and not self.server_side:
            self._pending += data
        # A server has nothing to say to whom it does not know.

    def close(self) -> None:
        if self._state is _State.UP and self._tls is not None:
            self._state = _State.ENDED
            with contextlib.suppress(ssl.SSLError):  # it waits for the other end's word: we do not
                self._tls.unwrap()
            self._flush()
        self._raw.close()

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size() + len(self._pending)

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == CERTIFICATE:
            return self.certificate or default
        if name == "sslcontext" and not self.in_clear:
            return self._context
        return self._raw.get_extra_info(name, default)

    # --- TLS ------------------------------------------------------------------------------------

    def _hear_first(self, first: int) -> None:
        """Go on with TLS or in clear; what a client has to say stays unsaid: it asked for TLS."""
        if first == TLS_HANDSHAKE or (first == _ALERT and not self.server_side):
            self._state = _State.SHAKING
            if self.server_side:
                self._begin()
        else:
            self._state, self.in_clear = _State.CLEAR, True
            self._tls, self._pending = None, b""

    def _begin(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._context.wrap_bio(
            self._incoming, self._outgoing, server_side=self.server_side
        )

    def _hand_on(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def _shake(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._state = _State.UP
        self.certificate = self._tls.getpeercert(binary_form=True) or b""
        pending, self._pending = self._pending, b""
        self._encrypt(pending)
        self._flush()

    def _read(self) -> None:
        assert self._tls is not None
        parts, ended = [], False
        try:
            while part := self._tls.read(_RECORD_BYTES):
                parts.append(part)
            ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()
        if parts:
            self._hand_on(b"".join(parts))
        if ended:
            self.close()

    def _encrypt(self, data: bytes | bytearray | memoryview) -> None:
        assert self._tls is not None
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._raw.write(data)

    def _fail(self, error: ssl.SSLError) -> None:
        """End it; the alert that OpenSSL made of it tells the other end why."""
        self._state, self._failure = _State.ENDED, TlsRefused(refusal_text(error))
        self._flush()
        self._raw.close()
