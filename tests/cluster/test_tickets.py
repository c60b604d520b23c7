"""Blobs that only some may read go from host to host by tickets, and to nobody without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from p2pdist.exchange import frames as fr
from p2pdist.model.ids import Digest, HostId, MapId, digest_of
from p2pdist.model.members import Member, Place, Role
from p2pdist.model.private_digests import Scope, is_private, scope_of
from p2pdist.model.statements import Signer, Ticket
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.process import clock
from p2pdist.process.identity import read_secret, read_signer
from p2pdist.registry_proxy import caller_gate
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.settings import Settings, Upstream
from p2pdist.swarm.assembly import link_identity
from p2pdist.tracker.daemon import RunningTracker
from tests.cluster.test_identity import IDS, certified
from tests.fakes.asker import Asker, asker
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry import FakeRegistry, ImageInfo
from tests.fakes.registry_rights import Rights, basic
from tests.process.identities import TestCa
from tests.tracker.servers import wait_until

HOST = "registry.test"
LAYER = random_bytes(6_000_000, 501)
SMALL = random_bytes(1000, 502)
ALICE, BOB = basic("alice"), basic("bob")
SECOND, STRANGER = HostId("d" * 32), HostId("e" * 32)


@dataclass
class House:
    """A proxy before a registry with two users; two peers with certificates."""

    registry: FakeRegistry
    lab: Lab
    ca: TestCa
    client: aiohttp.ClientSession
    tracker: RunningTracker
    proxy: RunningProxy
    first: RunningPeer
    second: RunningPeer
    app: ImageInfo
    ends_proxy: Callable[[], Awaitable[None]]

    @property
    def layer(self) -> Digest:
        return self.app.layer_digests[0]

    @property
    def private(self) -> Digest:
        """What hosts know the layer by."""
        (found,) = [blob.digest for blob in self.proxy.running.store.blobs()]
        return found

    async def get(
        self, peer: RunningPeer, what: str, who: str, repository: str = "alice/app"
    ) -> tuple[int, bytes]:
        headers = {"Authorization": who} if who else {}
        url = f"{url_of(peer.mirror)}/v2/{repository}/{what}?ns={HOST}"
        async with self.client.get(url, headers=headers) as answer:
            return answer.status, await answer.read()

    async def pull(self, peer: RunningPeer, who: str = ALICE) -> bool:
        """Whether all of Alice's image comes, and is right."""
        status, body = await self.get(peer, "manifests/1", who)
        if status != 200 or digest_of(body) != self.app.manifest_digest:
            return False
        for digest in self.app.layer_digests:
            status, body = await self.get(peer, f"blobs/{digest}", who)
            if status != 200 or digest_of(body) != digest:
                return False
        return True

    def stranger(self, node: RunningPeer | RunningProxy) -> AbstractAsyncContextManager[Asker]:
        """A host of the cluster, with a certificate, to which no proxy gave anything."""
        identity = link_identity(self.ca.identity("peer", STRANGER, required=True))
        me = Member(STRANGER, Role.PEER, Place("dc1"))
        secret = read_secret(self.lab.keys.secret_file)
        return asker(node.running.exchange_address, secret, me, identity)

    def ticket(
        self,
        host: HostId,
        *,
        private: Digest | None = None,
        ends_in_s: int = 200,
        signer: Signer | None = None,
    ) -> bytes:
        """One of the proxy's key."""
        scope = scope_of(private or self.private)
        ticket = Ticket(scope, host, int(clock.unix_s()) + ends_in_s)
        return (signer or read_signer(self.lab.keys.key_file)).sign(ticket)

    def map_id(self) -> MapId:
        stored = self.proxy.running.store.get(self.private)
        assert stored is not None
        return stored.chunk_map.map_id


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


