"""A real tracker on loopback, and a host that speaks the control protocol by hand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import TypeVar

import aiohttp

from p2pdist.model.control import FromTracker, ToTracker, encoder, from_tracker_decoder
from p2pdist.model.handshake import ClientHandshake
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.model.statements import Keyring, Signer
from p2pdist.runtime.control_socket import FEATURES, FrameCodec, shake_as_client
from p2pdist.tracker.core.state import TrackerLimits
from p2pdist.tracker.job_store import JobStore
from p2pdist.tracker.server import TrackerServer
from tests.tracker.hosts import host_id

SECRET = b"the secret of the test cluster"
SIGNER = Signer.generate()
TRACKER = Member(host_id(0xFFFF), Role.TRACKER, Place("dc1"))
DEADLINE_S = 20.0
M = TypeVar("M")


def tracker_server(
    port: int = 0,
    *,
    state_dir: Path | None = None,
    limits: TrackerLimits | None = None,
    job_store: JobStore | None = None,
) -> TrackerServer:
    return TrackerServer(
        Address("127.0.0.1", port),
        secret=SECRET,
        me=TRACKER,
        keyring=Keyring([SIGNER.public_key_bytes]),
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
        yield f"ws://{address}"
    finally:
        await server.close()


async def wait_until(condition: Callable[[], object]) -> None:
    """Return once `condition` holds of something that only the network brings about."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # the tracker has no event for its tests
            await asyncio.sleep(0.005)


class HandHost:
    """One connection of one host, message by message."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, codec: FrameCodec) -> None:
        self.socket = socket
        self.codec = codec

    async def send(self, message: ToTracker) -> None:
        await self.socket.send_bytes(self.codec.pack(encoder.encode(message)))

    async def receive(self) -> FromTracker:
        async with asyncio.timeout(DEADLINE_S):
            frame = await self.socket.receive_bytes()
        message: FromTracker = from_tracker_decoder.decode(self.codec.unpack(frame))
        return message

    async def expect(self, kind: type[M]) -> M:
        """Return the next message of `kind`, passing over others."""
        while not isinstance(message := await self.receive(), kind):
            pass
        return message

    async def wait_closed(self) -> int | None:
        """Return the close code once the tracker ended the connection."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.socket.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
        return self.socket.close_code


@asynccontextmanager
async def dialled(
    url: str, me: Member, *, secret: bytes = SECRET, features: int = FEATURES
) -> AsyncIterator[HandHost]:
    """Yield a host that did the handshake; its welcome is the first message."""
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/control") as socket:
        handshake = ClientHandshake(secret, me, os.urandom, features)
        session = await shake_as_client(socket, handshake)
        yield HandHost(socket, FrameCodec(session.features))
