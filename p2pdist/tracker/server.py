"""The tracker's shell: WebSockets in, `TrackerCore` in the middle, frames out; no rule of its own.

All waits are for the network or the core's one deadline. Runs on uvloop and on stock asyncio.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final, TypeVar, assert_never

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from p2pdist.errors import PeerFault
from p2pdist.model.control import FromTracker, LeaseAsk, encoder, to_tracker_decoder
from p2pdist.model.handshake import ServerHandshake, Session
from p2pdist.model.members import Address, Member
from p2pdist.model.statements import Keyring
from p2pdist.runtime import clock, logs
from p2pdist.runtime.control_socket import (
    FEATURE_ZSTD,
    FEATURES,
    MESSAGE_BYTES_MAX,
    FrameCodec,
    shake_as_server,
)
from p2pdist.runtime.listening import HttpServer
from p2pdist.runtime.tasks import TaskOwner
from p2pdist.tracker import snapshot
from p2pdist.tracker.admission import check_member
from p2pdist.tracker.connection import CLOSE_S, Connection
from p2pdist.tracker.core.grants import Forward, ForwardEnd
from p2pdist.tracker.core.jobs.book import JobBook
from p2pdist.tracker.core.orders import Close, Send, SendAll, SendMany
from p2pdist.tracker.core.state import (
    Event,
    HostConnected,
    HostDisconnected,
    MessageReceived,
    Order,
    RemoteAnswered,
    RemotesChanged,
    TrackerCore,
    TrackerLimits,
)
from p2pdist.tracker.federation import Federation
from p2pdist.tracker.job_keeping import JobKeeper
from p2pdist.tracker.job_store import JobStore, NoJobStore

CONTROL_PATH: Final = "/control"
# Full: 503 at once, and the host tries again with its backoff. Each may buffer one frame.
HANDSHAKES_MAX: Final = 1024
# After a restart all hosts come at once.
BACKLOG: Final = 4096
# A frame to 1,000 queues takes about 1 ms of the event loop.
SEND_SLICE: Final = 1000

T = TypeVar("T")

log = logging.getLogger(__name__)


class TrackerServer:
    """Serves the control connections of one tracker.

    `me` is what hosts are told about the tracker; `state_dir` keeps the snapshot, None: none;
    `federation` are the base URLs of other datacenters' trackers; `job_store` outlives the process.
    """

    def __init__(
        self,
        listen: Address,
        *,
        secret: bytes,
        me: Member,
        keyring: Keyring,
        rng: Random,
        limits: TrackerLimits | None = None,
        state_dir: Path | None = None,
        federation: Sequence[str] = (),
        job_store: JobStore | None = None,
    ) -> None:
        self._listen = listen
        self._secret = secret
        self._me = me
        self._keyring = keyring
        self._rng = rng
        self._limits = limits
        self._snapshot_path = state_dir / snapshot.FILE_NAME if state_dir else None
        self._connections: dict[int, Connection] = {}
        self._links = itertools.count(1)
        self._handshakes = 0
        self._codecs = {flag: FrameCodec(flag) for flag in (0, FEATURE_ZSTD)}
        self._tasks = TaskOwner("tracker")
        self.job_keeper = JobKeeper(job_store or NoJobStore())
        self._federation = Federation(
            federation,
            secret=secret,
            me=me,
            rng=rng,
            changed=lambda dcs: self._feed(RemotesChanged(dcs)),
            answered=lambda forward, answer: self._feed(RemoteAnswered(forward, answer)),
        )
        self._http: HttpServer | None = None
        self._timer: asyncio.Handle | None = None
        self._timer_s = 0.0
        self.core: TrackerCore
        """From `start` on; its counters are the tracker's metrics."""

    async def start(self) -> Address:
        """Load the snapshot and listen; return the address, with the port that was bound.

        Raises OSError where the address cannot be bound.
        """
        self._loop = asyncio.get_running_loop()
        self.core = TrackerCore(
            epoch=secrets.token_hex(8),
            dc=self._me.place.dc,
            epoch_s=self._loop.time(),
            epoch_unix_s=clock.unix_s(),
            keyring=self._keyring,
            rng=self._rng,
            limits=self._limits,
            token=os.urandom,
        )
        if self._snapshot_path is not None:
            await snapshot.load(self.core, self._snapshot_path, self._loop.time())
        await self.job_keeper.load(self.core.jobs, self._loop.time())
        self._arm_timer()
        app = web.Application()
        app.router.add_get(CONTROL_PATH, self._serve)
        self._http = HttpServer(
            self._listen, app, backlog=BACKLOG, shutdown_s=CLOSE_S, handler_cancellation=False
        )
        address = await self._http.start()
        self._federation.start()
        if self._snapshot_path is not None:
            keep = snapshot.keep_writing(self.core, self._snapshot_path)
            self._tasks.start(keep, name="tracker snapshots")
        self._tasks.start(self.job_keeper.keep_writing(self.core.jobs), name="tracker jobs")
        return Address(self._listen.host, address.port)

    async def close(self) -> None:
        """Say goodbye to all hosts, write a last snapshot and stop listening."""
        await self._federation.close()
        await self._tasks.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._snapshot_path is not None:
            await snapshot.save(self.core, self._snapshot_path)
        await self.job_keeper.close(self.core.jobs)
        for connection in list(self._connections.values()):
            connection.close("the tracker is going away", WSCloseCode.GOING_AWAY)
        if self._http is not None:
            await self._http.close()

    # --- connections ----------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._handshakes >= HANDSHAKES_MAX:
            raise web.HTTPServiceUnavailable(text="too many handshakes at once\n")
        socket = web.WebSocketResponse(
            compress=False, max_msg_size=MESSAGE_BYTES_MAX, timeout=CLOSE_S
        )
        self._handshakes += 1
        try:
            await socket.prepare(request)
            session = await self._shake(socket)
        except (PeerFault, TimeoutError, ConnectionError) as error:
            self.core.counters.protocol_faults_total += 1
            logs.event(
                log, logging.WARNING, "control.refused", peer=request.remote, error=str(error)
            )
            if socket.prepared:
                await socket.close(code=WSCloseCode.POLICY_VIOLATION)
            return socket
        finally:
            self._handshakes -= 1
        await self._attend(request, socket, session)
        return socket

    async def _shake(self, socket: web.WebSocketResponse) -> Session:
        handshake = ServerHandshake(self._secret, self._me, os.urandom, FEATURES)
        session = await shake_as_server(socket, handshake)
        check_member(session.member)
        return session

    async def _attend(
        self, request: web.Request, socket: web.WebSocketResponse, session: Session
    ) -> None:
        """Serve one host until its connection ends."""
        assert request.transport is not None
        codec = self._codecs[session.features & FEATURE_ZSTD]
        connection = Connection(next(self._links), session.member, socket, request.transport, codec)
        leaving = False
        self._connections[connection.link] = connection
        try:
            self._feed(HostConnected(connection.link, session.member))
            async with asyncio.TaskGroup() as tasks:
                name = f"write to {session.member.host_id[:8]}"
                writer = tasks.create_task(connection.write_frames(), name=name)
                leaving = await self._read(connection)
                if not connection.finishing:
                    writer.cancel()
        except* ConnectionError:
            pass  # the host went away while a frame was under way to it
        finally:
            del self._connections[connection.link]
            self._feed(HostDisconnected(connection.link, leaving))

    async def _read(self, connection: Connection) -> bool:
        """Feed the core until the connection ends; return whether the host said goodbye."""
        while True:
            message = await connection.socket.receive()
            if message.type is not WSMsgType.BINARY:
                return message.type is WSMsgType.CLOSE and message.data == WSCloseCode.OK
            if connection.closing:
                continue
            try:
                decoded = to_tracker_decoder.decode(connection.codec.unpack(message.data))
                if isinstance(decoded, LeaseAsk) and decoded.on_behalf is not None:
                    check_member(decoded.on_behalf)
            except (PeerFault, msgspec.DecodeError) as error:
                self.core.counters.protocol_faults_total += 1
                self._close(connection.link, str(error))
            else:
                self._feed(MessageReceived(connection.link, decoded))

    # --- the core -------------------------------------------------------------------------------

    def act(self, work: Callable[[JobBook, float], T]) -> T:
        """Let an operator's wish at the jobs, then carry out what follows from it."""
        result = work(self.core.jobs, self._loop.time())
        self._carry_out(self.core.jobs.drain())
        self._arm_timer()
        return result

    def _feed(self, event: Event) -> None:
        self._carry_out(self.core.handle(event, self._loop.time()))
        self._arm_timer()

    def _on_timer(self) -> None:
        self._timer = None
        self._carry_out(self.core.handle_deadline(self._loop.time()))
        self._arm_timer()

    def _arm_timer(self) -> None:
        """Deadlines mostly move back: a timer that rings early is cheaper than one per message."""
        deadline_s = self.core.next_deadline_s()
        if deadline_s is None or (self._timer is not None and self._timer_s <= deadline_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        # uvloop gives a plain handle, without a time, for a moment that has passed.
        self._timer_s = deadline_s
        self._timer = self._loop.call_at(deadline_s, self._on_timer)

    def _carry_out(self, orders: Sequence[Order]) -> None:
        for order in orders:
            match order:
                case Send(link, message):
                    if (connection := self._connections.get(link)) is not None:
                        connection.send(connection.codec.pack(encoder.encode(message)))
                case SendMany(links, message):
                    found = map(self._connections.get, links)
                    self._send_to([one for one in found if one is not None], message)
                case SendAll(message):
                    self._send_to(list(self._connections.values()), message)
                case Close(link, reason):
                    self._close(link, reason)
                case Forward():
                    self._federation.forward(order)
                case ForwardEnd():
                    self._federation.end(order)
                case _:
                    assert_never(order)

    def _close(self, link: int, reason: str) -> None:
        connection = self._connections.get(link)
        if connection is not None:
            host = connection.member.host_id
            logs.event(log, logging.WARNING, "control.closed", host=host, reason=reason)
            connection.close(reason)

    def _send_to(self, connections: list[Connection], message: FromTracker) -> None:
        payload = encoder.encode(message)
        frames = {flag: codec.pack(payload) for flag, codec in self._codecs.items()}
        self._send_slice(frames, connections)

    def _send_slice(self, frames: dict[int, bytes], connections: list[Connection]) -> None:
        for connection in connections[:SEND_SLICE]:
            connection.send(frames[FEATURE_ZSTD if connection.codec.compresses else 0])
        if rest := connections[SEND_SLICE:]:
            self._loop.call_soon(self._send_slice, frames, rest)
