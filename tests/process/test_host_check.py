"""A web page that points its own name at a port on loopback gets nothing."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from p2pdist.model.members import Address
from p2pdist.process import host_check
from p2pdist.process.admin import AdminServer
from p2pdist.process.host_check import called_rightly
from p2pdist.process.listening import HttpServer

NAMES = {"mirror.corp.example"}


@pytest.mark.parametrize(
    "host",
    [
        None,
        "localhost",
        "localhost:5300",
        "LOCALHOST",
        "mirror.localhost:5300",
        "127.0.0.1:5300",
        "10.0.0.7",
        "[::1]:5300",
        "node7",
        "proxy:5100",
        "mirror.corp.example",
        "Mirror.Corp.Example.:5300",
    ],
)
def test_what_is_nobody_elses_to_point_elsewhere_is_fine(host: str | None) -> None:
    assert called_rightly(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5300",
        "corp.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil.example@localhost",
        "[::1]evil.example",
        "[::1",
        "1.2.3",
        "",
        ":5300",
    ],
)
def test_a_name_that_somebody_else_may_own_is_not(host: str) -> None:
    assert not called_rightly(host, NAMES)


async def status_of(address: Address, host: str) -> int:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    request = f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    writer.write(request.encode())
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return int(answer.split(b" ")[1])


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("localhost", 200)])
async def test_every_listener_on_loopback_looks_at_it(host: str, status: int) -> None:
    admin = AdminServer(Address("127.0.0.1", 0), status=dict, samples=list, ready=dict)
    try:
        assert await status_of(await admin.start(), host) == status
    finally:
        await admin.close()


async def test_a_port_that_is_reached_from_other_hosts_goes_by_any_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prometheus and peers call it as their settings do."""
    monkeypatch.setattr(host_check, "_by_loopback", lambda request: False)

    async def hello(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/livez", hello)
    server = HttpServer(Address("127.0.0.1", 0), app)
    try:
        assert await status_of(await server.start(), "proxy.corp.example") == 200
    finally:
        await server.close()
