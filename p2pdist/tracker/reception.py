"""The tracker's door: accepts, greets at the pace of `core.intake`, shakes hands, hands over."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import time
from typing import Final, Protocol

import msgspec

from p2pdist.errors import NoIdentity, PeerFault, WrongSecret
from p2pdist.exchange.accepting import Acceptor, network_of
from p2pdist.model.cluster_secrets import SecretSource
from p2pdist.model.control_wire import (
    FEATURE_ZSTD,
    HANDSHAKE_S,
    SESSION,
    CloseCode,
    Kind,
    frame,
    pong_frame,
    read_close,
    retry_frame,
    shared_codecs,
)
from p2pdist.model.handshake import HELLO_BYTES_MAX, ServerHandshake
from p2pdist.model.members import Address, Member
from p2pdist.process import clock
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.inbox import Inbox
from p2pdist.process.tasks import TaskOwner
from p2pdist.process.tls import TlsTransport
from p2pdist.tracker.admission import check_identity, check_member
from p2pdist.tracker.connection import Connection, cost_bytes
from p2pdist.tracker.core.deadlines import Deadlines
from p2pdist.tracker.core.intake import Intake
from p2pdist.tracker.naming import Naming

# After a restart all hosts come at once. Linux caps it by net.core.somaxconn.
BACKLOG: Final = 4096
# 10 µs each: the queue is to stand where its age is known, and not in the kernel.
ACCEPTS_PER_TURN: Final = 64
# 100 µs each.
GREETS_PER_TURN: Final = 8
# What hosts have to take the goodbye in.
CLOSE_S: Final = 1.0
CLOSES_PER_TURN: Final = 200
_LOST: Final = 0
"""In the place of a frame's kind: the connection ended behind what it had sent."""

Item = tuple[Connection, int, bytes]


class Attendant(Protocol):
    """Who serves a host once it is in; called on the event loop."""

    def welcome(self, connection: Connection) -> None: ...

    def take(self, connection: Connection, packed: bytes) -> bool:
        """Deal with a message; return whether there is more to do with the same one.

        Raises PeerFault or DecodeError for one that makes no sense."""
        ...

    def gone(self, connection: Connection) -> None:
        """A host that was welcomed lost its connection, or gave it up (`connection.leaving`)."""
        ...

    def refused(self, connection: Connection, reason: str) -> None: ...

    def stranger(self, connection: Connection) -> None:
        """About to be refused: its cluster secret is another than ours."""
        ...


