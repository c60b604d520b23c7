"""Twelve mistakes of a first hour, each made on purpose among real daemons: the doctor finds it and
names what mends it."""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from p2pdist.cli.all_in_one import run
from p2pdist.cli.doctor import examine
from p2pdist.demo.processes import free_ports
from p2pdist.doctor import network
from p2pdist.doctor.findings import Finding, Level
from p2pdist.model.health import RULES, Reason
from p2pdist.process.clock import unix_s
from p2pdist.process.keys import make_keys
from p2pdist.registry_proxy.daemon import RunningProxy
from p2pdist.settings import Settings, Upstream
from p2pdist.settings_load import Loaded
from p2pdist.tracker.daemon import RunningTracker
from tests.cli.test_all_in_one import settings_in, wait_ready
from tests.fakes.certificates import Authority
from tests.fakes.cluster import Lab, open_lab
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_faults import TokenAuth
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

Test = Callable[..., Awaitable[None]]


@pytest.fixture(autouse=True)
def no_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the machine that tests run on say nothing of the cluster of a test."""
    monkeypatch.setattr(shutil, "which", lambda program: None)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
async def lab(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, {"r.test": registry.url}) as lab:
        yield lab


@pytest.fixture
async def cluster(lab: Lab) -> tuple[RunningTracker, RunningProxy]:
    return await lab.tracker(), await lab.proxy()


def seeded(mistake: str) -> Callable[[Test], Test]:
    """A row of the fault table: the test shows that the doctor finds `mistake`."""

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        async def recording(**fixtures: Any) -> None:
            with recorded(85, "mistake of a first hour", mistake) as record:
                await test(**fixtures)
                record.outcome = "doctor finds it, and names what mends it"

        return recording

    return decorate


def small(settings: Settings) -> Settings:
    """A store that fits on whatever disk tests have."""
    return replace(settings, store=replace(settings.store, max_bytes=1 << 20))


async def wrong_with(settings: Settings, role: str = "peer") -> dict[str, Finding]:
    """What is not well, by check."""
    found = await examine(Loaded(small(settings), {}), role, explicit=True)
    return {finding.check: finding for finding in found if finding.level is not Level.PASS}


@pytest.mark.usefixtures("cluster")
async def test_nothing_is_wrong_where_nothing_was_done(lab: Lab) -> None:
    assert await wrong_with(lab.settings("a")) == {}
    assert await wrong_with(lab.settings("p"), "proxy") == {}
    assert await wrong_with(lab.settings("t"), "tracker") == {}


@pytest.mark.usefixtures("cluster")
@seeded("another secret")
async def test_1_another_secret(lab: Lab, tmp_path: Path) -> None:
    other, settings = make_keys(tmp_path / "other"), lab.settings("a")
    cluster = replace(settings.cluster, secret_file=other.secret_file)

    wrong = await wrong_with(replace(settings, cluster=cluster))

    fix = RULES[Reason.WRONG_SECRET].fix
    assert {check: f.fix for check, f in wrong.items()} == {"tracker": fix, "exchange": fix}


@pytest.mark.usefixtures("cluster")
@seeded("another key of the proxy")
async def test_2_another_key_of_the_proxy(lab: Lab, tmp_path: Path) -> None:
    other, settings = make_keys(tmp_path / "other"), lab.settings("a")
    cluster = replace(settings.cluster, proxy_keys=(other.public_key,))

    wrong = await wrong_with(replace(settings, cluster=cluster))

    assert {check: f.fix for check, f in wrong.items()} == {
        "proxy key": RULES[Reason.WRONG_KEY].fix
    }


@pytest.mark.usefixtures("cluster")
@seeded("a clock that is wrong")
async def test_3_a_clock_that_is_wrong(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = unix_s
    monkeypatch.setattr(network, "unix_s", lambda: now_s() - 3600)

    wrong = await wrong_with(lab.settings("a"))

    assert {check: f.fix for check, f in wrong.items()} == {"clock": RULES[Reason.CLOCK_SKEW].fix}


@seeded("tracker down")
async def test_4_the_tracker_is_down(lab: Lab) -> None:
    await lab.proxy()
    (port,) = free_ports(1)
    lab.trackers.append(f"tcp://127.0.0.1:{port}")

    wrong = await wrong_with(lab.settings("a"))

    assert set(wrong) == {"tracker"}
    assert f"let {port} through" in wrong["tracker"].fix


@seeded("another server at the tracker's address")
async def test_5_the_trackers_address_is_another_servers(lab: Lab, registry: FakeRegistry) -> None:
    await lab.proxy()
    lab.trackers.append(registry.url.replace("http", "tcp"))

    wrong = await wrong_with(lab.settings("a"))

    assert set(wrong) == {"tracker"}
    assert "no tracker of ours" in wrong["tracker"].text
    assert "tracker.listen" in wrong["tracker"].fix


@seeded("proxy down")
async def test_6_the_proxy_is_down(lab: Lab) -> None:
    await lab.tracker()
    (port,) = free_ports(1)
    lab.proxies.append(f"http://127.0.0.1:{port}")

    wrong = await wrong_with(lab.settings("a"))

    assert set(wrong) == {"proxy"}
    assert f"let {port} through" in wrong["proxy"].fix


@seeded("exchange port closed")
async def test_7_the_exchange_of_the_proxy_is_not_reached(
    lab: Lab, cluster: tuple[RunningTracker, RunningProxy]
) -> None:
    _, proxy = cluster
    await proxy.running.transport.close()

    wrong = await wrong_with(lab.settings("a"))

    assert set(wrong) == {"exchange"}
    assert f"TCP {proxy.running.exchange_address.port}" in wrong["exchange"].fix


@seeded("password of a registry")
async def test_8_the_password_of_a_registry_is_wrong(
    lab: Lab, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.auth = TokenAuth("u", "right")
    password = tmp_path / "password"
    password.write_text("wrong")
    password.chmod(0o600)
    upstream = Upstream("r.test", registry.url, "shared", "u", password)

    wrong = await wrong_with(replace(lab.settings("p"), upstream=(upstream,)), "proxy")

    assert set(wrong) == {"registry"}
    assert "the account of [[upstream]] r.test" in wrong["registry"].fix


@seeded("name of a registry")
async def test_9_the_name_of_a_registry_does_not_resolve(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(self: object, host: str, port: int, **_: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", getaddrinfo)
    upstream = Upstream("regsitry.test")

    wrong = await wrong_with(replace(lab.settings("p"), upstream=(upstream,)), "proxy")

    assert set(wrong) == {"registry"}
    assert "DNS" in wrong["registry"].fix


@seeded("authority of a registry")
async def test_10_nobody_named_the_authority_of_a_registry(lab: Lab, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(tmp_path).issue("r.test"))
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        upstream = Upstream("r.test", f"https://127.0.0.1:{runner.addresses[0][1]}")
        wrong = await wrong_with(replace(lab.settings("p"), upstream=(upstream,)), "proxy")
    finally:
        await runner.cleanup()

    assert set(wrong) == {"registry"}
    assert "ca_file of [[upstream]] r.test" in wrong["registry"].fix


@pytest.mark.usefixtures("cluster")
@seeded("runtime that does not ask the peer")
async def test_11_a_runtime_does_not_ask_the_peer(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: "/x" if program == "dockerd" else None)
    peer = await lab.peer("a")
    settings = lab.settings("a")
    settings = replace(settings, peer=replace(settings.peer, listen=peer.mirror))

    wrong = await wrong_with(settings)

    assert {check: f.fix for check, f in wrong.items() if check == "docker"} == {
        "docker": "p2pdist runtime install --engine docker"
    }


@pytest.mark.usefixtures("cluster")
@seeded("store without room or right")
async def test_12_the_store_cannot_be_written_or_has_no_room(lab: Lab, tmp_path: Path) -> None:
    """Below a file nobody makes a directory, root neither."""
    (tmp_path / "file").touch()
    settings = lab.settings("a")
    nowhere = replace(settings, host=replace(settings.host, state_dir=tmp_path / "file" / "state"))
    vast = Loaded(replace(settings, store=replace(settings.store, max_bytes=1 << 60)), {})

    wrong = await wrong_with(nowhere)
    full = [f for f in await examine(vast, "peer", explicit=True) if f.level is Level.FAIL]

    assert set(wrong) == {"state"}
    assert "host.state_dir" in wrong["state"].fix
    assert [(f.check, "store.max_bytes" in f.fix) for f in full] == [("disk", True)]


# --- beside ---------------------------------------------------------------------------------------


async def test_a_registry_is_no_proxy(lab: Lab, registry: FakeRegistry) -> None:
    await lab.tracker()
    lab.proxies.append(registry.url)

    wrong = await wrong_with(lab.settings("a"))

    assert "peer.proxies names p2pdist proxies" in wrong["proxy"].fix


async def test_what_a_running_peer_was_started_with_is_what_is_checked(
    lab: Lab, tmp_path: Path
) -> None:
    """Its flags name a tracker that is down; nothing of that is in any file."""
    (port,) = free_ports(1)
    lab.trackers.append(f"tcp://127.0.0.1:{port}")
    await lab.proxy()
    peer = await lab.peer("a")
    here = replace(Settings(), peer=replace(Settings().peer, admin_listen=peer.admin))

    found = await examine(Loaded(here, {}), "peer", explicit=False)

    assert f"the peer that runs at {peer.admin}" in found[0].text
    assert {f.level for f in found if f.check == "tracker"} == {Level.FAIL}


async def test_all_three_in_one_process_are_looked_at_with_what_they_made_up(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    settings, stop = settings_in(tmp_path, registry.url), asyncio.Event()
    bare = small(
        replace(settings, cluster=Settings().cluster, proxy=replace(settings.proxy, key_file=None))
    )

    before = await examine(Loaded(bare, {}), "all-in-one", explicit=False)
    async with asyncio.TaskGroup() as daemons, aiohttp.ClientSession() as client:
        daemons.create_task(run(small(settings), stop))
        await wait_ready(client, settings.proxy.admin_listen)
        while_it_runs = await examine(Loaded(bare, {}), "all-in-one", explicit=False)
        stop.set()

    assert {f.level for f in before} == {f.level for f in while_it_runs} == {Level.PASS}
    seen = {f.check for f in while_it_runs}
    assert {"tracker", "proxy", "proxy key", "exchange", "registry", "running"} <= seen
