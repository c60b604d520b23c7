"""A real tracker on loopback, and a host that speaks the control protocol by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import TypeVar

from p2pdist.errors import PeerFault
from p2pdist.model.control import FromTracker, ToTracker, encoder, from_tracker_decoder
from p2pdist.model.control_wire import (
    FEATURES,
    MAGIC,
    FrameCodec,
    Kind,
    frame,
    parse_tracker_url,
)
from p2pdist.model.handshake import PROOF_BYTES, ClientHandshake
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.model.statements import Signer
from p2pdist.process.proxy_key_holder import ProxyKeyHolder
from p2pdist.tracker.core.state import TrackerLimits
from p2pdist.tracker.job_store import JobStore
from p2pdist.tracker.server import TrackerServer
from tests.fakes.secrets import held, only
from tests.tracker.hosts import host_id

SECRET = b"the secret of the test cluster"
SIGNER = Signer.generate()
TRACKER = Member(host_id(0xFFFF), Role.TRACKER, Place("dc1"))
DEADLINE_S = 20.0
M = TypeVar("M")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def tracker_server(
    port: int = 0,
    *,
    state_dir: Path | None = None,
    limits: TrackerLimits | None = None,
    job_store: JobStore | None = None,
) -> TrackerServer:
    return TrackerServer(
        Address("127.0.0.1", port),
        secret=held(SECRET),
        me=TRACKER,
        proxy_keys=ProxyKeyHolder(None, [SIGNER.public_key_bytes]),
        rng=Random(1),
        limits=limits,
        state_dir=state_dir,
        job_store=job_store,
    )


@asynccontextmanager
async def running(server: TrackerServer) -> AsyncIterator[str]:
    """Yield the base URL of `server` while it runs."""
    address = await server.start()
    try:
        yield f"tcp://{address}"
    finally:
        await server.close()


async def wait_until(condition: Callable[[], object]) -> None:
    """Return once `condition` holds of something that only the network brings about."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # the tracker has no event for its tests
            await asyncio.sleep(0.005)


class HandHost:
    """One connection of one host, message by message."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams
        self.codec = FrameCodec(0)
        self._ahead: list[tuple[int, bytes]] = []

    async def shake(self, me: Member, secret: bytes, features: int, instance: bytes = b"") -> None:
        """Raises PeerFault where the tracker does not know the secret, or ends the handshake."""
        handshake = ClientHandshake(only(secret), me, os.urandom, features, instance=instance)
        self._writer.write(MAGIC)
        await self.send_frame(Kind.HELLO, handshake.hello)
        kind, answer = await self.receive_frame()
        if kind != Kind.ANSWER:
            raise PeerFault(f"the handshake ended with {kind}")
        proof, session = handshake.finish(answer[PROOF_BYTES:], answer[:PROOF_BYTES])
        await self.send_frame(Kind.PROOF, proof)
        self.codec = FrameCodec(session.features)
        self._ahead.append(await self.receive_frame())  # the welcome: nothing is said before it

    async def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send_frame(self, kind: Kind, payload: bytes = b"") -> None:
        await self.send_bytes(frame(kind, payload))

    async def send(self, message: ToTracker) -> None:
        await self.send_frame(Kind.MESSAGE, self.codec.pack(encoder.encode(message)))

    async def receive_frame(self) -> tuple[int, bytes]:
        if self._ahead:
            return self._ahead.pop()
        async with asyncio.timeout(DEADLINE_S):
            head = await self._reader.readexactly(5)
            return head[4], await self._reader.readexactly(int.from_bytes(head[:4]))

    async def receive(self) -> FromTracker:
        kind, packed = await self.receive_frame()
        assert kind == Kind.MESSAGE, (kind, packed)
        message: FromTracker = from_tracker_decoder.decode(self.codec.unpack(packed))
        return message

    async def expect(self, kind: type[M]) -> M:
        """Return the next message of `kind`, passing over others."""
        while not isinstance(message := await self.receive(), kind):
            pass
        return message

    async def wait_closed(self) -> int:
        """Return the close code once the tracker ended the connection."""
        while True:
            kind, payload = await self.receive_frame()
            if kind == Kind.CLOSE:
                break
        async with asyncio.timeout(DEADLINE_S):
            assert await self._reader.read() == b""
        return payload[0]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[HandHost]:
    """Yield a host that has not said anything yet."""
    address = parse_tracker_url(url)
    streams = await asyncio.open_connection(address.host, address.port)
    try:
        yield HandHost(streams)
    finally:
        streams[1].close()
        with contextlib.suppress(OSError):
            await streams[1].wait_closed()


@asynccontextmanager
async def dialled(
    url: str,
    me: Member,
    *,
    secret: bytes = SECRET,
    features: int = FEATURES,
    instance: bytes = b"",
) -> AsyncIterator[HandHost]:
    """Yield a host that did the handshake; its welcome is the first message."""
    async with connected(url) as host:
        await host.shake(me, secret, features, instance)
        yield host