class Reception:
    """All control connections of one tracker, from `accept` to their end."""

    def __init__(
        self,
        attendant: Attendant,
        *,
        secret: SecretSource,
        me: Member,
        identity: IdentityHolder | None = None,
        features: int = FEATURE_ZSTD,
        naming: Naming,
    ) -> None:
        """`secret` is asked at each handshake. `identity`: with it hosts may speak TLS, on the same
        port. `features`: those offered."""
        self._naming = naming
        self._features = features
        self.intake: Intake[socket.socket] = Intake()
        self._attendant = attendant
        self._secret = secret
        self._me = me
        self._identity = identity
        self._links = itertools.count(1)
        self._codecs = shared_codecs()
        self._connections: set[Connection] = set()
        self._greeted: dict[Connection, str] = {}  # and from which address
        self._handshakes: Deadlines[Connection] = Deadlines(HANDSHAKE_S)
        self._inbox: Inbox[Item] = Inbox(self._deal)
        self._shaking: Inbox[TlsTransport] = Inbox(TlsTransport.go_on)
        self._acceptor = Acceptor(self._accepted, backlog=BACKLOG, per_turn=ACCEPTS_PER_TURN)
        self._greetings = TaskOwner("greetings")
        self._turn: asyncio.Handle | None = None
        self._expiry: asyncio.Handle | None = None
        self._all_ended = asyncio.Event()

    async def listen(self, listen: Address) -> Address:
        """Accept hosts; return the address, with the port that was bound. Raises OSError."""
        _, port = await self._acceptor.listen(listen.host, listen.port)
        return Address(listen.host, port)

    async def cut_unbelieved(self) -> None:
        """End the connections under a secret that is not believed any more, slice by slice."""
        marks = self._secret().marks
        for number, connection in enumerate(list(self._connections), 1):
            if connection.handshake is None and connection.mark not in marks:
                connection.close("its cluster secret is not believed any more")
            if number % CLOSES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def close(self, reason: str) -> None:
        """Tell all hosts at once; wait `CLOSE_S` at most for what is on its way to them."""
        self._acceptor.close()
        await self._greetings.close()
        for handle in (self._turn, self._expiry):
            if handle is not None:
                handle.cancel()
        while waiting := self.intake.greet(CLOSES_PER_TURN):
            for sock, who in waiting:
                sock.close()
                self.intake.done(who, time.monotonic())
        self._inbox.close()
        self._shaking.close()
        for number, connection in enumerate(list(self._connections), 1):
            connection.close(reason, CloseCode.GOING_AWAY)
            if number % CLOSES_PER_TURN == 0:
                await asyncio.sleep(0)
        if self._connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._all_ended.wait()
        for connection in list(self._connections):
            connection.abort()

    # --- before the handshake -------------------------------------------------------------------

    def _accepted(self, sock: socket.socket) -> None:
        # Not the loop's time: uvloop's stands still within a turn.
        retry_after_s = self.intake.arrive(sock, network_of(sock), time.monotonic())
        if retry_after_s is None:
            self._greet_soon()
        else:
            _send_away(sock, retry_after_s)

    def _greet_soon(self) -> None:
        if self._turn is None and self.intake.waiting:
            self._turn = asyncio.get_running_loop().call_soon(self._greet)

    def _greet(self) -> None:
        self._turn = None
        for sock in self.intake.drop_stale(time.monotonic()):
            sock.close()
        greeted = self.intake.greet(GREETS_PER_TURN)
        for sock, who in greeted:
            self._greetings.start(self._begin(sock, who), name="greet")
        if greeted:  # else all places are taken, and the next one that is free goes on here
            self._greet_soon()

    async def _begin(self, sock: socket.socket, who: str) -> None:
        now_ms = _unix_ms()
        handshake = ServerHandshake(self._secret(), self._me, os.urandom, self._features, now_ms)
        connection = Connection(self, next(self._links), handshake)
        self._greeted[connection] = who
        protocol: asyncio.Protocol = connection
        if self._identity is not None and (spoken := self._identity.spoken) is not None:
            protocol = TlsTransport(
                connection, spoken.server, server_side=True, later=self._shaking.put
            )
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
        except BaseException as error:
            sock.close()
            if connection not in self._connections:
                self._done(connection)
            if not isinstance(error, OSError):  # OSError: it has gone in the meantime
                raise

    def _done(self, connection: Connection, *, silent: bool = False) -> None:
        self.intake.done(self._greeted.pop(connection), time.monotonic(), silent=silent)
        self._greet_soon()

    def _shaken(self, connection: Connection) -> None:
        """Its handshake is over, well or not."""
        if connection in self._handshakes:
            self._handshakes.drop(connection)
            self._done(connection)

    def _expire(self) -> None:
        self._expiry = None
        for connection in self._handshakes.pop_due(time.monotonic()):
            self._done(connection, silent=True)
            self._refuse(connection, "too slow with its handshake")
        self._arm_expiry()

    def _arm_expiry(self) -> None:
        due_s = self._handshakes.next_s()
        if self._expiry is None and due_s is not None:
            after_s = max(0.0, due_s - time.monotonic())
            self._expiry = asyncio.get_running_loop().call_later(after_s, self._expire)

    # --- called by the connections --------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._handshakes.touch(connection, time.monotonic())
        self._arm_expiry()

    def received(self, connection: Connection, kind: int, payload: bytes) -> None:
        self._inbox.put((connection, kind, payload))

    def faulted(self, connection: Connection, error: PeerFault) -> None:
        self._refuse(connection, str(error))

    def ended(self, connection: Connection, why: str) -> None:
        self._connections.discard(connection)
        if connection.handshake is not None and not connection.closing:
            self._attendant.refused(connection, why or "it ended within the handshake")
        self._shaken(connection)
        self._inbox.put((connection, _LOST, b""))
        if not self._connections:
            self._all_ended.set()

    # --- what came ------------------------------------------------------------------------------

    def _deal(self, item: Item) -> bool:
        connection, kind, payload = item
        if kind == _LOST:
            if connection.handshake is None:
                self._attendant.gone(connection)
            return False
        if connection.closing:
            return False
        try:
            more = self._take(connection, kind, payload)
        except (PeerFault, msgspec.DecodeError) as error:
            if isinstance(error, WrongSecret):
                self._attendant.stranger(connection)
            code = CloseCode.IDENTITY if isinstance(error, NoIdentity) else CloseCode.REFUSED
            self._refuse(connection, str(error), code)
            return False
        if not more:
            connection.taken(cost_bytes(payload))
        return more

    def _take(self, connection: Connection, kind: int, payload: bytes) -> bool:
        if kind == Kind.MESSAGE:
            return self._attendant.take(connection, payload)
        if kind == Kind.PING:
            connection.write(pong_frame(_unix_ms()))
        elif kind == Kind.CLOSE:
            connection.leaving = read_close(payload)[0] == CloseCode.GOODBYE
            connection.abort()
        elif connection.handshake is None:
            if kind != Kind.PONG:
                raise PeerFault("a second handshake")
        elif kind == Kind.HELLO:
            hello, proof = connection.handshake.answer(payload)
            connection.write(frame(Kind.ANSWER, proof + hello))
        elif kind == Kind.PROOF:
            self._let_in(connection, connection.handshake, payload)
        return False

    def _let_in(self, connection: Connection, handshake: ServerHandshake, proof: bytes) -> None:
        session = handshake.finish(proof)
        if session.mark not in self._secret().marks:  # it was taken away in the meantime
            raise WrongSecret
        check_member(session.member)
        check_identity(self._identity, connection.certificate, session.member)
        connection.member, connection.refused = self._naming.of(connection, session.member)
        connection.instance = session.instance
        connection.mark = session.mark
        connection.features = session.features
        connection.codec = self._codecs[session.features & FEATURE_ZSTD]
        connection.handshake = None
        connection.reader.limits = SESSION
        self._shaken(connection)
        self._attendant.welcome(connection)

    def _refuse(
        self, connection: Connection, reason: str, code: CloseCode = CloseCode.REFUSED
    ) -> None:
        if not connection.closing:
            self._attendant.refused(connection, reason)
            connection.close(reason, code)


def _unix_ms() -> int:
    return round(clock.unix_s() * 1000)


def _send_away(sock: socket.socket, retry_after_s: float) -> None:
    """Say when to come back. What came so far is read off: the kernel would reset the connection
    for it, and the word might be lost."""
    with sock, contextlib.suppress(OSError):
        with contextlib.suppress(BlockingIOError):
            sock.recv(2 * HELLO_BYTES_MAX)
        sock.send(retry_frame(retry_after_s))
