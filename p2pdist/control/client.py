"""A host's line to its tracker: always being kept up, never waited for by a pull.

What the host is about (its joins, what it holds of them, its leases, its revocations) is state
here and is said again on every new connection; so nothing is lost with a connection, and nothing
but the newest value is ever queued while there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final, Protocol, TypeVar, assert_never

from p2pdist.control.core.redial import Redial
from p2pdist.control.line import ClockHeard, ControlLine
from p2pdist.control.trace_questions import TraceQuestions
from p2pdist.errors import PeerFault
from p2pdist.exchange.dialling import connected
from p2pdist.model.control import (
    DELTAS_MAX,
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
    Trace,
    TraceAnswer,
    Welcome,
)
from p2pdist.model.control_wire import (
    CONNECT_S,
    HANDSHAKE_S,
    CloseCode,
    parse_tracker_url,
    shared_codecs,
)
from p2pdist.model.handshake import Session
from p2pdist.model.health import Reason
from p2pdist.model.ids import Digest, parse_host_id
from p2pdist.model.members import Member, Role
from p2pdist.runtime import logs
from p2pdist.runtime.health import TRACKER, Health
from p2pdist.runtime.tasks import TaskOwner

# A tracker that serves a storm answers late; one whose machine is gone is found by the kernel
# (`line.USER_TIMEOUT_MS`), and this is for one that hangs.
PING_S: Final = 10.0
SILENT_PINGS_MAX: Final = 3
PROMPT_S: Final = 0.05
# A fleet whose tracker restarted spreads its inventories over this many announce intervals.
INVENTORY_SPREAD_INTERVALS: Final = 5.0
# 64 signatures are about 8 ms of the tracker's event loop.
BATCH_REVOCATIONS: Final = 64
# Full: the oldest is forgotten; it is only missing after the next loss of the connection.
JOINS_MAX: Final = 4096
REVOCATIONS_KEPT_MAX: Final = 256
RENEW_TICK_S: Final = 1.0
HANG_UP_S: Final = 1.0
# A lease that nobody ended by then was forgotten: the largest layers take minutes.
LEASE_KEPT_S: Final = 900.0

log = logging.getLogger(__name__)

T = TypeVar("T")


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
    """Keeps one connection to the first of `urls` that answers (base URLs, `tcp://host:port`).

    `me` and `numbers` are asked at each connection and each heartbeat, `me` once it is known where
    the connection comes from (`spoke_from`: the URL and the address of this end). All methods are
    for the event loop and return at once, but `lease` and `close`.
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
        spoke_from: Callable[[str, str], None] = lambda url, host: None,
        instance: bytes = b"",
        on_id_in_use: Callable[[str], None] = lambda _: None,
        health: Health | None = None,
    ) -> None:
        """`describe`: what to say of this host first; without it, it takes no prewarm orders.
        `on_order` gets the tracker's; called on the event loop, must not block. `health` is told of
        other secrets and clocks. `instance`: of this process, see `clones`; `on_id_in_use` hears
        what a tracker says of another host with our id, before it is dialled again."""
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
        self._spoke_from = spoke_from
        self._instance = instance
        self._on_id_in_use = on_id_in_use
        self._health = health or Health()
        self._seq = itertools.count(1)
        self._traces = TraceQuestions(self._send, self._seq)
        self._active: OrderedDict[SwarmKey, _Active] = OrderedDict()
        self._changed: dict[SwarmKey, Delta] = {}
        self._revocations: deque[bytes] = deque(maxlen=REVOCATIONS_KEPT_MAX)
        self._asked: dict[int, asyncio.Future[LeaseAnswer | None]] = {}
        self._behalf: dict[int, Member | None] = {}
        self._leases: dict[SwarmKey, _HeldLease] = {}
        self._prompted = asyncio.Event()
        self._connected_before = False
        self._closed = False
        self._codecs = shared_codecs()
        self._dialled: ControlLine | None = None
        self._line: ControlLine | None = None
        """The one that the handshake is done on."""
        self._told: Member | None = None
        """What the tracker knows this host as."""
        self._up_s = 0.0
        self._greeted: asyncio.Future[None]
        self._welcomed: asyncio.Future[Welcome]
        self._ended: asyncio.Future[str]
        """Of the line that is there or about to be; made anew for each."""
        self._tasks = TaskOwner("tracker client")

    # --- for the host ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; without any URL the host does without a tracker."""
        if self._urls:
            self._tasks.start(self._run(), name="tracker client")

    async def close(self) -> None:
        """Say goodbye, so that the tracker names this host to nobody any more."""
        self._closed = True
        line = self._line
        if line is not None:
            line.hang_up(CloseCode.GOODBYE)
        await self._tasks.close()
        if line is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANG_UP_S):
                    await self._ended

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

    async def trace(self, layer: Digest, *, timeout_s: float) -> list[int]:
        """See `TraceQuestions.ask`."""
        return await self._traces.ask(layer, timeout_s=timeout_s) if self.connected else []

    def end_lease(self, key: SwarmKey, fence: int) -> None:
        held = self._leases.pop(key, None)
        self._send(LeaseEnd(key, held.fence if held is not None else fence))

    def revoke(self, records: Sequence[bytes]) -> None:
        """Pass on signed revocations, to this tracker and to those of later connections."""
        self._revocations.extend(records)
        self._send_revocations(list(records))

    def tell(self, message: PrewarmReport | Proof | Trace) -> None:
        """Answer an order, or tell of a start. Without a connection it is dropped: the next tracker
        orders anew, and the next start tells as much."""
        self._send(message)

    def tell_who_we_are(self) -> None:
        """Connect anew if the tracker knows this host as something that it is not any more."""
        if self._line is not None and self._told != self._me():
            self._line.hang_up(CloseCode.GOING_AWAY)

    # --- the connection -------------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep a connection up, whatever happens to it."""
        redial = Redial(self._urls, self._rng)
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._try(redial)
            except Exception:
                redial.failed()
                log.exception("tracker client failed; it connects again")
            if self._closed:  # Python 3.11's task groups lose a cancellation while they end
                return
            await asyncio.sleep(redial.delay_s(loop.time()))

    async def _try(self, redial: Redial) -> None:
        """Connect and stay; tell `redial` how it went, once it is over."""
        loop = asyncio.get_running_loop()
        self._forget_line()
        error = ""
        try:
            line = await self._dial(redial.url)
            welcome = await self._first(self._welcomed, HANDSHAKE_S)
            await self._converse(line, welcome)
        except* (OSError, PeerFault) as group:  # TimeoutError is an OSError
            error = str(group.exceptions[0]) or type(group.exceptions[0]).__name__
        finally:
            up_s, self._up_s = self._up_s, 0.0
            url = redial.url
            self._down()
        last = self._dialled
        if last is not None and last.wrong_secret:
            self._health.happened(Reason.WRONG_SECRET, url, f"the tracker {url} has another secret")
        if last is not None and last.id_in_use:
            self._on_id_in_use(f"{url}: {last.id_in_use}")
        if last is not None and last.retry_after_s is not None:
            redial.refused(last.retry_after_s, loop.time())
        elif up_s:
            redial.lost(loop.time() - up_s)
        else:
            redial.failed()
        logs.event(log, logging.INFO, "tracker.lost", url=url, error=error)

    def _hear_clock(self, url: str, told: ClockHeard) -> None:
        self._health.mended(Reason.WRONG_SECRET, url)  # it is told behind the tracker's proof only
        self._health.heard_clock(
            TRACKER, url, told.unix_ms, asked_s=told.asked_s, answered_s=told.answered_s
        )

    def _forget_line(self) -> None:
        loop = asyncio.get_running_loop()
        self._greeted, self._welcomed = loop.create_future(), loop.create_future()
        self._ended, self._up_s = loop.create_future(), 0.0
        self._dialled = None

    async def _dial(self, url: str) -> ControlLine:
        """Connect and be answered; `CONNECT_S` is for both together."""
        loop = asyncio.get_running_loop()
        address = parse_tracker_url(url)
        async with asyncio.timeout(CONNECT_S):
            sock = await connected(address)
            try:
                line = self._begin(url, sock)
                await loop.create_connection(lambda: line, sock=sock)
            except BaseException:
                sock.close()
                raise
            try:
                await self._first(self._greeted, CONNECT_S)
            except BaseException:
                line.abort("no answer in time")
                raise
        return line

    def _begin(self, url: str, sock: socket.socket) -> ControlLine:
        self._spoke_from(url, sock.getsockname()[0])
        self._told = self._me()
        line = ControlLine(
            self,
            self._secret,
            self._told,
            self._codecs,
            unix_ms=self._health.unix_ms,
            instance=self._instance,
        )
        line.on_clock = partial(self._hear_clock, url)
        self._dialled = line
        return line

    async def _first(self, future: asyncio.Future[T], timeout_s: float) -> T:
        """Return what comes; raise ConnectionError where the line ends before."""
        async with asyncio.timeout(timeout_s):
            await asyncio.wait((future, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise ConnectionResetError(self._ended.result())
        return future.result()

    async def _converse(self, line: ControlLine, welcome: Welcome) -> None:
        """Talk until the connection breaks, which raises; active swarms go first."""
        interval_s = min(max(welcome.announce_interval_s, 0.05), 60.0)
        heartbeat_s = min(max(welcome.heartbeat_s, 0.05), 60.0)
        self._up_s = asyncio.get_running_loop().time()
        returning = self._up()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce_changes(interval_s), name="tracker announce")
            tasks.create_task(self._announce_all(line, interval_s, returning), name="inventory")
            tasks.create_task(self._beat(heartbeat_s), name="tracker heartbeat")
            tasks.create_task(self._ping(line), name="tracker ping")
            tasks.create_task(self._renew_leases(), name="tracker leases")
            raise ConnectionResetError(await asyncio.shield(self._ended))

    async def _ping(self, line: ControlLine) -> None:
        silent = 0
        while silent < SILENT_PINGS_MAX:
            line.heard = False
            line.ping()
            await asyncio.sleep(PING_S)
            silent = 0 if line.heard else silent + 1
        line.abort("silent")

    def _up(self) -> bool:
        """Say again what this host is about; return whether it had a connection before."""
        returning, self._connected_before = self._connected_before, True
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
        if self._line is not None:
            self._line.hang_up(CloseCode.GOING_AWAY)
            self._line = None
        self._changed.clear()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(None)
        if self.connected:
            self.connected = False
            self._listener.tracker_down()

    # --- called by the line ---------------------------------------------------------------------

    def line_up(self, line: ControlLine, session: Session) -> None:
        if session.member.role is not Role.TRACKER:
            raise PeerFault("not a tracker")
        self.tracker = session.member
        self._line = line
        if not self._greeted.done():
            self._greeted.set_result(None)

    def take(self, line: ControlLine, message: FromTracker) -> None:
        if self._welcomed.done():
            self._receive_one(message)
        elif isinstance(message, Welcome):
            self._welcomed.set_result(message)
        else:
            raise PeerFault("a tracker that does not begin with a welcome")

    def line_lost(self, line: ControlLine, why: str) -> None:
        if line is self._dialled and not self._ended.done():
            self._ended.set_result(why)

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
            case TraceAnswer():
                self._traces.answered(message)
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
        if self._line is not None:
            self._line.send(message)

    def _send_deltas(self, deltas: Sequence[Delta]) -> None:
        for start in range(0, len(deltas), DELTAS_MAX):
            self._send(Announce(list(deltas[start : start + DELTAS_MAX])))

    def _send_revocations(self, records: Sequence[bytes]) -> None:
        for start in range(0, len(records), BATCH_REVOCATIONS):
            self._send(Revoke(list(records[start : start + BATCH_REVOCATIONS])))

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

    async def _announce_all(self, line: ControlLine, interval_s: float, returning: bool) -> None:
        """Replace all that the tracker knows of this host; the first connection does so at once.

        Batch by batch, each when the tracker has taken most of the one before."""
        if returning:
            spread_s = INVENTORY_SPREAD_INTERVALS * interval_s
            await asyncio.sleep(spread_s * self._rng.random())
        deltas = self._listener.full_announce()
        self._send(Announce(deltas[:DELTAS_MAX], full=True))
        for start in range(DELTAS_MAX, len(deltas), DELTAS_MAX):
            await line.drained()
            self._send(Announce(deltas[start : start + DELTAS_MAX]))

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


def _check_host_id(member: Member) -> None:
    try:
        parse_host_id(member.host_id)
    except ValueError as error:
        raise PeerFault(f"malformed handout: {error}") from None
