from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import web

from p2pdist.model.members import Address
from p2pdist.runtime.listening import HttpServer

LOOPBACK = Address("127.0.0.1", 0)


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


@contextlib.asynccontextmanager
async def serving(host: str = "127.0.0.1"):
    app = web.Application()
    app.router.add_get("/", _hello)
    server = HttpServer(Address(host, 0), app)
    address = await server.start()
    try:
        yield address
    finally:
        await server.close()


async def get(url: str) -> str:
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return await answer.text()


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Nothing more can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_it_serves_on_a_free_port() -> None:
    async with serving() as address:
        assert await get(f"http://{address}/") == "hello"


async def test_it_serves_over_ipv6() -> None:
    async with serving("::1") as address:
        assert await get(f"http://[::1]:{address.port}/") == "hello"


async def test_a_port_that_is_taken_raises_and_leaves_nothing_open() -> None:
    async with serving() as address:
        with pytest.raises(OSError, match="in use"):
            await HttpServer(address, web.Application()).start()


async def test_without_descriptors_it_waits_instead_of_spinning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """asyncio's own server logs a traceback for each of its backlog of 1,024, again and again."""
    loop = asyncio.get_running_loop()
    async with serving() as address:
        waiting = [socket.socket() for _ in range(20)]
        for sock in waiting:
            sock.setblocking(False)
        with caplog.at_level(logging.WARNING), no_descriptors_left():
            for sock in waiting:
                with contextlib.suppress(BlockingIOError):
                    sock.connect((address.host, address.port))
            turns = await _turns_within(0.35)
        attempts = [r for r in caplog.records if "accept failed" in r.getMessage()]
        assert 1 <= len(attempts) <= 5  # one in each pause of 0.1 s
        assert all(record.exc_info is None for record in caplog.records)
        assert turns > 0

        await loop.sock_sendall(waiting[0], b"GET / HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await loop.sock_recv(waiting[0], 100)).startswith(b"HTTP/1.0 200")
        for sock in waiting:
            sock.close()


async def _turns_within(seconds: float) -> int:
    """Let the loop run; return how often it came round."""
    loop = asyncio.get_running_loop()
    until_s, turns = loop.time() + seconds, 0
    while loop.time() < until_s:
        await asyncio.sleep(0.005)
        turns += 1
    return turns
