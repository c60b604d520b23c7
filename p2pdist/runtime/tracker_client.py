"""A host's line to its tracker: always being kept up, never waited for by a pull.

What the host is about (its joins, what it holds of them, its leases, its revocations) is state
here and is said again on every new connection; so nothing is lost with a connection, and nothing
but the newest value is ever queued while there is none.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol, assert_never

import aiohttp
import msgspec

from p2pdist.errors import PeerFault
from p2pdist.model.backoff import Backoff
from p2pdist.model.control import (
    Announce,
    Delta,
    Describe,
    FromTracker,
    Handout,
    Join,
    LeaseAnswer,
    LeaseAsk,
    LeaseEnd,
    Leave,
    Prewarm,
    PrewarmEnd,
    PrewarmReport,
    Proof,
    Prove,
    Revoke,
    Revoked,
    Status,
    SwarmKey,
    ToTracker,
    Welcome,
    encoder,
    from_tracker_decoder,
)
from p2pdist.model.handshake import ClientHandshake, Session
from p2pdist.model.ids import parse_host_id
from p2pdist.model.members import Member, Role
from p2pdist.runtime import logs
from p2pdist.runtime.control_socket import (
    FEATURES,
    HANDSHAKE_S,
    MESSAGE_BYTES_MAX,
    FrameCodec,
    shake_as_client,
)
from p2pdist.runtime.tasks import TaskOwner

# The first try again comes at once, as a restarting tracker is back in a second; the longest
# delay is what a new tracker may take to know the active swarms.
RETRY_FIRST_S: Final = 0.2
RETRY_MAX_S: Final = 5.0
# A connection that broke sooner proves nothing: two hosts with one id would throw each other out
# five times a second.
STABLE_S: Final = 5.0
CONNECT_S: Final = 2.0
# No pong within half of it more: the tracker's host is gone without a word.
PING_S: Final = 10.0
PROMPT_S: Final = 0.05
# A fleet whose tracker restarted spreads its inventories over this many announce intervals.
INVENTORY_SPREAD_INTERVALS: Final = 5.0
# 1,024 deltas are about 5 ms of the tracker's event loop.
BATCH_DELTAS: Final = 1024
# 64 signatures are about 8 ms of the tracker's event loop.
BATCH_REVOCATIONS: Final = 64
# Full: the oldest is forgotten; it is only missing after the next loss of the connection.
JOINS_MAX: Final = 4096
REVOCATIONS_KEPT_MAX: Final = 256
# Full: the connection is cut, the next one starts from the state.
QUEUE_MAX: Final = 8192
RENEW_TICK_S: Final = 1.0
HANG_UP_S: Final = 1.0
# A lease that nobody ended by then was forgotten: the largest layers take minutes.
LEASE_KEPT_S: Final = 900.0

log = logging.getLogger(__name__)


class TrackerListener(Protocol):
    """What the host does with the tracker's word; called on the event loop, must not block."""

    def tracker_up(self) -> None: ...

    def tracker_down(self) -> None: ...

    def handout(self, handout: Handout) -> None: ...

    def revoked(self, records: list[bytes]) -> None:
        """The records are as the tracker sent them: check each against the host's own keys."""
        ...

    def full_announce(self) -> list[Delta]:
        """Everything that this host holds; asked for once per connection."""
        ...


PrewarmOrder = Prewarm | PrewarmEnd | Prove


@dataclass(slots=True)
class _Active:
    """A swarm that this host is in, or one answer that it waits for."""

    join: Join
    held: Delta | None = None


@dataclass(slots=True)
class _HeldLease:
    fence: int
    on_behalf: Member | None
    renew_at_s: float
    keep_until_s: float


