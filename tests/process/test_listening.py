from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from p2pdist.model.ids import HostId
from p2pdist.model.members import Address
from p2pdist.process import listening
from p2pdist.process.http_protocol import dropped_total
from p2pdist.process.listening import CONNECTIONS_MAX, HttpServer
from tests.fakes.descriptors import no_descriptors_left
from tests.process.identities import TestCa

LOOPBACK = Address("127.0.0.1", 0)
DEADLINE_S = 20.0


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


@contextlib.asynccontextmanager
async def serving(
    handler: Handler = _hello,
    *,
    host: str = "127.0.0.1",
    connections_max: int = CONNECTIONS_MAX,
    tls: Callable[[], ssl.SSLContext | None] = lambda: None,
) -> AsyncIterator[Address]:
    app = web.Application()
    app.router.add_get("/", handler)
    server = HttpServer(Address(host, 0), app, connections_max=connections_max, tls=tls)
    address = await server.start()
    try:
        yield address
    finally:
        await server.close()


async def get(url: str) -> str:
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return await answer.text()


async def test_it_serves_on_a_free_port() -> None:
    async with serving() as address:
        assert await get(f"http://{address}/") == "hello"


async def test_it_serves_over_ipv6() -> None:
    async with serving(host="::1") as address:
        assert await get(f"http://[::1]:{address.port}/") == "hello"


async def test_a_port_that_is_taken_raises_and_leaves_nothing_open() -> None:
    async with serving() as address:
        with pytest.raises(OSError, match="in use"):
            await HttpServer(address, web.Application()).start()


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


async def test_who_begins_with_tls_is_spoken_to_in_tls_and_others_in_clear(ca: TestCa) -> None:
    body = bytes(range(256)) * (16 << 10)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"scheme": request.scheme})

    proxy, peer = ca.identity("proxy", HostId("a" * 32)), ca.identity("peer", HostId("b" * 32))
    async with (
        serving(answer, tls=lambda: proxy.server) as address,
        aiohttp.ClientSession() as client,
    ):
        for scheme in ("https", "http", "https"):
            async with client.get(f"{scheme}://{address}/", ssl=peer.proxies) as got:
                assert await got.read() == body
                assert got.headers["scheme"] == scheme


async def test_who_shows_no_certificate_gets_no_answer(ca: TestCa) -> None:
    proxy = ca.identity("proxy", HostId("a" * 32))
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    async with serving(tls=lambda: proxy.server) as address, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await client.get(f"https://{address}/", ssl=anybody)


async def test_who_says_nothing_is_left_and_makes_way_before(
    ca: TestCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = ca.identity("proxy", HostId("a" * 32))
    async with serving(tls=lambda: proxy.server, connections_max=2) as address:
        silent = [await slow_client(address, b"") for _ in range(2)]
        await ended(await slow_client(address, b""))  # no more for an address that has all
        assert await get(f"http://{address}/") == "hello"
        await ended(silent[0])
        monkeypatch.setattr(listening, "HEAD_S", 0.05)
        await ended(await slow_client(address, b""))
        silent[1].close()


async def test_without_descriptors_it_waits_instead_of_spinning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's own server logs a traceback for each of its backlog of 1,024, again and again."""
    loop = asyncio.get_running_loop()
    tries, accept = [], socket.socket.accept

    def counted(sock: socket.socket) -> Any:
        tries.append(sock)
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", counted)
    async with serving() as address:
        waiting = [socket.socket() for _ in range(20)]
        for sock in waiting:
            sock.setblocking(False)
        with caplog.at_level(logging.WARNING), no_descriptors_left():
            for sock in waiting:
                with contextlib.suppress(BlockingIOError):
                    sock.connect((address.host, address.port))
            allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            turns = await _turns_within(0.35)
        assert 1 <= len(tries) <= 5  # one in each pause of 0.1 s
        (said,) = caplog.records
        assert said.exc_info is None
        assert f"{allowed} files may be open" in said.getMessage()
        assert "LimitNOFILE" in said.getMessage()
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


# --- connections that only take room ------------------------------------------------------------


async def slow_client(address: Address, sent: bytes, source: str = "127.0.0.9") -> socket.socket:
    sock, loop = socket.socket(), asyncio.get_running_loop()
    sock.setblocking(False)
    sock.bind((source, 0))
    await loop.sock_connect(sock, (address.host, address.port))
    await loop.sock_sendall(sock, sent)
    return sock


async def ended(sock: socket.socket) -> None:
    """Return once the server has ended the connection."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(sock, 1000):
                pass
    sock.close()


WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [[b""], [b"GET / HT"], [WHOLE, b"GET / HT"]])
async def test_a_head_that_does_not_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, sent: list[bytes]
) -> None:
    """2,000 of them used to stay for ever."""
    monkeypatch.setattr("p2pdist.process.http_protocol.HEAD_S", 0.05)
    before, loop = dropped_total["slow"], asyncio.get_running_loop()
    async with serving() as address:
        sock = await slow_client(address, sent[0])
        for further in sent[1:]:
            assert await loop.sock_recv(sock, 1000)
            await loop.sock_sendall(sock, further)
        await ended(sock)

    assert dropped_total["slow"] == before + 1


async def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.process.http_protocol.HEAD_S", 0.02)

    async def late(request: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        return web.Response(text="hello")

    async with serving(late) as address:
        assert await get(f"http://{address}/") == "hello"


async def test_one_address_does_not_keep_others_out() -> None:
    before = dropped_total["crowded"]
    async with serving(connections_max=3) as address:
        slow = [await slow_client(address, b"GET / HT") for _ in range(3)]
        assert await get(f"http://{address}/") == "hello"
        await ended(slow[0])
        for sock in slow[1:]:
            sock.close()

    assert dropped_total["crowded"] == before + 1


async def test_a_place_is_free_again_when_its_connection_ends() -> None:
    async with serving(connections_max=1) as address:
        for _ in range(5):
            assert await get(f"http://{address}/") == "hello"