@pytest.fixture
async def house(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession, registry: FakeRegistry
) -> AsyncIterator[House]:
    registry.rights = Rights({"alice": {"alice/app"}, "bob": {"bob/app"}})
    app = registry.add_image("alice/app", "1", [LAYER, SMALL])
    registry.add_image("bob/app", "1", [random_bytes(2_000_000, 503)])
    certified(lab, ca, "tracker", "proxy", "peer")
    lab.require_identity = True
    lab.proxy_upload_rate = 4_000_000  # on loopback it is done before hosts have met, else
    tracker = await lab.tracker()
    async with AsyncExitStack() as proxies:
        settings = proxy_settings(lab, registry, "proxy")
        proxy = await proxies.enter_async_context(running_proxy(settings))
        lab.proxies.append(url_of(proxy.registry))
        lab.upstreams = {}
        first = await lab.peer("one")
        lab.identities = {**lab.identities, "peer": ca.directory("peer", SECOND)}
        second = await lab.peer("two")
        yield House(registry, lab, ca, client, tracker, proxy, first, second, app, proxies.aclose)


def proxy_settings(lab: Lab, registry: FakeRegistry, run: str) -> Settings:
    """Of the proxy of this lab; `run`: what its trace is called."""
    settings, trace_file = lab.settings("proxy"), lab.settings(run).proxy.trace_file
    return replace(
        settings,
        upstream=(Upstream(HOST, registry.url, access="passthrough"),),
        proxy=replace(settings.proxy, trace_file=trace_file),
    )


# --- who may --------------------------------------------------------------------------------------


async def test_a_layer_goes_from_host_to_host(house: House) -> None:
    assert await house.pull(house.first)
    await announced(house.tracker, house.first)
    assert await house.pull(house.second)

    assert house.registry.payload_bytes[house.layer] == len(LAYER)
    came = house.second.running.node.counters.received
    assert came["dc"] > len(LAYER) / 2, came
    for running in (house.first.running, house.second.running, house.proxy.running):
        stored = running.store.get(house.private)
        assert stored is not None
        assert stored.complete
        assert running.store.get(house.layer) is None


