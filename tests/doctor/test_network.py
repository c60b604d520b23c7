"""The doctor against real daemons on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from p2pdist.demo.processes import free_ports
from p2pdist.doctor import network
from p2pdist.doctor.findings import Finding, Level
from p2pdist.model.members import Address
from p2pdist.process.clock import unix_s
from p2pdist.registry_proxy.daemon import running_proxy
from p2pdist.settings import Peer, Settings, Upstream
from tests.fakes.cluster import Lab, open_lab, url_of


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, {"docker.io": "http://127.0.0.1:1"}) as lab:
        yield lab


def free_peer(**settings: object) -> Settings:
    listen = [Address("127.0.0.1", port) for port in free_ports(3)]
    return replace(Settings(), peer=Peer(*listen, **settings))  # type: ignore[arg-type]  # fields of Peer


async def others(settings: Settings) -> list[Finding]:
    return [finding async for finding in network.check_others(settings, "peer")]


async def test_a_running_cluster_is_reached_and_its_clocks_agree(lab: Lab) -> None:
    await lab.tracker()
    await lab.proxy()
    settings = free_peer(trackers=tuple(lab.trackers), proxies=tuple(lab.proxies))

    found = await others(settings)

    assert {f.level for f in found} == {Level.PASS}
    assert {f.check for f in found} == {"tracker", "proxy", "exchange", "clock"}


async def test_what_does_not_answer_is_another_hosts_fault() -> None:
    (port,) = free_ports(1)
    settings = free_peer(trackers=(f"tcp://127.0.0.1:{port}",), proxies=("http://127.0.0.1:1",))

    found = await others(settings)

    assert [(f.level, f.remote) for f in found] == [(Level.FAIL, True)] * 2


async def test_a_peer_that_knows_nobody_is_set_wrongly() -> None:
    found = await others(free_peer())

    assert {f.check: f.level for f in found} == {"tracker": Level.WARN, "proxy": Level.FAIL}


async def test_a_peer_hears_of_private_registries_from_its_proxies(lab: Lab) -> None:
    private = Upstream("r.test", "http://127.0.0.1:1", access="passthrough")
    settings = replace(lab.settings("proxy"), upstream=(private,))
    async with running_proxy(settings) as proxy:
        urls = (url_of(proxy.registry),)
        bare = free_peer(proxies=urls, trackers=("tcp://127.0.0.1:1",))
        child = replace(Settings(), proxy=replace(Settings().proxy, parents=urls))
        (found,) = [f for f in await others(bare) if f.check == "private layers"]
        of_proxy = [f async for f in network.check_others(child, "proxy")]

    assert found.level is Level.WARN
    assert "private layers of r.test" in found.text
    assert "private layers" not in {f.check for f in of_proxy}


@pytest.mark.parametrize(
    ("shift_s", "level"), [(0, Level.PASS), (60, Level.WARN), (-3600, Level.FAIL)]
)
async def test_a_clock_that_goes_wrong_is_found(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, shift_s: float, level: Level
) -> None:
    await lab.proxy()
    now_s = unix_s
    monkeypatch.setattr(network, "unix_s", lambda: now_s() + shift_s)

    found = await others(free_peer(proxies=tuple(lab.proxies), trackers=("tcp://127.0.0.1:1",)))

    assert [f.level for f in found if f.check == "clock"] == [level]


async def test_a_registry_in_the_place_of_a_proxy_is_found() -> None:
    async def ping(request: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/v2/", ping)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        found = await others(free_peer(proxies=(f"http://{host}:{port}",), trackers=("tcp://a:1",)))
    finally:
        await runner.cleanup()

    (wrong,) = [f for f in found if f.check == "proxy"]
    assert "no p2pdist proxy" in wrong.text


async def test_ports_are_free_ours_or_taken(lab: Lab) -> None:
    peer = await lab.peer("a")
    settings = free_peer()
    ours = replace(
        settings,
        peer=replace(settings.peer, listen=peer.mirror, admin_listen=peer.admin),
    )

    async def ports(of: Settings) -> list[Level]:
        return [f.level async for f in network.check_ports(of, "peer")]

    assert await ports(settings) == [Level.PASS] * 3
    assert await ports(ours) == [Level.PASS] * 3
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = Address(*stranger.getsockname()[:2])
        foreign = replace(settings, peer=replace(settings.peer, listen=taken))
        assert (await ports(foreign))[0] is Level.FAIL
    elsewhere = replace(settings, peer=replace(settings.peer, listen=Address("192.0.2.1", 5300)))
    assert (await ports(elsewhere))[0] is Level.FAIL


async def test_quick_asks_the_daemon_itself(lab: Lab) -> None:
    peer = await lab.peer("a")

    assert await network.answers(peer.admin, "/readyz")
    peer.admin_server.draining = True
    assert not await network.answers(peer.admin, "/readyz")
    async with asyncio.timeout(network.REACH_S + 1):
        assert not await network.answers(Address("127.0.0.1", 1))
