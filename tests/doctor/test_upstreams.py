"""The doctor asks registries, as a proxy would."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from p2pdist.demo.processes import free_ports
from p2pdist.doctor.findings import Finding, Level
from p2pdist.doctor.upstreams import check_upstreams
from p2pdist.settings import Settings, Upstream
from tests.fakes.certificates import Authority
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_faults import Fault, TokenAuth


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


async def look(*upstreams: Upstream) -> list[Finding]:
    return await check_upstreams(replace(Settings(), upstream=upstreams))


def account(tmp_path: Path, url: str, password: str) -> Upstream:
    path = tmp_path / "password"
    path.write_text(password)
    path.chmod(0o600)
    return Upstream("r.test", url, username="u", password_file=path, access="shared")


async def test_an_image_that_is_not_there_proves_the_way(registry: FakeRegistry) -> None:
    registry.auth = TokenAuth()

    (found,) = await look(Upstream("r.test", registry.url))

    assert found.level is Level.PASS
    assert registry.count("GET", "/token") > 0


async def test_an_image_of_docker_hub_is_asked_for_by_head_which_does_not_count(
    registry: FakeRegistry,
) -> None:
    registry.add_image("library/hello-world", "latest", [b"hello"])

    (found,) = await look(Upstream("docker.io", registry.url))

    assert found.level is Level.PASS
    assert registry.count("GET", "manifests") == 0


@pytest.mark.parametrize("scheme", ["token", "basic"])
async def test_a_wrong_password_is_found(
    registry: FakeRegistry, tmp_path: Path, scheme: str
) -> None:
    if scheme == "token":
        registry.auth = TokenAuth("u", "right", require_scope=False)
    else:
        registry.basic = ("u", "right")

    (wrong,) = await look(account(tmp_path, registry.url, "wrong"))
    (right,) = await look(account(tmp_path, registry.url, "right"))

    assert (wrong.level, wrong.remote) == (Level.FAIL, False)
    assert "the account of [[upstream]] r.test" in wrong.fix
    assert right.level is Level.PASS


async def test_a_registry_that_hides_what_is_not_there_takes_the_account_all_the_same(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.auth = TokenAuth("u", "right", require_scope=False)
    registry.faults["/v2/p2pdist/doctor/manifests/latest"] = Fault(status=403)

    (right,) = await look(account(tmp_path, registry.url, "right"))
    (wrong,) = await look(account(tmp_path, registry.url, "wrong"))

    assert right.level is Level.PASS
    assert "hides" in right.text
    assert wrong.level is Level.FAIL


async def test_one_that_shows_everybody_its_front_page_proves_no_account(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.faults["/v2/p2pdist/doctor/manifests/latest"] = Fault(status=403)

    (found,) = await look(account(tmp_path, registry.url, "any"))

    assert found.level is Level.FAIL


async def test_one_that_is_down_is_another_hosts_fault() -> None:
    (port,) = free_ports(1)

    (found,) = await look(Upstream("r.test", f"http://127.0.0.1:{port}"))

    assert (found.level, found.remote) == (Level.FAIL, True)
    assert "is r.test up" in found.fix


def answer_names(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    """Every name has this address, or none."""

    async def getaddrinfo(self: object, host: str, port: int, **_: object) -> list[Any]:
        if address is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    loop = type(asyncio.get_running_loop())
    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("address", "fix"), [(None, "check the url"), ("10.255.0.1", "allow_private of [[upstream]]")]
)
async def test_names_that_lead_nowhere_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, address: str | None, fix: str
) -> None:
    answer_names(monkeypatch, address)

    (found,) = await look(Upstream("registry.test"))

    assert (found.level, found.remote) == (Level.FAIL, False)
    assert fix in found.fix


async def serve(ssl_context: ssl.SSLContext | None) -> tuple[web.AppRunner, str]:
    """A web server that has nothing but 404."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
    return runner, f"{'https' if ssl_context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"


async def test_an_authority_that_nobody_named_is_said(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(tmp_path).issue("r.test"))
    runner, url = await serve(context)
    try:
        (found,) = await look(Upstream("r.test", url))
    finally:
        await runner.cleanup()

    assert (found.level, found.remote) == (Level.FAIL, False)
    assert "ca_file of [[upstream]] r.test" in found.fix


async def test_any_web_server_is_no_registry() -> None:
    runner, url = await serve(None)
    try:
        (found,) = await look(Upstream("r.test", url))
    finally:
        await runner.cleanup()

    assert (found.level, found.fix) == (Level.FAIL, "check the url of [[upstream]] r.test")


async def test_all_are_asked_side_by_side_and_keep_their_order(registry: FakeRegistry) -> None:
    (port,) = free_ports(1)

    found = await look(
        Upstream("a.test", f"http://127.0.0.1:{port}"), Upstream("b.test", registry.url)
    )

    assert [finding.level for finding in found] == [Level.FAIL, Level.PASS]
