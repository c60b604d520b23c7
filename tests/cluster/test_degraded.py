"""P2P that is off is seen: `/readyz`, a metric, one line of the log, `status` and `doctor`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest

from p2pdist.cli.status import describe
from p2pdist.demo.processes import free_ports
from p2pdist.doctor import network
from p2pdist.doctor.findings import Finding, Level
from p2pdist.model import health
from p2pdist.model.health import RULES, Reason
from p2pdist.model.members import Address
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.process import clock
from p2pdist.process.keys import KeyFiles, make_keys
from p2pdist.registry import proxy_client
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.settings import Settings
from p2pdist.swarm import reader
from p2pdist.swarm.core import proxy_links
from p2pdist.tracker.daemon import RunningTracker, running_tracker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

MIB = 1 << 20
LAYER = random_bytes(3 * MIB, 91)


@dataclass
class Seen:
    """What an operator sees of one daemon."""

    admin: Address
    settings: Settings
    role: str
    caplog: pytest.LogCaptureFixture
    client: aiohttp.ClientSession = field(repr=False)

    async def shows(self, reason: Reason) -> set[str]:
        """Where `reason` is named now, with its fix where there is a place for it."""
        return {place for place, shown in (await self._places(reason)).items() if shown}

    async def _places(self, reason: Reason) -> dict[str, bool]:
        readiness = await self._json("/readyz")
        assert readiness["ready"] is True
        fix = RULES[reason].fix
        status = "\n".join(describe(await self._json("/api/v1/status")))
        findings = await network.check_running(self.settings, self.role)
        return {
            "readyz": reason.value in readiness["degraded"],
            "metric": f'p2pdist_degraded{{reason="{reason.value}"}} 1.0' in await self.metrics(),
            "status": f"{reason.value} for" in status and f"fix: {fix}" in status,
            "doctor": any(_names(finding, reason) for finding in findings),
        }

    async def metrics(self) -> str:
        """Once more than a second old, as it is kept for one."""
        async with self.client.get(f"{url_of(self.admin)}/metrics") as answer:
            return await answer.text()

    def lines(self, reason: Reason) -> list[logging.LogRecord]:
        """Warnings of this reason."""
        return [
            record
            for record in self.caplog.records
            if record.getMessage() == "degraded.began"
            and record.__dict__["fields"]["reason"] == reason
        ]

    async def _json(self, path: str) -> dict[str, Any]:
        async with self.client.get(f"{url_of(self.admin)}{path}") as answer:
            body: dict[str, Any] = json.loads(await answer.read())
            return body


EVERYWHERE = {"readyz", "metric", "status", "doctor"}


def _names(finding: Finding, reason: Reason) -> bool:
    named = finding.text.startswith(f"{reason.value} for ")
    return named and finding.level is Level.WARN and finding.fix == RULES[reason].fix


@pytest.fixture
def see(
    lab: Lab, client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> Callable[[RunningPeer], Seen]:
    caplog.set_level(logging.INFO)

    def see(peer: RunningPeer) -> Seen:
        settings = lab.settings("any")
        settings = replace(settings, peer=replace(settings.peer, admin_listen=peer.admin))
        return Seen(peer.admin, settings, "peer", caplog, client)

    return see


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  # daemons have no event for what they show
            await asyncio.sleep(0.05)


async def seen_everywhere(seen: Seen, reason: Reason, case: str = "") -> None:
    """It ends up in every place, and in the log once."""

    async def everywhere() -> bool:
        return await seen.shows(reason) == EVERYWHERE

    with recorded(57, "P2P is off", f"{reason.value}{case and f', {case}'}") as record:
        await until(everywhere)
        assert [line.levelno for line in seen.lines(reason)] == [logging.WARNING]
        assert seen.lines(reason)[0].__dict__["fields"]["fix"] == RULES[reason].fix
        record.outcome = f"{reason.value} in {', '.join(sorted(EVERYWHERE))}; one WARNING"


async def gone_everywhere(seen: Seen, reason: Reason) -> None:
    async def nowhere() -> bool:
        return not await seen.shows(reason)

    await until(nowhere)


@asynccontextmanager
async def tracker_at(lab: Lab, port: int, keys: KeyFiles) -> AsyncIterator[RunningTracker]:
    settings = lab.settings("tracker")
    cluster = replace(settings.cluster, secret_file=keys.secret_file)
    tracker = replace(settings.tracker, listen=Address("127.0.0.1", port))
    async with running_tracker(replace(settings, cluster=cluster, tracker=tracker)) as running:
        yield running


@asynccontextmanager
async def proxy_at(
    lab: Lab, port: int, *, secret: KeyFiles | None = None, signer: KeyFiles | None = None
) -> AsyncIterator[RunningProxy]:
    settings = lab.settings(f"proxy{port}")
    proxy = replace(settings.proxy, listen=Address("127.0.0.1", port))
    if signer is not None:
        proxy = replace(proxy, key_file=signer.key_file)
    cluster = settings.cluster
    if secret is not None:
        cluster = replace(cluster, secret_file=secret.secret_file)
    async with running_proxy(replace(settings, cluster=cluster, proxy=proxy)) as running:
        yield running


async def test_a_tracker_with_another_secret_is_named_until_it_has_ours(
    lab: Lab, see: Callable[[RunningPeer], Seen]
) -> None:
    (port,) = free_ports(1)
    lab.trackers.append(f"tcp://127.0.0.1:{port}")
    other = make_keys(lab.directory / "other")
    async with tracker_at(lab, port, other) as tracker:
        peer = await lab.peer("a")
        seen = see(peer)

        await seen_everywhere(seen, Reason.WRONG_SECRET, "tracker")

        assert tracker.server.health.names() == ["strangers"]
        assert tracker.server.core.counters.strangers_total >= 1
        found = [f async for f in network.check_others(lab.settings("a"), "peer")]
        (told,) = [f for f in found if f.check == "tracker"]
        assert (told.level, told.fix) == (Level.FAIL, RULES[Reason.WRONG_SECRET].fix)
    async with tracker_at(lab, port, lab.keys):
        await gone_everywhere(seen, Reason.WRONG_SECRET)


async def test_a_proxy_with_another_secret_is_named_and_so_are_the_bytes_past_the_swarm(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    see: Callable[[RunningPeer], Seen],
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    (port,) = free_ports(1)
    lab.proxies.append(f"http://127.0.0.1:{port}")
    async with proxy_at(lab, port, secret=make_keys(lab.directory / "other")) as proxy:
        peer = await lab.peer("a")
        seen = see(peer)

        await pull(client, url_of(peer.mirror))

        await seen_everywhere(seen, Reason.WRONG_SECRET, "proxy")
        await seen_everywhere(seen, Reason.FALLBACK_USED, "no link")
        assert proxy.running.node.health.names() == ["strangers"]
        assert peer.running.node.counters.fallback_reasons["no_link"] >= len(LAYER)
        assert 'p2pdist_fallback_bytes_total{reason="no_link"}' in await seen.metrics()
        found = [f async for f in network.check_others(lab.settings("a"), "peer")]
        (told,) = [f for f in found if f.check == "exchange"]
        assert (told.level, told.fix) == (Level.FAIL, RULES[Reason.WRONG_SECRET].fix)


async def test_a_proxy_key_that_is_not_believed_is_named_until_one_is(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    see: Callable[[RunningPeer], Seen],
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    (port,) = free_ports(1)
    lab.proxies.append(f"http://127.0.0.1:{port}")
    async with proxy_at(lab, port, signer=make_keys(lab.directory / "other")):
        peer = await lab.peer("a")
        seen = see(peer)

        await seen_everywhere(seen, Reason.WRONG_KEY, "told")

        found = [f async for f in network.check_others(lab.settings("a"), "peer")]
        (told,) = [f for f in found if f.check == "proxy key"]
        assert (told.level, told.fix) == (Level.FAIL, RULES[Reason.WRONG_KEY].fix)
    async with proxy_at(lab, port):
        await pull(client, url_of(peer.mirror))
        await gone_everywhere(seen, Reason.WRONG_KEY)


async def test_a_proxy_that_does_not_tell_its_key_is_named_by_what_it_signs(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    see: Callable[[RunningPeer], Seen],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    monkeypatch.setattr(proxy_client, "read_key_id", lambda _: None)  # as an older version
    (port,) = free_ports(1)
    lab.proxies.append(f"http://127.0.0.1:{port}")
    async with proxy_at(lab, port, signer=make_keys(lab.directory / "other")):
        peer = await lab.peer("a")
        seen = see(peer)
        assert not await seen.shows(Reason.WRONG_KEY)

        await read_blob(client, url_of(peer.mirror), image.layer_digests[0])

        await seen_everywhere(seen, Reason.WRONG_KEY, "signed with")


async def test_a_host_that_cannot_be_reached_is_told_what_to_set(
    lab: Lab, see: Callable[[RunningPeer], Seen]
) -> None:
    settings = lab.settings("a")
    anywhere = Address("0.0.0.0", 0)  # what the case is about
    deaf = replace(settings, peer=replace(settings.peer, exchange_listen=anywhere))
    async with running_peer(deaf) as peer:
        seen = see(peer)
        await seen_everywhere(seen, Reason.UNREACHABLE)
        assert "p2pdist_store_degraded 0.0" in await seen.metrics()  # it is about the store alone


async def test_a_host_that_is_seen_elsewhere_than_it_says_is_told_what_to_set(
    lab: Lab, see: Callable[[RunningPeer], Seen]
) -> None:
    await lab.tracker()
    settings = lab.settings("a")
    elsewhere = (Address("192.0.2.9", 5301),)  # for documentation: no host has it
    async with running_peer(
        replace(settings, host=replace(settings.host, advertise=elsewhere))
    ) as peer:
        seen = see(peer)
        await seen_everywhere(seen, Reason.ADDRESS_REFUSED)
        (line,) = seen.lines(Reason.ADDRESS_REFUSED)
        detail = line.__dict__["fields"]["detail"]
        assert "192.0.2.9:5301 announced by a host that is seen from 127.0.0.1" in detail


async def test_a_clock_that_is_wrong_is_named_until_it_is_set(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    see: Callable[[RunningPeer], Seen],
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    behind_s = 120.0
    await lab.tracker()
    await lab.proxy()
    wrong = running_peer(lab.settings("a"), unix_s=lambda: clock.unix_s() - behind_s)
    async with wrong as peer:
        seen = see(peer)

        await seen_everywhere(seen, Reason.CLOCK_SKEW)
        await pull(client, url_of(peer.mirror))

        async def both_are_measured() -> bool:
            text = await seen.metrics()
            return all(f'p2pdist_clock_skew_seconds{{to="{to}"}}' in text for to in TOLD)

        await until(both_are_measured)
        (trouble,) = [t for t in peer.running.node.health.look() if t.reason is Reason.CLOCK_SKEW]
        assert "this clock is 120 s behind tcp://" in trouble.detail
        assert f"this clock is 120 s behind {lab.proxies[0]}" in trouble.detail
        behind_s = 1.0
        await gone_everywhere(seen, Reason.CLOCK_SKEW)


TOLD = ("tracker", "proxy")


async def test_a_tracker_that_is_away_is_named_until_it_is_back(
    lab: Lab, see: Callable[[RunningPeer], Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = replace(RULES[Reason.TRACKER_AWAY], begin_s=0.0)
    monkeypatch.setattr(health, "RULES", {**RULES, Reason.TRACKER_AWAY: at_once})
    (port,) = free_ports(1)
    lab.trackers.append(f"tcp://127.0.0.1:{port}")
    seen = see(await lab.peer("a"))

    await seen_everywhere(seen, Reason.TRACKER_AWAY)

    async with tracker_at(lab, port, lab.keys):
        await gone_everywhere(seen, Reason.TRACKER_AWAY)


async def test_a_proxy_that_is_away_is_named_until_it_is_back(
    lab: Lab, see: Callable[[RunningPeer], Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_links, "IDLE_S", 0.4)
    (port,) = free_ports(1)
    lab.proxies.append(f"http://127.0.0.1:{port}")
    seen = see(await lab.peer("a"))

    await seen_everywhere(seen, Reason.NO_PROXY_LINK, "never there")

    async with proxy_at(lab, port):
        await gone_everywhere(seen, Reason.NO_PROXY_LINK)


async def test_a_proxy_that_dies_is_named_without_a_pull(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    see: Callable[[RunningPeer], Seen],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxy_links, "IDLE_S", 0.4)
    registry.add_image("library/app", "1", [LAYER])
    (port,) = free_ports(1)
    lab.proxies.append(f"http://127.0.0.1:{port}")
    async with proxy_at(lab, port):
        peer = await lab.peer("a")
        await pull(client, url_of(peer.mirror))
        assert peer.running.node.counters.received["proxy"] >= len(LAYER)  # there was a link
    seen = see(peer)

    await seen_everywhere(seen, Reason.NO_PROXY_LINK, "died")

    async with proxy_at(lab, port):
        await gone_everywhere(seen, Reason.NO_PROXY_LINK)


async def test_bytes_past_a_proxy_that_is_there_are_counted_by_reason(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    see: Callable[[RunningPeer], Seen],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    monkeypatch.setattr(reader, "FIRST_WAIT_S", -1.0)  # no patience at all with the swarm
    monkeypatch.setattr(reader, "PROGRESS_WAIT_S", -1.0)
    monkeypatch.setattr(reader, "TURN_S", 0.0)
    await lab.proxy()
    peer = await lab.peer("a", direct=True)
    seen = see(peer)

    await pull(client, url_of(peer.mirror))

    await seen_everywhere(seen, Reason.FALLBACK_USED, "slow proxy")
    assert peer.running.node.counters.fallback_reasons["first_byte"] > 0


async def test_a_cluster_without_faults_has_nothing_to_say(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    see: Callable[[RunningPeer], Seen],
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    tracker = await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")
    seen = see(peer)

    await pull(client, url_of(peer.mirror))

    for daemon in (peer.running.node, proxy.running.node, tracker.server):
        assert daemon.health.names() == []
    assert [line for reason in Reason for line in seen.lines(reason)] == []
    (finding,) = await network.check_running(seen.settings, "peer")
    assert finding.level is Level.PASS
    text = await seen.metrics()
    for reason in Reason:
        assert f'p2pdist_degraded{{reason="{reason.value}"}} 0.0' in text
