"""An aiohttp application on an address, with the server options that all of ours share."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable, Collection
from typing import Final

from aiohttp import web

from p2pdist.exchange.accepting import Acceptor, network_of
from p2pdist.model.members import Address
from p2pdist.model.places import Places
from p2pdist.process import audit, logs
from p2pdist.process.host_check import host_check
from p2pdist.process.http_protocol import HEAD_S, HttpProtocol
from p2pdist.process.inbox import Inbox
from p2pdist.process.tasks import TaskOwner
from p2pdist.process.tls import TLS_HANDSHAKE, TlsTransport

# A body that still goes out when the daemon ends has this long (operations, section 3).
SHUTDOWN_S: Final = 30.0
BACKLOG: Final = 1024
# Also at most a quarter of this process's descriptors: bodies, links and files need the others.
CONNECTIONS_MAX: Final = 4096


class HttpServer:
    def __init__(
        self,
        listen: Address,
        app: web.Application,
        *,
        backlog: int = BACKLOG,
        shutdown_s: float = SHUTDOWN_S,
        handler_cancellation: bool = True,
        connections_max: int = CONNECTIONS_MAX,
        names: Collection[str] = (),
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        """More than `connections_max` at once: whose address has most of them loses its eldest.
        `names`: what the port may be called on loopback, beside what is nobody else's. `tls`: asked
        at each connection; with one, who begins with TLS is spoken to in TLS."""
        app.middlewares.insert(0, host_check(names))
        self._listen = listen
        self._connections: Places[str, HttpProtocol] = Places(
            min(connections_max, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        )
        self._runner = web.AppRunner(
            app,
            handler_cancellation=handler_cancellation,
            shutdown_timeout=shutdown_s,
        )
        # Not aiohttp's site: asyncio's server spins where no descriptor is left.
        self._acceptor = Acceptor(self._accepted, backlog=backlog)
        self._accepting = TaskOwner("http")
        self._tls = tls
        self._shaking: Inbox[TlsTransport] = Inbox(TlsTransport.go_on)
        self._opening: dict[HttpProtocol, asyncio.Task[None]] = {}
        """Which nobody has said a word on."""
        self._sparing, self._refusals = logs.Sparing(), audit.Refusals()

    async def start(self) -> Address:
        """Listen; return the bound address (port 0 takes a free one). Raises OSError."""
        await self._runner.setup()
        try:
            return Address(*await self._acceptor.listen(self._listen.host, self._listen.port))
        except OSError:
            await self._runner.cleanup()
            raise

    async def close(self) -> None:
        """Stop accepting, let bodies end within `shutdown_s`, close."""
        self._acceptor.close()
        await self._accepting.close()
        self._shaking.close()
        await self._runner.cleanup()

    def _accepted(self, sock: socket.socket) -> None:
        server, loop = self._runner.server, asyncio.get_running_loop()
        assert server is not None
        connection = HttpProtocol(
            server, self._sparing, self._refusals, self._connections.leave, loop
        )
        loser = self._connections.take(network_of(sock), connection)
        if loser is not None:
            loser.crowded_out()
            if (opening := self._opening.get(loser)) is not None:
                opening.cancel()
        task = self._accepting.start(self._serve(sock, connection), name="accept")
        self._opening[connection] = task
        task.add_done_callback(lambda task: self._opened(sock, connection, task))

    def _opened(
        self, sock: socket.socket, connection: HttpProtocol, task: asyncio.Task[None]
    ) -> None:
        del self._opening[connection]
        if task.cancelled():  # perhaps before it began
            self._connections.leave(connection)
            sock.close()

    async def _serve(self, sock: socket.socket, connection: HttpProtocol) -> None:
        loop = asyncio.get_running_loop()
        protocol: asyncio.Protocol = connection
        try:
            context = None if connection.unwanted else self._tls()
            if context is not None and await _first_byte(sock) == TLS_HANDSHAKE:
                protocol = TlsTransport(
                    connection, context, server_side=True, later=self._shaking.put
                )
            await loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError:  # it has gone in the meantime, or says nothing
            self._connections.leave(connection)
            with contextlib.suppress(OSError):
                sock.close()
        except BaseException:
            self._connections.leave(connection)
            sock.close()
            raise


async def _first_byte(sock: socket.socket) -> int:
    """Return what comes first, which stays there; raise OSError for nothing in `HEAD_S`.

    Not a part of TLS in front of every connection: files go out by `sendfile` on those in clear.
    """
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _come, readable)
    try:
        async with asyncio.timeout(HEAD_S):
            await readable
    finally:
        loop.remove_reader(sock)
    first = sock.recv(1, socket.MSG_PEEK)
    if not first:
        raise ConnectionResetError("closed without a word")
    return first[0]


def _come(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
