"""Makes links: listens, dials, shakes hands, and keeps one link per host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from p2pdist.errors import LinkRefused, NoIdentity, PeerFault, WrongSecret
from p2pdist.exchange.accepting import Acceptor, network_of
from p2pdist.exchange.buffers import BufferPool
from p2pdist.exchange.dialling import connected
from p2pdist.exchange.link import RECEIVE_BYTES, Link, LinkHandler
from p2pdist.exchange.outgoing import BulkHold
from p2pdist.exchange.sealing import Seal
from p2pdist.exchange.securing import LinkIdentity, received, secured
from p2pdist.exchange.seen import proved_member
from p2pdist.exchange.upload import Upload
from p2pdist.model.clones import CloneBook
from p2pdist.model.cluster_secrets import ClusterSecrets, SecretSource
from p2pdist.model.handshake import (
    DEMAND,
    DRAINING,
    FULL,
    HELLO_BYTES_MAX,
    ID_IN_USE,
    IDENTITY,
    LINK_USE,
    NO_IDENTITY,
    NO_PROOF,
    PROOF_BYTES,
    TICKETS,
    WHO_ELSE,
    ClientHandshake,
    Hello,
    Refusal,
    ServerHandshake,
    Session,
)
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member
from p2pdist.model.places import Places
from p2pdist.model.private_places import IpNetwork

log = logging.getLogger(__name__)

HANDSHAKE_S: Final = 5.0
# 128 KiB: what the kernel may hold unsent, so that a cancel overtakes nearly everything.
NOTSENT_LOWAT_BYTES: Final = 128 * 1024
# A peer that vanished without FIN is found by the progress deadlines first; this frees its socket.
USER_TIMEOUT_MS: Final = 30_000
BACKLOG: Final = 512
SENT_POLL_S: Final = 0.02
# Idle links end after a minute, so there may be room by then; who is refused again waits longer.
FULL_RETRY_S: Final = 30
# The refused host has another id in a moment.
ID_IN_USE_RETRY_S: Final = 1
# A restart takes a few seconds.
DRAINING_RETRY_S: Final = 2
# Somebody has to give it a certificate first.
NO_IDENTITY_RETRY_S: Final = 60
FEATURES: Final = LINK_USE | DEMAND | WHO_ELSE | TICKETS
REPLACED: Final = "replaced by another connection"
"""Why a link ends whose host is told at once, by `link_up`, to have another one."""
UNBELIEVED: Final = "the cluster secret that it was made under is not believed any more"
CUTS_PER_TURN: Final = 32
_LENGTH: Final = struct.Struct(">H")
MAGIC: Final = b"p2pdist/1\n"


@dataclass(frozen=True, slots=True)
class Watchers:
    """Who is told what handshakes show beside links; called on the event loop, must not block."""

    unix_ms: Callable[[], int] = lambda: 0
    """What others are told of this host's wall clock; 0: nothing."""
    refused: Callable[[Member, Refusal], None] = lambda member, refusal: None
    stranger: Callable[[str], None] = lambda address: None
    """Somebody at `address` dialled with another cluster secret."""
    clock: Callable[[Session, float, float], None] = lambda session, asked_s, answered_s: None
    """Whom we dialled told its wall clock (`session.unix_ms`) between these two moments of
    `time.monotonic()`."""
    id_in_use: Callable[[str], None] = lambda detail: None
    """Whom we dialled has a link with another host of our id."""


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    links_max: int = 1024
    """Full: who dials us is refused with that reason, and we dial nobody."""
    handshakes_max: int = 256
    """Full: the address with most of them gives one up."""
    upload_bytes_per_s: int = 0
    """Payload to all others together; 0: as fast as the network takes it."""


def keep_existing(me: HostId, other: HostId, *, existing_dialled: bool, new_dialled: bool) -> bool:
    """Which of two links to one host survives: True for the existing one.

    Dials that crossed are resolved by host id, the lower one's dial wins on both ends. Two dials
    from the same end mean that the older link is dead for the end that dialled again.
    """
    if existing_dialled == new_dialled:
        return False
    return existing_dialled == (me < other)