class TrackerClient:
    """Keeps one connection to the first of `urls` that answers (base URLs, `ws://host:port`).

    `me` and `numbers` are asked at each connection and each heartbeat. All methods are for the
    event loop and return at once, but `lease` and `close`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        secret: bytes,
        me: Callable[[], Member],
        listener: TrackerListener,
        rng: Random,
        numbers: Callable[[], dict[str, float]],
        describe: Callable[[], Describe] | None = None,
        on_order: Callable[[PrewarmOrder], None] = lambda _: None,
    ) -> None:
        """`describe`: what to say of this host first; without it, it takes no prewarm orders.
        `on_order` gets the tracker's; called on the event loop, must not block."""
        self.connected = False
        self.tracker: Member | None = None
        """Whom we are connected to."""
        self._urls = list(urls)
        self._secret = secret
        self._me = me
        self._listener = listener
        self._rng = rng
        self._numbers = numbers
        self._describe = describe
        self._on_order = on_order
        self._seq = itertools.count(1)
        self._active: OrderedDict[SwarmKey, _Active] = OrderedDict()
        self._changed: dict[SwarmKey, Delta] = {}
        self._revocations: deque[bytes] = deque(maxlen=REVOCATIONS_KEPT_MAX)
        self._asked: dict[int, asyncio.Future[LeaseAnswer | None]] = {}
        self._behalf: dict[int, Member | None] = {}
        self._leases: dict[SwarmKey, _HeldLease] = {}
        self._queue: deque[ToTracker] = deque()
        self._queued = asyncio.Event()
        self._prompted = asyncio.Event()
        self._overflowed = asyncio.Event()
        self._connected_before = False
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._tasks = TaskOwner("tracker client")

    # --- for the host ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; without any URL the host does without a tracker."""
        if self._urls:
            self._tasks.start(self._run(), name="tracker client")

    async def close(self) -> None:
        """Say goodbye, so that the tracker names this host to nobody any more."""
        if self._socket is not None:
            await _hang_up(self._socket, aiohttp.WSCloseCode.OK)
        await self._tasks.close()

    def note(self, key: SwarmKey, held_chunks: int, complete: bool) -> None:
        """Say what the host now holds of `key`: at the pace of the tracker, but complete blobs
        and retractions at once."""
        delta = Delta(key, held_chunks, complete)
        active = self._active.get(key)
        if active is not None:
            active.held = delta
        if not self.connected:
            return  # the next connection begins with the active swarms and the inventory
        self._changed[key] = delta
        if complete or not held_chunks:
            self._prompted.set()

    def join(self, key: SwarmKey, *, member: bool = True, exclude: Sequence[str] = ()) -> int:
        """Ask for neighbours; `listener.handout` gets the answer with the number returned here.

        A member stays in the swarm, over any number of connections, until `leave`.
        """
        known = self._active.get(key)
        stays = member or (known is not None and known.join.member)
        join = Join(next(self._seq), key, stays, list(exclude))
        self._active[key] = _Active(join, known.held if known else None)
        if len(self._active) > JOINS_MAX:
            self._active.popitem(last=False)
        self._send(join)
        return join.seq

    def leave(self, key: SwarmKey) -> None:
        if self._active.pop(key, None) is not None:
            self._send(Leave(key))

    async def lease(
        self, key: SwarmKey, *, timeout_s: float, on_behalf: Member | None = None
    ) -> LeaseAnswer | None:
        """Ask for the right to fetch `key` from outside; None: no tracker answered in time.

        A granted lease is renewed until `end_lease`. `on_behalf`: whom a tracker asks for.
        """
        if not self.connected:
            return None
        seq = next(self._seq)
        answer: asyncio.Future[LeaseAnswer | None] = asyncio.get_running_loop().create_future()
        self._asked[seq] = answer
        self._behalf[seq] = on_behalf
        self._send(LeaseAsk(seq, key, on_behalf))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._asked[seq], self._behalf[seq]

    def end_lease(self, key: SwarmKey, fence: int) -> None:
        held = self._leases.pop(key, None)
        self._send(LeaseEnd(key, held.fence if held is not None else fence))

    def revoke(self, records: Sequence[bytes]) -> None:
        """Pass on signed revocations, to this tracker and to those of later connections."""
        self._revocations.extend(records)
        self._send_revocations(list(records))

    def tell(self, message: PrewarmReport | Proof) -> None:
        """Answer an order; without a connection it is dropped, as the next one orders anew."""
        self._send(message)

    # --- the connection -------------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep a connection up; the first URL is preferred whenever one was lost."""
        backoff = Backoff(first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S, rng=self._rng)
        loop = asyncio.get_running_loop()
        turn = 0
        async with aiohttp.ClientSession() as http:
            while True:
                began_s, url = loop.time(), self._urls[turn % len(self._urls)]
                turn = 0 if await self._try(http, url) else turn + 1
                if turn == 0 and loop.time() - began_s > STABLE_S:
                    backoff.reset()
                await asyncio.sleep(backoff.next_delay_s())

    async def _try(self, http: aiohttp.ClientSession, url: str) -> bool:
        """Connect and stay; return whether there was a connection, once it is over."""
        welcomed = False
        try:
            socket = await self._connect(http, url)
            try:
                codec, welcome = await self._greet(socket)
                welcomed = True
                await self._converse(socket, codec, welcome)
            finally:
                await _hang_up(socket, aiohttp.WSCloseCode.GOING_AWAY)
        except* (aiohttp.ClientError, OSError, PeerFault) as group:
            error = str(group.exceptions[0])
            logs.event(log, logging.INFO, "tracker.lost", url=url, error=error)
        except* Exception:
            log.exception("tracker client failed; it connects again")
        finally:
            self._down()
        return welcomed

    async def _connect(
        self, http: aiohttp.ClientSession, url: str
    ) -> aiohttp.ClientWebSocketResponse:
        async with asyncio.timeout(CONNECT_S):
            return await http.ws_connect(
                f"{url.rstrip('/')}/control",
                max_msg_size=MESSAGE_BYTES_MAX,
                heartbeat=PING_S,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> tuple[FrameCodec, Welcome]:
        handshake = ClientHandshake(self._secret, self._me(), os.urandom, FEATURES)
        session: Session = await shake_as_client(socket, handshake)
        if session.member.role is not Role.TRACKER:
            raise PeerFault("not a tracker")
        self.tracker = session.member
        codec = FrameCodec(session.features)
        async with asyncio.timeout(HANDSHAKE_S):
            welcome = await _receive(socket, codec)
        if not isinstance(welcome, Welcome):
            raise PeerFault("a tracker that does not begin with a welcome")
        return codec, welcome

    async def _converse(
        self, socket: aiohttp.ClientWebSocketResponse, codec: FrameCodec, welcome: Welcome
    ) -> None:
        """Talk until the connection breaks, which raises; active swarms go first."""
        interval_s = min(max(welcome.announce_interval_s, 0.05), 60.0)
        heartbeat_s = min(max(welcome.heartbeat_s, 0.05), 60.0)
        returning = self._up(socket)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write(socket, codec), name="tracker write")
            tasks.create_task(self._announce_changes(interval_s), name="tracker announce")
            tasks.create_task(self._announce_all(interval_s, returning), name="tracker inventory")
            tasks.create_task(self._beat(heartbeat_s), name="tracker heartbeat")
            tasks.create_task(self._renew_leases(), name="tracker leases")
            tasks.create_task(self._watch_queue(), name="tracker queue")
            while True:
                self._receive_one(await _receive(socket, codec))

    def _up(self, socket: aiohttp.ClientWebSocketResponse) -> bool:
        """Say again what this host is about; return whether it had a connection before."""
        returning, self._connected_before = self._connected_before, True
        self._socket = socket
        self.connected = True
        if self._describe is not None:
            self._send(self._describe())
        for active in self._active.values():
            self._send(active.join)
        self._send_deltas([a.held for a in self._active.values() if a.held is not None])
        for key, held in self._leases.items():
            self._send(LeaseAsk(0, key, held.on_behalf))
        self._send_revocations(list(self._revocations))
        self._listener.tracker_up()
        return returning

    def _down(self) -> None:
        self._socket = None
        self._queue.clear()
        self._changed.clear()
        self._overflowed.clear()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(None)
        if self.connected:
            self.connected = False
            self._listener.tracker_down()

    # --- from the tracker -----------------------------------------------------------------------

    def _receive_one(self, message: FromTracker) -> None:
        match message:
            case Handout(seq, key, members):
                for member in members:
                    _check_host_id(member)
                active = self._active.get(SwarmKey(key))
                if active is not None and active.join.seq == seq and not active.join.member:
                    del self._active[SwarmKey(key)]
                self._listener.handout(message)
            case LeaseAnswer():
                self._take_lease(message)
            case Revoked(records):
                self._listener.revoked(records)
            case Prewarm() | PrewarmEnd() | Prove():
                self._on_order(message)
            case Welcome():
                raise PeerFault("a second welcome")
            case _:
                assert_never(message)

    def _take_lease(self, answer: LeaseAnswer) -> None:
        key, now_s = SwarmKey(answer.key), asyncio.get_running_loop().time()
        waiting = self._asked.get(answer.seq)
        held = self._leases.get(key)
        if answer.fence == 0:
            self._leases.pop(key, None)
        elif waiting is None and held is None:  # nobody waits for it any more
            self._send(LeaseEnd(key, answer.fence))
        else:
            keep_until_s, on_behalf = now_s + LEASE_KEPT_S, self._behalf.get(answer.seq)
            if waiting is None and held is not None:
                keep_until_s, on_behalf = held.keep_until_s, held.on_behalf
            renew_at_s = now_s + answer.expires_in_s / 3
            self._leases[key] = _HeldLease(answer.fence, on_behalf, renew_at_s, keep_until_s)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    # --- to the tracker -------------------------------------------------------------------------

    def _send(self, message: ToTracker) -> None:
        """Queue a message; without a connection there is nothing to do, `_up` says it all."""
        if not self.connected:
            return
        if len(self._queue) >= QUEUE_MAX:
            self._overflowed.set()
            return
        self._queue.append(message)
        self._queued.set()

    def _send_deltas(self, deltas: Sequence[Delta]) -> None:
        for start in range(0, len(deltas), BATCH_DELTAS):
            self._send(Announce(list(deltas[start : start + BATCH_DELTAS])))

    def _send_revocations(self, records: Sequence[bytes]) -> None:
        for start in range(0, len(records), BATCH_REVOCATIONS):
            self._send(Revoke(list(records[start : start + BATCH_REVOCATIONS])))

    async def _write(self, socket: aiohttp.ClientWebSocketResponse, codec: FrameCodec) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                await socket.send_bytes(codec.pack(encoder.encode(self._queue.popleft())))

    async def _watch_queue(self) -> None:
        await self._overflowed.wait()
        raise PeerFault("the tracker takes nothing in")

    async def _announce_changes(self, interval_s: float) -> None:
        while True:
            try:
                async with asyncio.timeout(interval_s * (0.9 + 0.2 * self._rng.random())):
                    await self._prompted.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(PROMPT_S)
            self._prompted.clear()
            deltas = list(self._changed.values())
            self._changed.clear()
            self._send_deltas(deltas)

    async def _announce_all(self, interval_s: float, returning: bool) -> None:
        """Replace all that the tracker knows of this host; the first connection does so at once."""
        if returning:
            spread_s = INVENTORY_SPREAD_INTERVALS * interval_s
            await asyncio.sleep(spread_s * self._rng.random())
        deltas = self._listener.full_announce()
        self._send(Announce(deltas[:BATCH_DELTAS], full=True))
        self._send_deltas(deltas[BATCH_DELTAS:])

    async def _beat(self, heartbeat_s: float) -> None:
        while True:
            self._send(Status(self._numbers()))
            await asyncio.sleep(heartbeat_s * (0.9 + 0.1 * self._rng.random()))

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_TICK_S)
            now_s = asyncio.get_running_loop().time()
            for key, held in list(self._leases.items()):
                if held.keep_until_s <= now_s:
                    del self._leases[key]
                elif held.renew_at_s <= now_s:
                    self._send(LeaseAsk(0, key, held.on_behalf))


async def _receive(socket: aiohttp.ClientWebSocketResponse, codec: FrameCodec) -> FromTracker:
    """Return the next message; raise ConnectionError at the end and PeerFault for nonsense."""
    frame = await socket.receive()
    if frame.type is not aiohttp.WSMsgType.BINARY:
        raise ConnectionResetError(f"closed with {frame.type.name} {frame.data} {frame.extra}")
    try:
        message: FromTracker = from_tracker_decoder.decode(codec.unpack(frame.data))
    except msgspec.DecodeError as error:
        raise PeerFault(f"malformed message of the tracker: {error}") from None
    return message


def _check_host_id(member: Member) -> None:
    try:
        parse_host_id(member.host_id)
    except ValueError as error:
        raise PeerFault(f"malformed handout: {error}") from None


async def _hang_up(socket: aiohttp.ClientWebSocketResponse, code: int) -> None:
    """Close within `HANG_UP_S`, also where the other end takes nothing in any more."""
    try:
        async with asyncio.timeout(HANG_UP_S):
            await socket.close(code=code)
    except TimeoutError:
        logs.event(log, logging.INFO, "tracker.hang_up_late")
