"""Takes in TCP connections, and waits where there is no descriptor left for one.

asyncio's own server tries a whole backlog of connections anew in that case, logs each with a
traceback, and sets a timer for each that does the same again: with a backlog of 1,024 a proxy
without descriptors spent all of its core on it, and bodies that were on their way took ten times as
long (CPython 3.11, `BaseSelectorEventLoop._accept_connection`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import resource
import socket
from collections.abc import Callable
from typing import Final

from p2pdist.errors import CannotListen
from p2pdist.model.health import RULES, Reason

log = logging.getLogger(__name__)

ACCEPT_PAUSE_S: Final = 0.1
# Ten tries a second would say the same for as long as it lasts.
SAY_EVERY_S: Final = 60.0
# A burst of connections must not keep the loop from those that are there.
ACCEPTS_PER_TURN: Final = 16


def network_of(sock: socket.socket) -> str:
    """Who is at the other end, for shares among those who come: an IPv4 address, or the /64 of an
    IPv6 one, of which any host has as many as it likes. Empty when it has gone."""
    try:
        name = sock.getpeername()
    except OSError:
        return ""
    return network_of_address(str(name[0]))


def network_of_address(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)


class Acceptor:
    """Listens, and hands each connection over as a non-blocking socket."""

    def __init__(
        self,
        accepted: Callable[[socket.socket], None],
        *,
        backlog: int,
        per_turn: int = ACCEPTS_PER_TURN,
    ) -> None:
        self._accepted = accepted
        self._backlog = backlog
        self._per_turn = per_turn
        self._listeners: list[socket.socket] = []
        self._pauses: set[asyncio.TimerHandle] = set()
        self._said_s = -math.inf

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept on every address that `host` stands for; return the first one that was bound.

        Raises CannotListen where one cannot be bound. Port 0 takes a free one.
        """
        try:
            return await self._listen(host, port)
        except OSError as error:
            raise CannotListen(host, port, error) from None

    async def _listen(self, host: str, port: int) -> tuple[str, int]:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, kind, protocol, _, address in dict.fromkeys(infos):
                self._listeners.append(self._bind(family, kind, protocol, address))
        except BaseException:
            self.close()
            raise
        for listener in self._listeners:
            loop.add_reader(listener, self._on_accept, listener)
        bound_host, bound_port, *_ = self._listeners[0].getsockname()
        return bound_host, bound_port

    def _bind(
        self, family: int, kind: int, protocol: int, address: tuple[object, ...]
    ) -> socket.socket:
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(self._backlog)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        return listener

    def close(self) -> None:
        """Stop accepting; connections that were handed over go on."""
        loop = asyncio.get_running_loop()
        for pause in self._pauses:
            pause.cancel()
        self._pauses.clear()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def _on_accept(self, listener: socket.socket) -> None:
        for _ in range(self._per_turn):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors: pause, do not spin, do not die
                self._say(error)
                self._pause(listener)
                return
            sock.setblocking(False)
            self._accepted(sock)

    def _say(self, error: OSError) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._said_s < SAY_EVERY_S:
            return
        self._said_s = now_s
        nofile, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        fix = RULES[Reason.FEW_DESCRIPTORS].fix
        log.warning("accept failed: %s; %d files may be open; fix: %s", error, nofile, fix)

    def _pause(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)

        def resume() -> None:
            self._pauses.discard(pause)
            loop.add_reader(listener, self._on_accept, listener)

        pause = loop.call_later(ACCEPT_PAUSE_S, resume)
        self._pauses.add(pause)
