"""Gets the first certificate of this host from a tracker, for a join token."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

import msgspec
from cryptography import x509

from p2pdist.errors import PeerFault
from p2pdist.exchange.dialling import connected
from p2pdist.model.control import Renewed
from p2pdist.model.control_wire import FrameReader, Kind, frame, parse_tracker_url
from p2pdist.model.identity import IdentityRole
from p2pdist.model.joining import (
    JOIN_S,
    MAGIC,
    OF_TRACKER_BYTES_MAX,
    JoinAsk,
    JoinCas,
    JoinHello,
    Token,
    encoder,
    of_tracker,
)
from p2pdist.process.certificates import described, fingerprint, issued_by
from p2pdist.process.tls import CERTIFICATE, TlsTransport


async def join(token: Token, text: str, request: bytes, *, now_s: float) -> Renewed:
    """Return what the tracker of `token` makes of a request; `text` is the token as it was given.

    Raises PeerFault where somebody else listens there, before it sees anything, OSError and
    TimeoutError. The token is spent with any other end.
    """
    async with asyncio.timeout(JOIN_S):
        sock = await connected(parse_tracker_url(f"tcp://{token.tracker}"))
        line = _JoinLine(token, JoinAsk(text, request), now_s)
        tls = TlsTransport(line, _context(), server_side=False)
        try:
            await asyncio.get_running_loop().create_connection(lambda: tls, sock=sock)
            return await line.answer
        finally:
            tls.abort()


def _context() -> ssl.SSLContext:
    """Who it is shows its certificate against the fingerprint in the token, see `_JoinLine`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _JoinLine(asyncio.Protocol):
    def __init__(self, token: Token, ask: JoinAsk, now_s: float) -> None:
        self.answer: asyncio.Future[Renewed] = asyncio.get_running_loop().create_future()
        self._token = token
        self._ask = ask
        self._now_s = now_s
        self._believed = False
        self._reader = FrameReader({Kind.MESSAGE: OF_TRACKER_BYTES_MAX})
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(MAGIC + frame(Kind.MESSAGE, encoder.encode(JoinHello())))

    def data_received(self, data: bytes) -> None:
        try:
            if isinstance(self._transport, TlsTransport) and self._transport.in_clear:
                raise PeerFault(f"{self._token.tracker} speaks no TLS: it lets nobody join")
            for _, payload in self._reader.feed(data):
                self._take(of_tracker.decode(payload))
        except (PeerFault, msgspec.DecodeError) as error:
            self._fail(PeerFault(str(error)))

    def _take(self, message: JoinCas | Renewed) -> None:
        if isinstance(message, JoinCas) and not self._believed:
            self._believe(message)
            self._believed = True
            self._transport.write(frame(Kind.MESSAGE, encoder.encode(self._ask)))
        elif isinstance(message, Renewed) and self._believed:
            if not self.answer.done():
                self.answer.set_result(message)
        else:
            raise PeerFault("the tracker speaks out of turn")

    def _believe(self, told: JoinCas) -> None:
        """Raise PeerFault unless the other end is a tracker of the CA in the token: it has proved
        in the handshake that it has the key of the certificate that it showed."""
        der: bytes | None = self._transport.get_extra_info(CERTIFICATE)
        named = [ca for ca in told.cas if fingerprint(ca) == self._token.ca]
        where = f"{self._token.tracker} is no tracker of the token's CA"
        if not der or not named:
            raise PeerFault(where)
        try:
            shown = x509.load_der_x509_certificate(der)
            says = described(shown)
            issued = issued_by(shown, [x509.load_der_x509_certificate(named[0])])
        except ValueError as error:
            raise PeerFault(f"{where}: {error}") from None
        if not issued or says.identity is None or says.identity.role is not IdentityRole.TRACKER:
            raise PeerFault(where)
        if fault := says.fault_at(self._now_s):
            raise PeerFault(f"the certificate of {self._token.tracker} {fault}")

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or PeerFault(f"{self._token.tracker} hung up: is it busy, or no tracker?"))
