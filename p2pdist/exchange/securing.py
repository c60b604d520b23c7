"""Who is at the other end of a link, proved by certificates: TLS 1.3 behind the handshake.

Both hellos said that their host has an identity, and proofs under the cluster secret cover the
hellos: nobody in between can take that word out. On the same connection follows a TLS handshake, in
which both show their certificates. Over it each end sends the key that it seals with, see
`sealing`, and a keyed hash of the hellos that it saw; then TLS has done its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from p2pdist.errors import NoIdentity, PeerFault
from p2pdist.exchange.sealing import KEY_BYTES, Seal
from p2pdist.exchange.tls_refusal import refusal_text
from p2pdist.model.handshake import Session
from p2pdist.model.members import Member

# RFC 8446, section 5.1: type, version, length.
_RECORD: Final = struct.Struct(">BHH")
_RECORD_BYTES_MAX: Final = (16 << 10) + 256
HANDSHAKE_BYTES_MAX: Final = 64 << 10
"""A certificate of ours has a kilobyte."""
HANDSHAKE_RECORDS_MAX: Final = 32
"""From one end there come eight; each costs a turn in a thread, be it a byte."""


@dataclass(frozen=True, slots=True)
class LinkIdentity:
    """How this host proves who it is, and how others have to."""

    client: ssl.SSLContext = field(repr=False)
    server: ssl.SSLContext = field(repr=False)
    required: bool
    """Nobody who has no identity is linked to."""
    against: Callable[[bytes, Member], str]
    """Why the certificate (DER) is not for that member; empty: it is."""


async def secured(
    sock: socket.socket,
    identity: LinkIdentity,
    session: Session,
    hellos: bytes,
    *,
    server_side: bool,
) -> Seal:
    """Prove both ends of `sock` to each other; return how the link is sealed.

    `hellos`: a keyed hash of both, as this end sent and heard them. Raises NoIdentity where the
    other end is not who its hello names, PeerFault or OSError where it does not keep to the
    protocol.
    """
    channel = _Channel(sock, identity, server_side=server_side)
    await channel.shake()
    _look(identity, channel, session)
    own = secrets.token_bytes(KEY_BYTES)
    await channel.send(own + hellos)
    told = await channel.receive(len(own) + len(hellos))
    if not hmac.compare_digest(told[KEY_BYTES:], hellos):
        raise NoIdentity("somebody in between changed what this host and the other one said")
    _look(identity, channel, session)  # it may have been revoked meanwhile
    return Seal(own, told[:KEY_BYTES])


def _look(identity: LinkIdentity, channel: _Channel, session: Session) -> None:
    if why := identity.against(channel.certificate, session.member):
        raise NoIdentity(why)


class _Channel:
    """TLS on a socket, which is read record by record: what follows them is not TLS any more."""

    def __init__(self, sock: socket.socket, identity: LinkIdentity, *, server_side: bool) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = identity.server if server_side else identity.client
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._bytes_left, self._records_left = HANDSHAKE_BYTES_MAX, HANDSHAKE_RECORDS_MAX

    @property
    def certificate(self) -> bytes:
        return self._tls.getpeercert(binary_form=True) or b""

    async def shake(self) -> None:
        while True:
            try:
                # Half a millisecond each, and a thousand hosts may come at once: not on the loop.
                await asyncio.to_thread(self._tls.do_handshake)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take_record()
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):  # the alert that tells the other end why
                    await self._flush()
                raise NoIdentity(refusal_text(error)) from None
            else:
                await self._flush()
                return

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def receive(self, nbytes: int) -> bytes:
        data = b""
        while len(data) < nbytes:
            try:
                part = self._tls.read(nbytes - len(data))
            except ssl.SSLWantReadError:
                await self._take_record()
            except ssl.SSLError as error:  # the other end's alert: it may come behind our last word
                raise NoIdentity(refusal_text(error)) from None
            else:
                if not part:
                    raise PeerFault("closed during the handshake")
                data += part
        return data

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._loop.sock_sendall(self._sock, data)

    async def _take_record(self) -> None:
        head = await received(self._sock, _RECORD.size)
        _, _, length = _RECORD.unpack(head)
        self._bytes_left -= length
        self._records_left -= 1
        if length > _RECORD_BYTES_MAX or min(self._bytes_left, self._records_left) < 0:
            raise PeerFault("more than a handshake takes")
        self._incoming.write(head + await received(self._sock, length))


async def received(sock: socket.socket, nbytes: int) -> bytes:
    """Exactly `nbytes`, so that nothing of what follows the handshake is taken away."""
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < nbytes:
        part = await loop.sock_recv(sock, nbytes - len(data))
        if not part:
            raise PeerFault("closed during the handshake")
        data += part
    return data
