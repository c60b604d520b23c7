"""Row 104: somebody on the wire between hosts that have certificates."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from p2pdist.exchange.link import Link
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address
from p2pdist.peer.daemon import RunningPeer
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.fault_proxy import Corrupt, FaultProxy
from tests.faults.reading import check_stores
from tests.faults.records import recorded
from tests.process.identities import TestCa

LAYER = random_bytes(4_000_000, 104)
IDS = {"tracker": HostId("1" * 32), "proxy": HostId("2" * 32), "peer": HostId("3" * 32)}


def by_way_of(peer: RunningPeer, there: Address, between: Address) -> list[Link]:
    """Have the peer's dials of `there` go to `between`; return the links that come of them."""
    transport, links = peer.running.transport, []
    dial = transport.dial

    async def dial_between(
        address: Address, *, timeout_s: float, expected: HostId | None = None
    ) -> Link:
        to = between if address.port == there.port else address
        link = await dial(to, timeout_s=timeout_s, expected=expected)
        links.append(link)
        return link

    transport.dial = dial_between  # type: ignore[method-assign]
    return links


@pytest.mark.faults
async def test_damage_on_the_wire_is_nobodys_fault(
    lab: Lab, registry: FakeRegistry, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    ca = TestCa(tmp_path)
    registry.add_image("library/app", "1", [LAYER])
    lab.identities = {role: ca.directory(role, host) for role, host in IDS.items()}
    lab.require_identity = True
    await lab.tracker()
    proxy = await lab.proxy()
    there = proxy.running.exchange_address
    async with FaultProxy(Address("127.0.0.1", there.port)) as between:
        between.down.append(Corrupt(0.1))
        peer = await lab.peer("a")
        links = by_way_of(peer, there, between.address)
        peer.running.transport.drop_links("to be dialled by way of the wire")
        with recorded(104, "bits changed on the wire", "sealed links") as record:
            await pull(client, url_of(peer.mirror))

            node = peer.running.node
            ended = sum(link.closed for link in links)
            assert links, "no link went by way of the wire"
            assert ended, "nothing was changed on it"
            assert all(link.sealed for link in links)
            assert (node.core.trust.bans_total, proxy.running.node.core.trust.bans_total) == (0, 0)
            assert not node.counters.rejected, node.counters.rejected
            check_stores(lab)
            record.invariants = ["I1", "I2", "I3"]
            record.retries = ended
            record.outcome = (
                f"{ended} links ended, 0 chunks rejected, nobody banned; the pull went on"
            )
