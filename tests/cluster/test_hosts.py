"""Hosts whose network comes late or changes, and hosts that are copies of one another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from p2pdist.model.health import Reason
from p2pdist.model.members import Address
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.process import own_addresses
from p2pdist.registry.proxy_client import HOST_ID
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded
from tests.tracker.servers import wait_until

pytestmark = pytest.mark.faults

MIB = 1 << 20
LAYER = random_bytes(3 * MIB, 77)


async def test_a_host_is_named_at_the_address_that_it_has_now(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had none when it started, and gets another one later: no restart is needed."""
    ours: list[str] = []

    def routes(targets: Iterable[Any]) -> list[str]:
        return ours[-1:]

    monkeypatch.setattr(own_addresses, "_routes", routes)
    monkeypatch.setattr(own_addresses, "_is_ours", lambda host: host in {"0.0.0.0", *ours[-1:]})
    monkeypatch.setattr(own_addresses, "LOOK_EVERY_S", 0.01)
    tracker = await lab.tracker()
    settings = lab.settings("a")
    anywhere = replace(settings.peer, exchange_listen=Address("0.0.0.0", 0))
    async with running_peer(replace(settings, peer=anywhere)) as peer:
        node, me = peer.running.node, peer.running.me

        def named(host: str) -> bool:
            known = tracker.server.core.hosts.get(me().host_id)
            address = Address(host, peer.running.exchange_address.port)
            return known is not None and known.member.addresses == (address,)

        await wait_until(lambda: peer.running.tracker.connected)
        assert Reason.UNREACHABLE in node.health.names()

        with recorded(61, "network that comes late, and changes") as record:
            for address in ("127.0.0.7", "127.0.0.8"):
                ours.append(address)
                await wait_until(lambda: named(ours[-1]))
                assert Reason.UNREACHABLE not in node.health.names()
            record.outcome = "named at its new address each time; unreachable in readyz before"


@asynccontextmanager
async def cloned(lab: Lab, names: Sequence[str], host_id: str) -> AsyncIterator[list[RunningPeer]]:
    """Peers whose state directories were copied from one host."""
    async with AsyncExitStack() as stack:
        peers = []
        for name in names:
            state = lab.settings(name).host.state_dir / "peer"
            state.mkdir(mode=0o700, parents=True)
            (state / "host_id").write_text(f"{host_id}\n")
            peers.append(await stack.enter_async_context(lab.peer_context(name)))
        yield peers


async def test_hosts_made_from_one_image_become_hosts_of_their_own(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On one machine, so that the id is not given up at the start already."""
    registry.add_image("library/app", "1", [LAYER])
    tracker = await lab.tracker()
    await lab.proxy()
    shared, names = "ab" * 16, ("a", "b", "c")
    async with cloned(lab, names, shared) as peers:
        with recorded(62, "hosts with one id", "three, a tracker") as record:
            await wait_until(lambda: tracker.server.core.hosts_connected == 1 + len(peers))
            ids = [peer.running.me().host_id for peer in peers]
            assert len(set(ids)) == len(peers)
            assert set(ids) <= tracker.server.core.hosts.keys()
            renewed = [peer for peer in peers if peer.running.own_id.renewed_total]
            assert len(renewed) == len(peers) - 1, "one of them keeps it"
            record.outcome = f"{len(set(ids))} ids, {len(renewed)} of them new"
        for peer in renewed:
            assert peer.running.node.health.names() == ["host_cloned"]
            async with client.get(f"{url_of(peer.admin)}/metrics") as answer:
                assert b"p2pdist_host_ids_given_up_total 1.0" in await answer.read()
        for peer in peers:
            await pull(client, url_of(peer.mirror))
    kept = [lab.settings(name).host.state_dir / "peer" / "host_id" for name in names]
    assert [path.read_text().split()[0] for path in kept] == ids, "the next start has the new id"
    said = next(r for r in caplog.records if r.getMessage() == "host.cloned")
    assert said.__dict__["fields"] == {
        "host": shared,
        "peer": "127.0.0.1",
        "reason": "this host id is in use at 127.0.0.1",
    }


async def test_without_a_tracker_the_proxy_tells_hosts_of_one_image(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Where nothing else does: it has a link with one of them when the other comes back."""
    layers = [random_bytes(2 * MIB, 60 + number) for number in range(2)]
    image = registry.add_image("library/app", "1", layers)
    await lab.proxy()
    async with cloned(lab, ("a", "b"), "ab" * 16) as peers:

        def ids() -> set[str]:
            return {peer.running.me().host_id for peer in peers}

        with recorded(62, "hosts with one id", "two, a proxy and no tracker") as record:
            for digest in image.layer_digests:  # each time the link of the other makes way
                for peer in peers:
                    await read_blob(client, url_of(peer.mirror), digest)
            await wait_until(lambda: len(ids()) == len(peers))
            new = sum(peer.running.own_id.renewed_total for peer in peers)
            record.outcome = f"all blobs read; {len(ids())} ids, {new} of them new"


async def test_a_proxy_that_takes_a_new_id_tells_it_who_asks(
    lab: Lab, client: aiohttp.ClientSession
) -> None:
    proxy = await lab.proxy()
    own_id = proxy.running.own_id

    async def told() -> str:
        async with client.get(f"{url_of(proxy.registry)}/v2/") as answer:
            return answer.headers[HOST_ID]

    before = await told()
    own_id.renew(0.0, "in use elsewhere")

    assert before != await told() == own_id.current
