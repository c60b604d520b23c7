"""A host whose certificate was taken back: what it has is cut, what it asks is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from p2pdist.control import renewing
from p2pdist.doctor.findings import Level
from p2pdist.doctor.local import check_identity
from p2pdist.errors import UpstreamError
from p2pdist.model.ids import HostId
from p2pdist.model.members import Role
from p2pdist.process import clock, identity_holder
from p2pdist.process.revocation_lists import LIST_NAME, revoke
from tests.cluster.test_identity import IDS, certified, status_of
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded
from tests.process.identities import TestCa
from tests.tracker.servers import wait_until

THIEF = HostId("e" * 32)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        for number in range(3):
            found.add_image("library/app", str(number), [random_bytes(1 << 20, number)])
        yield found


@pytest.fixture
def ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestCa:
    monkeypatch.setattr(identity_holder, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(renewing, "LOOK_EVERY_S", 0.05)
    return TestCa(tmp_path)


@pytest.mark.faults
async def test_a_stolen_host_is_out_and_the_others_go_on(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession
) -> None:
    certified(lab, ca, "tracker", "proxy", "peer")
    lab.require_identity, lab.ca_dir = True, ca.keep()
    tracker, proxy, honest = await lab.tracker(), await lab.proxy(), await lab.peer("one")
    lab.identities = {**lab.identities, "peer": ca.directory("peer", THIEF)}
    stolen = await lab.peer("two")
    for number, peer in enumerate((honest, stolen)):
        await pull(client, url_of(peer.mirror), tag=str(number))
    await wait_until(lambda: THIEF in tracker.server.core.hosts)
    assert proxy.running.transport.sealed == 2
    at_proxy = stolen.running.node.proxies[0]  # what it keeps connections to the proxy in
    await at_proxy.greet(timeout_s=5.0)

    with recorded(102, "a host is revoked while it is connected", "") as record:
        since_s = clock.unix_s()
        revoke(lab.ca_dir, ca.ca, [THIEF], since_s)
        health = stolen.running.node.health
        await wait_until(lambda: THIEF not in tracker.server.core.hosts)
        await wait_until(lambda: "identity_refused" in health.names())
        await wait_until(lambda: proxy.running.transport.sealed == 1)
        assert THIEF not in proxy.running.node.neighbourhood.links
        with pytest.raises(UpstreamError, match="hosts with a certificate only"):
            await at_proxy.greet(timeout_s=5.0)
        record.outcome = "out at tracker, links and /v2/; the others pull on"
        record.took("out", clock.unix_s() - since_s, at_most_s=30.0)

    await pull(client, url_of(honest.mirror), tag="2")
    assert set(tracker.server.core.hosts) == {IDS["proxy"], IDS["peer"]}
    for admin in (tracker.admin, proxy.admin, honest.admin):
        assert (await status_of(client, admin))["identity"]["revoked_hosts"] == 1
    async with client.get(f"{url_of(honest.admin)}/metrics") as answer:
        assert "p2pdist_identity_revoked_hosts 1" in await answer.text()
    with pytest.raises(aiohttp.ClientResponseError, match="hosts with a certificate only"):
        await pull(client, url_of(stolen.mirror), tag="2")  # its runtime asks the registry then
    (told,) = [t for t in health.look() if t.reason.value == "identity_refused"]
    assert f"host {THIEF} was revoked" in told.detail


async def test_who_was_away_hears_of_it_and_knows_it_after_a_restart(lab: Lab, ca: TestCa) -> None:
    certified(lab, ca, "tracker", "peer")
    lab.require_identity, lab.ca_dir = True, ca.keep()
    revoke(lab.ca_dir, ca.ca, [THIEF], clock.unix_s())
    await lab.tracker()
    peer = await lab.peer("one")
    own = peer.running.identity
    assert own is not None
    await wait_until(lambda: THIEF in own.current.revoked)

    def known_again() -> bool:
        again = identity_holder.identity_holder(lab.settings("one"), Role.PEER)
        return again is not None and THIEF in again.current.revoked

    await wait_until(known_again)  # it counts at once, and is on the disk a moment later


async def test_a_proxy_that_was_revoked_is_told_nothing(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession
) -> None:
    """Neither over a link nor at `/v2/`, where it has connections that stand."""
    certified(lab, ca, "tracker", "proxy", "peer")
    lab.require_identity = True
    await lab.proxy()
    peer = await lab.peer("one")
    await pull(client, url_of(peer.mirror), tag="0")
    assert peer.running.transport.links == 1
    own = peer.running.identity
    assert own is not None

    directory, context = own.current.directory, own.current.proxies
    revoke(directory, ca.ca, [IDS["proxy"]], clock.unix_s())
    await wait_until(lambda: peer.running.transport.links == 0)
    await wait_until(lambda: own.current.proxies is not context)
    with pytest.raises(UpstreamError, match="was revoked"):
        await peer.running.node.proxies[0].greet(timeout_s=5.0)
    with pytest.raises(aiohttp.ClientResponseError, match=f"host {IDS['proxy']} was revoked"):
        await pull(client, url_of(peer.mirror), tag="1")
    assert (directory / LIST_NAME).exists()


async def test_the_host_itself_says_so(lab: Lab, ca: TestCa) -> None:
    certified(lab, ca, "peer")
    peer = await lab.peer("one")
    own = peer.running.identity
    assert own is not None
    revoke(own.current.directory, ca.ca, [IDS["peer"]], clock.unix_s())

    await wait_until(lambda: "identity_revoked" in peer.running.node.health.names())

    found = check_identity(lab.settings("one"), Role.PEER, clock.unix_s())
    assert found.level is Level.FAIL
    assert "was revoked" in found.text
