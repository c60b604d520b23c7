"""Certificates of real daemons that renew themselves, and the one whose tracker was away."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from p2pdist.control import renewing
from p2pdist.control.core import renewal
from p2pdist.doctor.network import check_others
from p2pdist.model.ids import HostId
from p2pdist.process import clock, identity_holder
from p2pdist.process.certificates import DAY_S
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.tracker.daemon import running_tracker
from tests.cluster.test_identity import IDS, certified, status_of
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded
from tests.process.identities import TestCa
from tests.tracker.servers import wait_until

IMAGES = ("1", "2", "3")


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        for number, tag in enumerate(IMAGES):
            found.add_image("library/app", tag, [random_bytes(1 << 20, number)])
        yield found


@pytest.fixture
def ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestCa:
    monkeypatch.setattr(identity_holder, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(renewing, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(renewal, "RUSH_S", 0.0)  # else hosts that are late wait for minutes
    return TestCa(tmp_path)


def held(own: IdentityHolder | None) -> IdentityHolder:
    assert own is not None
    return own


async def test_peer_and_proxy_have_theirs_renewed_and_pull_on(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession
) -> None:
    lab.identities = {
        role: ca.directory(role, IDS[role], begun_days=25) for role in ("tracker", "proxy", "peer")
    }
    lab.require_identity, lab.ca_dir = True, ca.keep()
    tracker, proxy, peer = await lab.tracker(), await lab.proxy(), await lab.peer("one")
    holders = [held(each.running.identity) for each in (proxy, peer)]

    await wait_until(lambda: all(own.taken_total == 1 for own in holders))
    await pull(client, url_of(peer.mirror))

    for own in holders:
        assert own.current.says.ends_s - clock.unix_s() > 25 * DAY_S - 60
        assert own.renewals == {"done": 1}
    assert tracker.server.core.hosts_connected == 2
    status = await status_of(client, peer.admin)
    assert status["identity"]["renewal"].startswith("by itself, ")
    assert status["degraded"] == []
    told = [f.text async for f in check_others(lab.settings("one"), "peer") if f.check == "renewal"]
    assert told == [f"{lab.trackers[0]} renews this host's certificate"]
    async with client.get(f"{url_of(tracker.admin)}/metrics") as answer:
        assert "p2pdist_tracker_certificates_signed_total 2.0" in await answer.text()


@pytest.mark.faults
@pytest.mark.parametrize("required", [False, True])
async def test_a_tracker_that_is_away_until_the_certificate_ends_costs_no_pull(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession, required: bool
) -> None:
    certified(lab, ca, "tracker", "proxy")
    lab.require_identity, lab.ca_dir = required, ca.keep()
    settings = lab.settings("tracker")
    async with running_tracker(settings) as tracker:
        address = tracker.control
    lab.trackers.append(url_of(address, "tcp"))
    await lab.proxy()
    own_dir = ca.directory("peer", IDS["peer"], begun_days=30 - 4 / DAY_S)
    lab.identities = {"peer": own_dir}
    peer = await lab.peer("one")
    own, health = held(peer.running.identity), peer.running.node.health
    variant = "certificates alone" if required else "the secret as well"

    with recorded(101, "tracker that renews is away until the certificate ends", variant) as record:
        await pull(client, url_of(peer.mirror), tag="1")
        assert "once a tracker that renews is connected" in own.renewal
        assert "identity_ends" in health.names()
        await wait_until(lambda: own.current.says.fault_at(own.unix_s()))
        await pull(client, url_of(peer.mirror), tag="2")
        back = replace(settings, tracker=replace(settings.tracker, listen=address))
        async with running_tracker(back) as tracker:
            who = IDS["peer"] if not required else HostId(IDS["proxy"])
            await wait_until(lambda: who in tracker.server.core.hosts)
            if required:
                await wait_until(lambda: "identity_refused" in health.names())
            await pull(client, url_of(peer.mirror), tag="3")
            fresh = ca.directory("peer", IDS["peer"])
            since_s = time.monotonic()
            for name in ("ca.pem", "key.pem", "cert.pem"):
                shutil.copy2(fresh / name, own_dir / name)
            await wait_until(lambda: IDS["peer"] in tracker.server.core.hosts and own.taken_total)
            await wait_until(lambda: health.names() == [])
            record.outcome = "every pull right, before and after its end; issued anew, taken up"
            record.took("back", time.monotonic() - since_s, at_most_s=30.0)
