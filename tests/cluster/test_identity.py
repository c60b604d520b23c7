"""Daemons with certificates: pulls as ever, and what is said where one is not believed."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from p2pdist.doctor.findings import Finding, Level
from p2pdist.doctor.local import check_identity
from p2pdist.doctor.network import check_others
from p2pdist.errors import LinkRefused, UpstreamError
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.process import clock, identity_holder
from p2pdist.process.ca import new_key, private_pem, sign
from p2pdist.process.certificates import DAY_S
from p2pdist.process.identity import read_secrets
from p2pdist.process.listening import HttpServer
from p2pdist.registry.proxy_client import ProxyClient, ProxyTls
from p2pdist.settings import Settings
from tests.exchange.transport_parts import End
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.process.identities import TestCa
from tests.tracker.servers import wait_until

IDS = {role: HostId(f"{number:032x}") for number, role in enumerate(("tracker", "proxy", "peer"))}


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        found.add_image("library/app", "1", [random_bytes(3 << 20, 1)])
        yield found


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


def certified(lab: Lab, ca: TestCa, *roles: str) -> None:
    lab.identities = {role: ca.directory(role, IDS[role]) for role in roles}


async def status_of(client: aiohttp.ClientSession, admin: Any) -> dict[str, Any]:
    async with client.get(f"{url_of(admin)}/api/v1/status") as answer:
        found: dict[str, Any] = json.loads(await answer.read())
        return found


async def looked_at(settings: Settings, role: str = "peer") -> list[Finding]:
    return [finding async for finding in check_others(settings, role)]


async def test_a_cluster_that_requires_certificates_pulls_as_ever(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    certified(lab, ca, "tracker", "proxy", "peer")
    lab.require_identity = True
    tracker, proxy, peer = await lab.tracker(), await lab.proxy(), await lab.peer("one")
    await wait_until(lambda: tracker.server.core.hosts_connected == 2)

    await pull(client, url_of(peer.mirror))

    hosts = set(tracker.server.core.hosts)
    assert hosts == {proxy.running.me().host_id, peer.running.me().host_id}
    assert hosts == {IDS["proxy"], IDS["peer"]}
    for role, admin in (("tracker", tracker.admin), ("peer", peer.admin), ("proxy", proxy.admin)):
        status = await status_of(client, admin)
        assert status["host_id"] == status["identity"]["host_id"] == IDS[role]
        assert status["identity"]["required"]
        assert status["degraded"] == []
    assert (await said_at(client, proxy.registry)).startswith("403 members_only")
    assert "client.refused" in caplog.text
    async with client.get(f"{url_of(proxy.admin)}/metrics") as answer:
        refused = 'p2pdist_requests_refused_total{reason="members_only"} 1'
        assert refused in await answer.text()
    for node in (peer.running, proxy.running):
        assert node.transport.sealed == node.transport.links == 1
    found = await looked_at(lab.settings("one"))
    assert {f.level for f in found} == {Level.PASS}, found
    assert {"tracker", "proxy", "exchange"} <= {f.check for f in found}
    assert tracker.server.core.hosts.keys() == hosts, "doctor is no host, and ends nobody's line"
    await wait_until(lambda: len(tracker.server.reception._connections) == len(hosts))
    counters = tracker.server.core.counters
    assert (counters.connections_total, counters.protocol_faults_total) == (2, 0)


async def said_at(client: aiohttp.ClientSession, registry: Any) -> str:
    """What a proxy says to somebody without a certificate."""
    async with client.get(f"{url_of(registry)}/v2/library/app/manifests/1") as answer:
        text = json.loads(await answer.read())
    if answer.status == 200:
        return f"200 {len(text['layers'])} layers"
    return f"{answer.status} {text['errors'][0]['detail']}: {text['errors'][0]['message']}"


async def test_hosts_of_networks_that_are_named_ask_without_a_certificate(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession
) -> None:
    certified(lab, ca, "tracker", "proxy")
    lab.require_identity = True
    lab.open_to = (ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8"))
    proxy = await lab.proxy()

    assert await said_at(client, proxy.registry) == "200 1 layers"


def nobodys_context(ca: TestCa, directory: Path) -> ssl.SSLContext:
    """What the CA signed, and is for no host."""
    key, file = new_key(), directory / "nobody.pem"
    who = Identity(IdentityRole.PROXY, HostId("nobody"))
    made = sign(ca.ca, who, key.public_key(), life_s=DAY_S, now_s=clock.unix_s())
    file.write_bytes(made.public_bytes(Encoding.PEM) + private_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_certificate_of_a_peer_is_no_proxy(ca: TestCa, tmp_path: Path) -> None:
    """Nothing is said to it, not even which image is wanted."""
    heard: list[str] = []

    async def note(request: web.Request) -> web.Response:
        heard.append(request.raw_path)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", note)
    own = ca.identity("peer", HostId("9" * 32))
    shown = ca.identity("peer", IDS["peer"]).server
    server = HttpServer(Address("127.0.0.1", 0), app, tls=lambda: shown)
    address = await server.start()
    async with aiohttp.ClientSession() as session:
        asks = ProxyClient(url_of(address), session, ProxyTls(lambda: own.proxies, required=True))
        with pytest.raises(UpstreamError, match=r"is for peer .*, not for a proxy"):
            await asks.greet(timeout_s=5)
        shown = nobodys_context(ca, tmp_path)
        with pytest.raises(UpstreamError, match="not believed: no certificate of ours"):
            await asks.greet(timeout_s=5)
        shown = ca.identity("proxy", IDS["proxy"]).server
        with pytest.raises(UpstreamError, match="names no exchange port"):
            await asks.greet(timeout_s=5)
    await server.close()

    assert heard == ["/v2/"]


async def test_a_host_with_the_secret_alone_is_refused_there_and_pulls_by_its_proxy(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession
) -> None:
    certified(lab, ca, "tracker", "proxy")
    lab.require_identity = True
    lab.open_to = (ip_network("127.0.0.0/8"),)
    await lab.tracker()
    await lab.proxy()
    lab.require_identity = False
    peer = await lab.peer("one")
    await wait_until(lambda: "identity_refused" in peer.running.node.health.names())

    await pull(client, url_of(peer.mirror))

    (trouble,) = [
        t
        for t in (await status_of(client, peer.admin))["degraded"]
        if t["reason"] == "identity_refused"
    ]
    assert "takes hosts with a certificate only" in trouble["detail"]
    assert "p2pdist ca show" in trouble["fix"]


async def test_with_the_secret_alone_nobody_links_to_anybody(lab: Lab, ca: TestCa) -> None:
    """Whoever has stolen it, and says that it is the proxy."""
    certified(lab, ca, "tracker", "proxy", "peer")
    lab.require_identity = True
    await lab.tracker()
    proxy, peer = await lab.proxy(), await lab.peer("one")
    me = Member(IDS["proxy"], Role.PROXY, Place("dc1"))
    thief = ExchangeTransport(
        End(),
        secret=lambda: read_secrets(lab.keys.secret_file),
        me=lambda: me,
        limits=ExchangeLimits(),
    )
    for victim in (proxy.running, peer.running):
        with pytest.raises(LinkRefused, match="identity"):
            await thief.dial(victim.exchange_address, timeout_s=5)
        assert victim.transport.refused["identity"] == 1
    await thief.close()


async def test_a_cluster_half_way_goes_on(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession
) -> None:
    certified(lab, ca, "tracker", "peer")
    tracker = await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("one")
    await wait_until(lambda: tracker.server.core.hosts_connected == 2)

    await pull(client, url_of(peer.mirror))

    assert peer.running.node.health.names() == []
    assert (peer.running.transport.links, peer.running.transport.sealed) == (1, 0)
    found = [f for f in await looked_at(lab.settings("one")) if f.level is not Level.PASS]
    assert [(f.check, f.level) for f in found] == [("exchange", Level.WARN)]
    assert "has no certificate: links with it are in clear" in found[0].text


async def test_doctor_says_that_a_tracker_has_no_certificate(lab: Lab, ca: TestCa) -> None:
    await lab.tracker()
    await lab.proxy()
    certified(lab, ca, "peer")

    found = [f for f in await looked_at(lab.settings("one")) if f.check in ("identity", "tracker")]

    assert [(f.check, f.level) for f in found] == [
        ("identity", Level.WARN),
        ("tracker", Level.PASS),
    ]
    assert "in clear" in found[0].text
    lab.require_identity = True
    found = [f for f in await looked_at(lab.settings("one")) if f.check in ("identity", "tracker")]
    assert [(f.check, f.level) for f in found] == [("identity", Level.FAIL)]


async def test_doctor_says_whose_certificate_is_not_believed(
    lab: Lab, ca: TestCa, tmp_path: Path
) -> None:
    certified(lab, ca, "tracker")
    await lab.tracker()
    (tmp_path / "other").mkdir()
    certified(lab, TestCa(tmp_path / "other"), "peer")

    (found,) = [f for f in await looked_at(lab.settings("one")) if f.check == "identity"]

    assert found.level is Level.FAIL
    assert "certificate is not believed" in found.text
    assert "p2pdist ca show" in found.fix


def test_doctor_says_how_long_it_is_good(lab: Lab, ca: TestCa) -> None:
    now_s = clock.unix_s()

    def check(later_days: float = 0.0) -> Finding:
        return check_identity(lab.settings("one"), Role.PEER, now_s + later_days * DAY_S)

    assert (check().level, check().text) == (
        Level.PASS,
        "off for the peer: whoever has the secret is believed",
    )
    certified(lab, ca, "peer")
    good, late, over = check(), check(21), check(31)
    assert good.level is Level.PASS
    assert f"peer {IDS['peer']}, for another 30 days; hosts without one" in good.text
    assert (late.level, over.level) == (Level.WARN, Level.FAIL)
    assert "for another 9 days" in late.text
    assert "ca issue --role peer" in late.fix
    assert "expired 24 hours ago" in over.text
    lab.require_identity = True
    assert "others are refused" in check().text


@pytest.mark.parametrize("required", [False, True])
async def test_a_daemon_with_a_certificate_that_has_ended_starts_and_says_so(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession, required: bool
) -> None:
    certified(lab, ca, "tracker", "proxy")
    lab.require_identity = required
    tracker = await lab.tracker()
    await lab.proxy()
    lab.identities = {"peer": ca.directory("peer", IDS["peer"], begun_days=32)}
    peer = await lab.peer("one")

    if required:  # of the lab nobody asks the registry itself
        with pytest.raises(aiohttp.ClientResponseError, match="our certificate has expired"):
            await pull(client, url_of(peer.mirror))
    else:
        await pull(client, url_of(peer.mirror))

    told = {t["reason"]: t["detail"] for t in (await status_of(client, peer.admin))["degraded"]}
    assert "expired 2 days ago" in told["identity_ends"]
    if required:
        await wait_until(lambda: "identity_refused" in peer.running.node.health.names())
        assert not peer.running.tracker.connected
    else:  # under the secret alone, as a host without one
        await wait_until(lambda: peer.running.tracker.connected)
    assert tracker.server.core.hosts_connected == (1 if required else 2)


async def test_a_new_certificate_is_taken_up_without_a_restart(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a peer that was refused for the one before it: it is taken then, at its next dial."""
    monkeypatch.setattr(identity_holder, "LOOK_EVERY_S", 0.05)
    certified(lab, ca, "tracker", "proxy")
    lab.require_identity = True
    tracker = await lab.tracker()
    await lab.proxy()
    own = ca.directory("peer", IDS["peer"], begun_days=32)
    lab.identities = {"peer": own}
    peer = await lab.peer("one")
    await wait_until(lambda: "identity_refused" in peer.running.node.health.names())
    fresh = ca.directory("peer", IDS["peer"])

    for name in ("ca.pem", "key.pem", "cert.pem"):
        shutil.copy2(fresh / name, own / name)

    await wait_until(lambda: IDS["peer"] in tracker.server.core.hosts)
    await wait_until(lambda: peer.running.node.health.names() == [])


async def test_two_hosts_with_one_certificate_are_named_and_keep_their_id(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession
) -> None:
    certified(lab, ca, "tracker", "peer")
    await lab.tracker()
    await lab.proxy()
    one, two = await lab.peer("one"), await lab.peer("two")

    def told() -> list[str]:
        return [
            trouble.detail
            for peer in (one, two)
            for trouble in peer.running.node.health.look()
            if trouble.reason.value == "host_cloned"
        ]

    await wait_until(told)

    assert told()[0].startswith("another host shows the certificate of this one")
    for peer in (one, two):
        assert peer.running.me().host_id == IDS["peer"]
        await pull(client, url_of(peer.mirror))
    assert not (lab.settings("one").host.state_dir / "peer" / "host_id").exists()
