"""The door for hosts without a certificate: takes a token, gives the first certificate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterable
from typing import Final, cast

import msgspec

from p2pdist.errors import ConfigError, PeerFault, StoreError
from p2pdist.exchange.accepting import network_of_address
from p2pdist.model.control import Renewed
from p2pdist.model.control_wire import FrameReader, Kind, frame, parse_tracker_url
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.model.joining import (
    JOIN_S,
    MAGIC,
    OF_HOST_BYTES_MAX,
    JoinAsk,
    JoinCas,
    JoinHello,
    encoder,
    of_host,
)
from p2pdist.model.members import Address
from p2pdist.process import audit, logs
from p2pdist.process.ca import DAYS
from p2pdist.process.certificates import DAY_S
from p2pdist.process.host_identity import joiners_context
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.join_tokens import believed_token
from p2pdist.process.metrics import Sample
from p2pdist.process.requests import key_mark, sign_request
from p2pdist.process.tasks import TaskOwner
from p2pdist.process.tls import TlsTransport
from p2pdist.settings import Settings
from p2pdist.tracker.core.joins import JoinDesk
from p2pdist.tracker.join_store import JoinStore
from p2pdist.tracker.renewing import Renewer

BACKLOG: Final = 64

log = logging.getLogger(__name__)


class JoinServer:
    """Of one tracker; the signing is the renewer's, with the same CA."""

    def __init__(
        self, name: str, listen: Address, own: IdentityHolder, renewer: Renewer, store: JoinStore
    ) -> None:
        """`name`: what tokens name this tracker by."""
        self.desk = JoinDesk(name, time.monotonic())
        self.joined_total = 0
        self.refused_total = 0
        self._listen = listen
        self._own = own
        self._renewer = renewer
        self._store = store
        self._tasks = TaskOwner("joining")
        self._refusals = audit.Refusals()
        self._context = own.current, joiners_context(own.current)
        self._connections: set[JoinConnection] = set()
        self._server: asyncio.Server

    async def start(self) -> Address:
        """Listen; return the address, with the port that was bound. Raises OSError, StoreError."""
        self.desk.restore(await self._store.open())
        self._server = await asyncio.get_running_loop().create_server(
            self._connection, self._listen.host, self._listen.port, backlog=BACKLOG
        )
        port = self._server.sockets[0].getsockname()[1]
        return Address(self._listen.host, port)

    async def close(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.end()
        await self._tasks.close()
        await self._store.close()

    def _connection(self) -> asyncio.Protocol:
        own = self._own.current
        if self._context[0] is not own:
            with contextlib.suppress(ValueError):  # other files lie there, which are looked at
                self._context = own, joiners_context(own)
        connection = JoinConnection(self)
        self._connections.add(connection)
        return TlsTransport(connection, self._context[1], server_side=True)

    def gone(self, connection: JoinConnection) -> None:
        self._connections.discard(connection)

    def cas(self) -> JoinCas:
        return JoinCas(list(self._own.current.cas))

    def answer(self, connection: JoinConnection, ask: JoinAsk) -> None:
        self._tasks.start(self._answer(connection, ask), name="join")

    async def _answer(self, connection: JoinConnection, ask: JoinAsk) -> None:
        try:
            told = await self._judged(connection, ask)
        except (ConfigError, StoreError) as error:
            logs.event(log, logging.ERROR, "renewal.failed", error=str(error))
            told = Renewed(0, reason="the tracker cannot sign now: its log says why")
        if not told.certificate:
            self.refused_total += 1
            self._refusals.event(
                audit.log, logging.WARNING, "join.refused", who=audit.NOBODY,
                peer=connection.peer, reason=told.reason,
            )  # fmt: skip
        connection.send(told)
        connection.end()

    async def _judged(self, connection: JoinConnection, ask: JoinAsk) -> Renewed:
        """Raises ConfigError, StoreError."""
        ca = await asyncio.to_thread(self._renewer.believed_ca)
        try:
            token = believed_token(ca, ask.token)
            key = await asyncio.to_thread(key_mark, ask.request)
        except ValueError as error:
            return Renewed(0, reason=str(error))
        revoked = self._own.current.revoked
        if HostId(token.id.hex()) in revoked:
            return Renewed(0, reason="the token was revoked, for good")
        if token.host_id and (why := revoked.why(HostId(token.host_id))):
            return Renewed(0, reason=why)
        unix_s = self._own.unix_s()
        ended = self.desk.forget(unix_s)
        use = self.desk.use(token, key, HostId(secrets.token_hex(16)), unix_s)
        if isinstance(use, str):
            return Renewed(0, reason=use)
        if why := revoked.why(use.host_id):  # who asks again, as it was revoked since
            return Renewed(0, reason=why)
        # On the disk before anything is signed, also of who asks again: the first time may have
        # failed. A kill in between costs nothing, as the host asks with the same key.
        await self._store.keep(use, ended, once=token.uses == 1)
        who = Identity(IdentityRole(token.role), use.host_id)
        life_s = DAYS * DAY_S

        def signed() -> bytes:
            return sign_request(ca, who, ask.request, life_s=life_s, now_s=unix_s)

        try:
            made = await asyncio.to_thread(signed)
        except ValueError as error:
            return Renewed(0, reason=str(error))
        self.joined_total += 1
        logs.event(
            audit.log, logging.INFO, "join.signed", audit="done", who=str(who),
            peer=connection.peer, token=token.id.hex(), used=self.desk.used(token),
            uses=token.uses,
        )  # fmt: skip
        return Renewed(0, made, list(self._own.current.cas))


class JoinConnection(asyncio.Protocol):
    """One try: a greeting, a token, an answer, within `JOIN_S`."""

    def __init__(self, server: JoinServer) -> None:
        self._server = server
        self._reader = FrameReader({Kind.MESSAGE: OF_HOST_BYTES_MAX}, MAGIC)
        self._transport: asyncio.Transport
        self._network: str | None = None
        self._greeted = self._asked = False
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def peer(self) -> str:
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        network = network_of_address(self.peer)
        if not self._server.desk.arrive(network, time.monotonic()):
            self._transport.abort()
            return
        self._network = network
        self._deadline = asyncio.get_running_loop().call_later(JOIN_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._network is None or self._asked:
            return
        if not isinstance(self._transport, TlsTransport) or self._transport.in_clear:
            self._transport.abort()
            return
        try:
            for _, payload in self._reader.feed(data):
                self._take(of_host.decode(payload))
        except (PeerFault, msgspec.DecodeError):
            self._transport.abort()

    def _take(self, message: JoinHello | JoinAsk) -> None:
        if isinstance(message, JoinHello) and not self._greeted:
            self._greeted = True
            self.send(self._server.cas())
        elif isinstance(message, JoinAsk) and self._greeted and not self._asked:
            self._asked = True
            self._server.answer(self, message)
        else:
            raise PeerFault("words out of turn")

    def send(self, message: JoinCas | Renewed) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame(Kind.MESSAGE, encoder.encode(message)))

    def end(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._network is not None:
            self._server.desk.leave(self._network)
            self._network = None
        self._server.gone(self)


def join_address(settings: Settings) -> Address | None:
    """Return where a tracker lets hosts join, None: nowhere. Raises ConfigError."""
    text = settings.tracker.join
    if not text:
        return None
    try:
        named = parse_tracker_url(f"tcp://{text}")
    except ValueError:
        raise ConfigError(f"tracker.join: {text!r} is no HOST:PORT") from None
    if settings.tracker.ca_dir is None:
        raise ConfigError("tracker.join is set, but tracker.ca_dir is not")
    return Address(settings.tracker.listen.host, named.port)


def join_samples(joins: JoinServer | None) -> Iterable[Sample]:
    joined, refused = (0, 0) if joins is None else (joins.joined_total, joins.refused_total)
    text = "Hosts that got their first certificate for a token."
    yield Sample("p2pdist_tracker_joined_total", "counter", text, {}, joined)
    text = "Tokens that were refused."
    yield Sample("p2pdist_tracker_joins_refused_total", "counter", text, {}, refused)
