"""An aiohttp application on an address, with the server options that all of ours share."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Collection
from typing import Final

from aiohttp import web

from p2pdist.exchange.accepting import Acceptor, network_of
from p2pdist.model.members import Address
from p2pdist.model.places import Places
from p2pdist.process import logs
from p2pdist.process.host_check import host_check
from p2pdist.process.http_protocol import HttpProtocol
from p2pdist.process.tasks import TaskOwner

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
    ) -> None:
        """More than `connections_max` at once: whose address has most of them loses its eldest.
        `names`: what the port may be called on loopback, beside what is nobody else's."""
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
        self._sparing = logs.Sparing()

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
        await self._runner.cleanup()

    def _accepted(self, sock: socket.socket) -> None:
        self._accepting.start(self._serve(sock), name="accept")

    async def _serve(self, sock: socket.socket) -> None:
        server, loop = self._runner.server, asyncio.get_running_loop()
        assert server is not None
        connection = HttpProtocol(server, self._sparing, self._connections.leave, loop)
        loser = self._connections.take(network_of(sock), connection)
        if loser is not None:
            loser.crowded_out()
        try:
            await loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:  # it has gone in the meantime
            self._connections.leave(connection)
            with contextlib.suppress(OSError):
                sock.close()
        except BaseException:
            self._connections.leave(connection)
            sock.close()
            raise