class ExchangeTransport:
    """All links of one node; calls `handler` once per link that came up, and when it goes down."""

    def __init__(
        self,
        handler: LinkHandler,
        *,
        secret: SecretSource,
        me: Callable[[], Member],
        limits: ExchangeLimits,
        random_bytes: Callable[[int], bytes] = os.urandom,
        watchers: Watchers | None = None,
        instance: bytes = b"",
        identity: Callable[[], LinkIdentity | None] = lambda: None,
        member_networks: Collection[IpNetwork] = (),
    ) -> None:
        """`secret` and `identity` are asked at each handshake; no identity: links are under the
        cluster secret alone. `instance`: of this process, see `clones`; empty: none.
        `member_networks`: where hosts may say they are beside where they are seen; the session of a
        link names no other."""
        self._member_networks = member_networks
        self._handler = handler
        self._identity = identity
        self._secret = secret
        self._me = me
        self._limits = limits
        self._instance = instance
        self._clones = CloneBook()
        self._random_bytes = random_bytes
        self._watchers = watchers or Watchers()
        self.refused: Counter[str] = Counter()
        """Links that others were refused, by reason."""
        self.draining = False
        """Refuse whoever dials: this node is about to end."""
        self._admitted = 0  # handshakes that were not refused, and are no links yet
        self._links: dict[HostId, Link] = {}
        self._all: set[Link] = set()
        self._acceptor = Acceptor(self._accepted, backlog=BACKLOG)
        self._handshakes: dict[socket.socket, asyncio.Task[None]] = {}
        # A handshake takes milliseconds: what is here for long is not going to end.
        self._greeting: Places[str, socket.socket] = Places(limits.handshakes_max, eldest_goes=True)
        self._buffer = bytearray(RECEIVE_BYTES)
        self._pool = BufferPool()
        self._hold = BulkHold()
        rate = limits.upload_bytes_per_s
        self.upload = Upload(rate) if rate else None
        """What may go to other hosts, for whoever else sends to them."""

    async def listen(self, host: str, port: int) -> Address:
        """Accept links on `host`:`port` (0: any free one); return the bound address."""
        return Address(*await self._acceptor.listen(host, port))

    async def dial(
        self, address: Address, *, timeout_s: float, expected: HostId | None = None
    ) -> Link:
        """Return a link to `expected`, or to whoever listens there.

        An address may have gone to another host: one that is not `expected` is left. Raise OSError,
        TimeoutError, PeerFault, or LinkRefused where that host wants none.
        """
        if len(self._all) >= self._limits.links_max:
            raise PeerFault("as many links as allowed")
        async with asyncio.timeout(timeout_s):
            sock = await connected(address)
            try:
                session, seal = await self._shake_as_client(sock, expected)
            except BaseException as error:
                sock.close()
                if isinstance(error, LinkRefused) and error.reason == ID_IN_USE:
                    self._watchers.id_in_use(f"the host at {address} has a link with it")
                raise
        return self._establish(sock, session, seal, dialled=True)

    @property
    def links(self) -> int:
        return len(self._all)

    @property
    def sealed(self) -> int:
        """How many of the links are sealed."""
        return sum(link.sealed for link in self._all)

    async def wait_sent(self) -> None:
        """Return once no link has a run to send any more."""
        while any(link.sending for link in self._all):  # noqa: ASYNC110  # links have no event
            await asyncio.sleep(SENT_POLL_S)

    def drop_links(self, reason: str, which: Callable[[Link], bool] = lambda link: True) -> None:
        """End links; whoever wants one dials anew."""
        for link in [link for link in self._all if which(link)]:
            link.close(reason)

    async def cut_unbelieved(self) -> None:
        """End the links that were made under a secret that is not believed any more."""
        marks = self._secret().marks
        for number, link in enumerate(list(self._all), 1):
            if link.session.mark not in marks:
                link.close(UNBELIEVED)
            if number % CUTS_PER_TURN == 0:
                await asyncio.sleep(0)

    async def close(self) -> None:
        self._acceptor.close()
        handshakes = list(self._handshakes.values())
        for task in handshakes:
            task.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)
        self.drop_links("shutting down")
        await asyncio.sleep(0)  # lets the handler hear of the closed links

    # --- accepting ------------------------------------------------------------------------------

    def _accepted(self, sock: socket.socket) -> None:
        loser = self._greeting.take(network_of(sock), sock)
        if loser is sock:
            sock.close()
            return
        if loser is not None:
            self._handshakes.pop(loser).cancel()
        task = asyncio.get_running_loop().create_task(self._accept(sock), name="exchange handshake")
        self._handshakes[sock] = task
        task.add_done_callback(lambda task: self._shaken(sock, task))

    def _shaken(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(sock, None)
        self._greeting.leave(sock)
        if task.cancelled():  # perhaps before it began
            sock.close()

    async def _accept(self, sock: socket.socket) -> None:
        identity = self._identity()
        hand = ServerHandshake(*self._hello_parts(identity))
        admitted = False
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._greet_client(sock, hand)
                if hand.refusal is not None:
                    sock.close()
                    return
                self._admitted, admitted = self._admitted + 1, True
                session = hand.finish(await received(sock, PROOF_BYTES))
                seal = await _sealed(sock, identity, session, hand.hellos, server_side=True)
            with contextlib.suppress(PeerFault):
                self._establish(sock, session, seal, dialled=False)
        except (OSError, PeerFault, TimeoutError) as error:
            if isinstance(error, WrongSecret):
                self._watchers.stranger(_address_of(sock))
            log.info("handshake refused: %s", error or type(error).__name__)
            sock.close()
        except BaseException:
            sock.close()
            raise
        finally:
            self._admitted -= admitted

    def _refuse(self, hello: Hello) -> Refusal | None:
        """Why there is no link for this host now; one that it had already makes way for the new."""
        member = hello.member
        if self.draining:
            refusal = Refusal(DRAINING, DRAINING_RETRY_S)
        elif self._has_to_show_more(hello):
            refusal = Refusal(NO_IDENTITY, NO_IDENTITY_RETRY_S)
        elif self._twice(member.host_id, hello.instance):
            refusal = Refusal(ID_IN_USE, ID_IN_USE_RETRY_S)
        elif member.host_id in self._links or self._room > 0:
            return None
        else:
            refusal = Refusal(FULL, FULL_RETRY_S)
        self.refused[refusal.reason] += 1
        self._watchers.refused(member, refusal)
        return refusal

    def _has_to_show_more(self, hello: Hello) -> bool:
        identity = self._identity()
        return identity is not None and identity.required and not hello.features & IDENTITY

    def _twice(self, host: HostId, instance: bytes) -> bool:
        """There is a link with another host that has the same id."""
        link = self._links.get(host)
        if link is None or link.closed:
            return False
        return self._clones.both_alive(host, instance, link.session.instance)

    @property
    def _room(self) -> int:
        return self._limits.links_max - len(self._all) - self._admitted

    # --- handshakes -----------------------------------------------------------------------------

    def _hello_parts(
        self, identity: LinkIdentity | None
    ) -> tuple[ClusterSecrets, Member, Callable[[int], bytes], int, int, bytes]:
        """What both kinds of handshake are made of."""
        features = FEATURES if identity is None else FEATURES | IDENTITY
        now_ms = self._watchers.unix_ms()
        return self._secret(), self._me(), self._random_bytes, features, now_ms, self._instance

    async def _shake_as_client(
        self, sock: socket.socket, expected: HostId | None
    ) -> tuple[Session, Seal | None]:
        """Hear the server's proof and send ours, unless it is not who is `expected`."""
        identity = self._identity()
        hand = ClientHandshake(*self._hello_parts(identity))
        asked_s = time.monotonic()
        proof, session = await _hear_server(sock, hand)
        self._watchers.clock(session, asked_s, time.monotonic())
        if expected is not None and session.member.host_id != expected:
            raise PeerFault(f"it is the host {session.member.host_id[:12]} by now")
        if identity is not None and identity.required and not session.features & IDENTITY:
            raise NoIdentity("it has no certificate, and cluster.require_identity is set")
        await _send(sock, proof)
        return session, await _sealed(sock, identity, session, hand.hellos, server_side=False)

    async def _greet_client(self, sock: socket.socket, hand: ServerHandshake) -> None:
        """Hear the client's hello and answer it, be it with a refusal."""
        if await received(sock, len(MAGIC)) != MAGIC:
            raise PeerFault("not a p2pdist node")
        hello, proof = hand.answer(await _receive_hello(sock), self._refuse)
        await _send(sock, _LENGTH.pack(len(hello)) + hello + proof)

    # --- one link per host ----------------------------------------------------------------------

    def _establish(
        self, sock: socket.socket, session: Session, seal: Seal | None, *, dialled: bool
    ) -> Link:
        """Return the live link to the host at the other end, which may be an older one."""
        me, other = self._me().host_id, session.member.host_id
        if other == me:
            sock.close()
            raise PeerFault("this host itself")
        if session.mark not in self._secret().marks:  # it was taken away in the meantime
            sock.close()
            raise WrongSecret
        if self._twice(other, session.instance):
            sock.close()
            raise PeerFault("a link with another host of the same id is there")
        existing = self._links.get(other)
        if existing is not None and not existing.closed:
            if existing.sealed and seal is None:
                sock.close()
                raise PeerFault("a link with that host is there, which has shown its certificate")
            keep = keep_existing(me, other, existing_dialled=existing.dialled, new_dialled=dialled)
            if keep:
                sock.close()
                return existing
            self._clones.replaced(other, existing.session.instance, session.instance)
            existing.close(REPLACED)
            self._ended(existing, REPLACED)
        _tune(sock)
        session = _proved(session, sock, self._member_networks)
        link = Link(
            sock,
            session,
            dialled=dialled,
            handler=self._handler,
            buffer=self._buffer,
            pool=self._pool,
            upload=self.upload,
            hold=self._hold,
            seal=seal,
            on_closed=self._ended,
        )
        self._links[other] = link
        self._all.add(link)
        link.start()
        self._handler.link_up(link)
        return link

    def _ended(self, link: Link, reason: str) -> None:
        if link not in self._all:
            return
        self._all.discard(link)
        if self._links.get(link.session.member.host_id) is link:
            del self._links[link.session.member.host_id]
        self._handler.link_down(link, reason)


async def probe(
    address: Address,
    *,
    secret: ClusterSecrets,
    me: Member,
    timeout_s: float,
    identity: bool = False,
) -> Session:
    """Shake hands up to the proof of whoever listens there, and leave before a link is made.

    `identity`: say that we have a certificate; the session's features tell whether it has one. No
    certificate is shown by either. Raises as `ExchangeTransport.dial` does.
    """
    async with asyncio.timeout(timeout_s):
        sock = await connected(address)
        with contextlib.closing(sock):
            features = IDENTITY if identity else 0
            hand = ClientHandshake(secret, me, os.urandom, features)
            _, session = await _hear_server(sock, hand)
            return session


async def _hear_server(sock: socket.socket, hand: ClientHandshake) -> tuple[bytes, Session]:
    """Say hello and hear the answer; a server with another secret is told why it is left."""
    await _send(sock, MAGIC + _LENGTH.pack(len(hand.hello)) + hand.hello)
    server_hello = await _receive_hello(sock)
    try:
        return hand.finish(server_hello, await received(sock, PROOF_BYTES))
    except WrongSecret:
        with contextlib.suppress(OSError):
            await _send(sock, NO_PROOF)
        raise


def _proved(session: Session, sock: socket.socket, networks: Collection[IpNetwork]) -> Session:
    """The session with a member of which all that is there may be told to others."""
    try:
        ends = sock.getpeername(), sock.getsockname()
    except OSError:  # it has gone
        ends = None, None
    member, _ = proved_member(session.member, *ends, networks)
    return msgspec.structs.replace(session, member=member)


def _address_of(sock: socket.socket) -> str:
    try:
        return str(sock.getpeername()[0])
    except OSError:  # it has gone
        return "somewhere"


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def _send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def _sealed(
    sock: socket.socket,
    identity: LinkIdentity | None,
    session: Session,
    hellos: bytes,
    *,
    server_side: bool,
) -> Seal | None:
    """Have both ends prove who they are, where both said that they can."""
    if identity is None or not session.features & IDENTITY:
        return None
    return await secured(sock, identity, session, hellos, server_side=server_side)


async def _receive_hello(sock: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(await received(sock, _LENGTH.size))
    if length > HELLO_BYTES_MAX:
        raise PeerFault(f"hello of {length} bytes")
    return await received(sock, length)
