"""Why a registry could not serve us: told apart where it happens, counted, said with the fix."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.oci.names import ImageName
from p2pdist.registry.reading.client import UpstreamClient
from tests.fakes.registry import FakeRegistry, Fault, TokenAuth
from tests.registry.reading.upstream_parts import LOOPBACK, NAME, FakeDns, client_of

NOT_HTTP = b"SSH-2.0-OpenSSH_9.2\r\n"


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        registry.add_image("library/app", "1", [b"layer"])
        yield registry


async def reason_of(client: UpstreamClient, name: ImageName = NAME) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await client.get_manifest(name, "1")
    return caught.value


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, ErrorReason.CREDENTIALS),
        (403, ErrorReason.DENIED),
        (404, ErrorReason.UNKNOWN),
        (429, ErrorReason.RATE_LIMITED),
        (500, ErrorReason.REGISTRY_ERROR),
    ],
)
async def test_what_it_answers_is_the_reason(
    registry: FakeRegistry, status: int, reason: ErrorReason
) -> None:
    registry.faults["1"] = Fault(status=status)

    async with client_of(registry) as client:
        assert (await reason_of(client)).reason is reason
        assert client.counters.failures[NAME.upstream, reason] >= 1


async def test_a_wrong_password_is_no_unknown_image(registry: FakeRegistry) -> None:
    registry.auth = TokenAuth("robot", "right")

    async with client_of(registry, username="robot", password="wrong") as client:
        error = await reason_of(client)

    assert error.reason is ErrorReason.CREDENTIALS
    assert "answered 401 to the proxy's account" in str(error)
    assert "wrong" not in str(error)


async def no_port(_: FakeRegistry, stack: AsyncExitStack) -> dict[str, Any]:
    async with FakeRegistry() as gone:
        return {"url": gone.url}


async def no_name(registry: FakeRegistry, stack: AsyncExitStack) -> dict[str, Any]:
    return {"url": "http://nowhere.test", "dns": FakeDns({})}


async def no_tls(registry: FakeRegistry, stack: AsyncExitStack) -> dict[str, Any]:
    return {"url": registry.url.replace("http:", "https:"), "allow_private": LOOPBACK}


async def private_name(registry: FakeRegistry, stack: AsyncExitStack) -> dict[str, Any]:
    port = registry.url.rpartition(":")[2]
    dns = FakeDns({"inside.test": "10.1.2.3"})
    return {"url": f"http://inside.test:{port}", "dns": dns, "allow_private": ()}


async def private_redirect(registry: FakeRegistry, stack: AsyncExitStack) -> dict[str, Any]:
    registry.faults["1"] = Fault(redirect="http://10.1.2.3/v2/")
    return {"allow_private": ()}


async def no_http(_: FakeRegistry, stack: AsyncExitStack) -> dict[str, Any]:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(NOT_HTTP)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    await stack.enter_async_context(server)
    port = server.sockets[0].getsockname()[1]
    return {"url": f"http://127.0.0.1:{port}", "allow_private": LOOPBACK}


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (no_port, ErrorReason.REGISTRY_DOWN),
        (no_name, ErrorReason.REGISTRY_NAME),
        (no_tls, ErrorReason.REGISTRY_TLS),
        (private_name, ErrorReason.REGISTRY_PRIVATE),
        (private_redirect, ErrorReason.REGISTRY_PRIVATE),
        (no_http, ErrorReason.REGISTRY_ERROR),
    ],
)
async def test_why_there_is_no_answer(
    registry: FakeRegistry, arrange: Any, reason: ErrorReason
) -> None:
    async with AsyncExitStack() as stack:
        settings = await arrange(registry, stack)
        client = await stack.enter_async_context(client_of(registry, **settings))

        assert (await reason_of(client)).reason is reason
        assert client.counters.failures[NAME.upstream, reason] >= 1


async def test_a_host_without_descriptors_does_not_blame_the_registry(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(aiohttp.ClientSession, "request", none_left)

    async with client_of(registry) as client:
        assert (await reason_of(client)).reason is ErrorReason.EXHAUSTED


async def test_an_outage_is_said_once_with_the_fix(
    registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    registry.faults["1"] = Fault(status=403)

    async with client_of(registry) as client:
        for _ in range(3):
            await reason_of(client)
        assert client.counters.failures[NAME.upstream, ErrorReason.DENIED] == 3

    (said,) = [record for record in caplog.records if record.message == "upstream.failed"]
    assert said.levelno == logging.WARNING
    fields = said.__dict__["fields"]
    assert fields["reason"] == "denied"
    assert f"[[upstream]] {NAME.upstream}" in fields["fix"]


async def test_a_head_that_is_refused_is_no_failure(registry: FakeRegistry) -> None:
    registry.faults["1"] = Fault(no_head=403)

    async with client_of(registry) as client:
        await client.head_manifest(NAME, "1")
        await client.get_manifest(NAME, "1")

        assert not +client.counters.failures
