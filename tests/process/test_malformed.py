"""Requests that are no HTTP: answered as a registry does, and nothing of them is logged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from p2pdist.model.members import Address
from p2pdist.process import logs
from p2pdist.process.admin import AdminServer
from p2pdist.process.daemon import _until_stopped
from p2pdist.process.http_protocol import FIELDS_MAX, HEAD_BYTES_MAX, malformed_total
from p2pdist.process.listening import HttpServer
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

MARKER = "sEcReTmArKeR"
START = b"GET /v2/ HTTP/1.1\r\nHost: registry\r\n"
CREDENTIALS = b"Authorization: Basic sEcReTmArKeR"
PACKED = (
    b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nContent-Encoding: deflate\r\n\r\n"
)
CHUNKED = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"

MALFORMED = {
    "a control character": (START + CREDENTIALS + b"\x01\r\n\r\n", "header"),
    "a NUL": (START + CREDENTIALS + b"\x00\r\n\r\n", "header"),
    "a bare CR": (START + CREDENTIALS + b"\rX: y\r\n\r\n", "header"),
    "no colon": (START + b"Authorization sEcReTmArKeR\r\n\r\n", "header"),
    "a bad name": (START + b"Auth orization: sEcReTmArKeR\r\n\r\n", "header"),
    "a bad length": (START + CREDENTIALS + b"\r\nContent-Length: x\r\n\r\n", "header"),
    "a field that is too long": (START + CREDENTIALS + b"x" * (80 << 10) + b"\r\n\r\n", "too_long"),
    "too many fields": (
        START + CREDENTIALS + b"\r\n" + b"X:\r\n" * (FIELDS_MAX + 1) + b"\r\n", "header",
    ),
    "a target that is too long": (
        b"GET /v2/?token=sEcReTmArKeR" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", "too_long",
    ),
    "a bad request line": (b"GET /v2/?token=sEcReTmArKeR a b\r\n\r\n", "request_line"),
    "a bad version": (b"GET /v2/?token=sEcReTmArKeR HTTQ/1.1\r\n\r\n", "request_line"),
    "a bad method": (b"sEcReTmArKeR\x02 /v2/ HTTP/1.1\r\n\r\n", "request_line"),
    "a TLS handshake": (b"\x16\x03\x01sEcReTmArKeR\r\n\r\n", "request_line"),
    "a bad chunk of a body": (CHUNKED + CREDENTIALS + b"\r\n\r\nsEcReTmArKeR\r\n", "header"),
    "a body that is not coded as it says": (PACKED + b"sEcReTmArKeR", "body"),
}  # fmt: skip


async def _body(request: web.Request) -> web.Response:
    await request.read()
    return web.Response()


async def _bug(request: web.Request) -> web.Response:
    raise RuntimeError("a bug")


async def _length(request: web.Request) -> web.Response:
    return web.Response(text=str(len(request.headers["Authorization"])))


Serving = Callable[[], contextlib.AbstractAsyncContextManager[Address]]


@contextlib.asynccontextmanager
async def plain() -> AsyncIterator[Address]:
    app = web.Application()
    app.router.add_routes(
        [web.post("/body", _body), web.get("/bug", _bug), web.get("/length", _length)]
    )
    server = HttpServer(Address("127.0.0.1", 0), app)
    yield await server.start()
    await server.close()


@contextlib.asynccontextmanager
async def admin() -> AsyncIterator[Address]:
    routes = [web.post("/body", _body)]
    server = AdminServer(
        Address("127.0.0.1", 0), status=dict, samples=list, ready=dict, routes=routes
    )
    yield await server.start()
    await server.close()


async def exchange(address: Address, sent: bytes) -> bytes:
    """Send and read to the end; a connection that is reset has been read as far as it goes."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    found = b""
    with contextlib.suppress(ConnectionError):
        writer.write(sent)
        async with asyncio.timeout(20):
            while part := await reader.read(1 << 16):
                found += part
    writer.close()
    return found


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All records as they are written, tracebacks too."""
    return "\n".join(logs.JsonLines().format(record) for record in caplog.records)


@pytest.mark.parametrize("serving", [plain, admin])
@pytest.mark.parametrize("form", MALFORMED)
async def test_it_is_refused_and_nothing_of_it_is_said(
    caplog: pytest.LogCaptureFixture, serving: Serving, form: str
) -> None:
    with recorded(56, "malformed request", f"{form}, {serving.__name__}") as record:
        sent, reason = MALFORMED[form]
        before = malformed_total[reason]
        async with serving() as address:
            with caplog.at_level(logging.DEBUG):
                answer = await exchange(address, sent)

        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 400 " in head.splitlines()[0]
        assert b"Content-Type: application/json" in head
        assert [error["code"] for error in json.loads(body)["errors"]] == ["UNSUPPORTED"]
        assert MARKER not in answer.decode()
        assert MARKER not in logged(caplog)
        warnings = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
        assert warnings == ["http.malformed"]
        assert malformed_total[reason] == before + 1
        record.outcome = "400, counted, one line without a byte of it"


async def test_many_are_a_few_lines_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    before = malformed_total["header"]
    async with plain() as address:
        for _ in range(30):
            await exchange(address, START + b"no colon\r\n\r\n")

    assert malformed_total["header"] == before + 30
    assert len(caplog.records) == logs.Sparing.LINES


async def test_a_long_token_is_taken_and_a_head_without_end_is_not() -> None:
    async with plain() as address:
        token = b"Authorization: Bearer " + b"x" * (60 << 10)
        fine = await exchange(
            address,
            b"GET /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + token + b"\r\n\r\n",
        )
        assert fine.endswith(b"%d" % (len(token) - len("Authorization: ")))

        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(START)
        taken = 0
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof() and taken < 100 * HEAD_BYTES_MAX:
                writer.write(b"X-%d: %s\r\n" % (taken, b"x" * 60_000))
                taken += 60_000
                await writer.drain()
                await asyncio.sleep(0)
        assert taken < 100 * HEAD_BYTES_MAX
        writer.close()


async def test_many_fields_are_taken() -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 300) for number in range(80))
    token = b"Authorization: Bearer " + b"x" * 30_000 + b"\r\n"
    async with plain() as address:
        head = b"GET /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        answer = await exchange(address, head + fields + token + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_requests_of_one_connection_do_not_add_up() -> None:
    async with plain() as address, aiohttp.ClientSession() as client:
        for _ in range(20):
            async with client.get(
                f"http://{address}/length", headers={"Authorization": "x" * 30_000}
            ) as answer:
                assert await answer.text() == "30000"


async def test_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        plain() as address,
        aiohttp.ClientSession() as client,
        client.get(f"http://{address}/bug") as answer,
    ):
        assert answer.status == 500
        assert [e["code"] for e in (await answer.json())["errors"]] == ["UNSUPPORTED"]

    assert [record.message for record in caplog.records] == ["http.failed"]
    assert "RuntimeError: a bug" in logged(caplog)


async def test_malformed_requests_are_in_the_metrics() -> None:
    async with admin() as address, aiohttp.ClientSession() as client:
        await exchange(address, START + b"no colon\r\n\r\n")
        async with client.get(f"http://{address}/metrics") as answer:
            page = await answer.text()

    count = malformed_total["header"]
    assert f'p2pdist_http_malformed_total{{reason="header"}} {float(count)}' in page


async def _callback_with_secret() -> None:
    def fails(secret: str) -> None:
        raise RuntimeError("a bug")

    asyncio.get_running_loop().call_soon(fails, MARKER)


async def _unclosed_answer() -> None:
    context = {"client_response": f"<ClientResponse(/v2/?token={MARKER})>", "message": "Unclosed"}
    asyncio.get_running_loop().call_exception_handler(context)


@pytest.mark.parametrize("faulty", [_callback_with_secret, _unclosed_answer])
async def test_what_nobody_caught_is_logged_without_its_arguments(
    caplog: pytest.LogCaptureFixture, faulty: Callable[[], Awaitable[None]]
) -> None:
    async def main(stop: asyncio.Event) -> None:
        await faulty()
        await asyncio.sleep(0)

    await _until_stopped(main)

    assert [record.message for record in caplog.records] == ["loop.error"]
    assert MARKER not in logged(caplog)