async def test_nobody_reads_what_lies_on_its_host_without_the_right_to(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await house.pull(house.first)
    for who in (BOB, "", basic("mallory")):
        status, body = await house.get(house.first, f"blobs/{house.layer}", who)
        assert (status, LAYER[:100] in body) == (401, False)
    for repository in ("bob/app", "alice/other"):
        status, _ = await house.get(house.first, f"blobs/{house.layer}", BOB, repository)
        assert status in (401, 404)

    assert house.registry.rights is not None
    house.registry.rights.may_pull["alice"].clear()
    monkeypatch.setattr(caller_gate, "_now_s", lambda: asyncio.get_running_loop().time() + 60)
    status, _ = await house.get(house.first, f"blobs/{house.layer}", ALICE)
    assert status == 401


async def test_trackers_hear_of_private_digests_only(house: House) -> None:
    assert await house.pull(house.first)
    await announced(house.tracker, house.first)

    exported = house.tracker.server.core.export(house.first.running.me().host_id)
    assert exported is not None
    held = [Digest(delta.key) for delta in exported.deltas]
    assert held == [house.private]
    assert is_private(house.private)
    hashes = [d.partition(":")[2] for d in (*house.app.layer_digests, house.app.manifest_digest)]
    assert not any(part in house.private for one in hashes for part in (one[:16], one[-16:]))


async def test_a_peer_without_a_certificate_gets_it_from_the_proxy_alone(house: House) -> None:
    house.lab.identities, house.lab.require_identity = {}, False
    clear = await house.lab.peer("three")
    url = f"{url_of(clear.mirror)}/v2/alice/app/blobs/{house.layer}?ns={HOST}"
    async with house.client.get(url, headers={"Authorization": ALICE}) as answer:
        assert answer.status in (403, 404)  # certificates are required here
    assert clear.running.store.blobs() == []


async def test_after_a_restart_of_the_proxy_it_is_not_read_again(house: House) -> None:
    assert await house.pull(house.first)
    await house.ends_proxy()
    settings = proxy_settings(house.lab, house.registry, "again")
    async with running_proxy(settings) as again:
        identity = house.second.running.identity
        assert identity is not None
        url = f"{url_of(again.registry, 'https')}/v2/alice/app/blobs/{house.layer}?ns={HOST}"
        headers, tls = {"Authorization": ALICE}, identity.current.proxies
        assert tls is not None
        async with house.client.get(url, headers=headers, ssl=tls) as answer:
            assert await answer.read() == LAYER
    assert house.registry.payload_bytes[house.layer] == len(LAYER)


async def test_without_a_proxy_a_host_has_what_lies_there_by_the_registrys_own_yes(
    house: House,
) -> None:
    house.lab.identities = {"peer": house.ca.directory("peer", STRANGER)}
    settings = house.lab.settings("three")
    settings = replace(
        settings,
        peer=replace(settings.peer, direct=True),
        upstream=(Upstream(HOST, house.registry.url, access="passthrough"),),
    )
    async with running_peer(settings) as direct:
        assert await house.pull(direct)
        await house.ends_proxy()

        for who, expected in ((ALICE, 200), (BOB, 401), ("", 401)):
            status, body = await house.get(direct, f"blobs/{house.layer}", who)
            assert (status, body == LAYER) == (expected, expected == 200)
    assert house.registry.payload_bytes[house.layer] == len(LAYER)


# --- who may not ----------------------------------------------------------------------------------


async def _gets_nothing(house: House, asking: Asker) -> None:
    """Neither its map, nor an offer, nor a byte."""
    asking.frames.clear()
    said = await asking.say_interest(house.private)
    assert said == [fr.Retract(house.private)], said
    assert await asking.request(house.private, house.map_id()) is None
    assert await asking.get_small(house.private) is None


@pytest.mark.parametrize("at", ["peer", "proxy"])
async def test_a_host_of_the_cluster_gets_it_by_a_ticket_of_its_own_only(
    house: House, at: str
) -> None:
    assert await house.pull(house.first)
    node = house.proxy if at == "proxy" else house.first
    async with house.stranger(node) as asking:
        await _gets_nothing(house, asking)
        assert await asking.get_small(house.layer) is None
        other = Digest(f"private:{'0' * 64}")
        for record in (
            house.ticket(STRANGER, ends_in_s=-1),
            house.ticket(STRANGER, private=other),
            house.ticket(STRANGER, signer=Signer.generate()),
        ):
            asking.link.send(fr.Ticket(record))
            await _gets_nothing(house, asking)

        asking.link.send(fr.Ticket(house.ticket(STRANGER)))
        asking.frames.clear()
        said = await asking.say_interest(house.private)
        assert any(isinstance(frame, fr.MapRecord) for frame in said), said
        got = await asking.request(house.private, house.map_id())
        assert got == LAYER[: len(got or b"")] != b""


@pytest.mark.parametrize("at", ["peer", "proxy"])
async def test_a_ticket_of_another_host_ends_the_link(house: House, at: str) -> None:
    assert await house.pull(house.first)
    node = house.proxy if at == "proxy" else house.first
    async with house.stranger(node) as asking:
        asking.link.send(fr.Ticket(house.ticket(IDS["peer"])))
        await wait_until(lambda: asking.link.closed)


async def test_a_ticket_in_clear_ends_the_link(
    lab: Lab, ca: TestCa, client: aiohttp.ClientSession, registry: FakeRegistry
) -> None:
    """Without certificates anybody is any host."""
    proxy = await lab.proxy()
    signer = read_signer(lab.keys.key_file)
    async with asker(proxy.running.exchange_address, read_secret(lab.keys.secret_file)) as asking:
        ends_s = int(clock.unix_s()) + 99
        ticket = Ticket(Scope(bytes(16)), HostId("a" * 32), ends_s)
        asking.link.send(fr.Ticket(signer.sign(ticket)))
        await wait_until(lambda: asking.link.closed)
