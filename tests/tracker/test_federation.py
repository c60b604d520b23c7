"""Two trackers that are each other's federation, over real connections."""

from __future__ import annotations

from random import Random

from p2pdist.demo.processes import free_ports
from p2pdist.model.control import LeaseAnswer, LeaseAsk, LeaseEnd, SwarmKey, origin_key
from p2pdist.model.ids import Digest
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.model.rendezvous import ranked
from p2pdist.process.proxy_key_holder import ProxyKeyHolder
from p2pdist.tracker.server import TrackerServer
from tests.fakes.secrets import held
from tests.tracker.hosts import host_id, key, member
from tests.tracker.servers import SECRET, SIGNER, dialled, running, wait_until


def tracker_of(number: int, dc: str, port: int, other_port: int) -> TrackerServer:
    return TrackerServer(
        Address("127.0.0.1", port),
        secret=held(SECRET),
        me=tracker_member(number, dc),
        proxy_keys=ProxyKeyHolder(None, [SIGNER.public_key_bytes]),
        rng=Random(1),
        federation=[f"tcp://127.0.0.1:{other_port}"],
    )


def tracker_member(number: int, dc: str) -> Member:
    return Member(host_id(0xFFF0 + number), Role.TRACKER, Place(dc))


def key_of(dc: str) -> SwarmKey:
    keys = (origin_key(Digest(key(str(number)))) for number in range(100))
    return next(k for k in keys if ranked(k, {"dc1", "dc2"})[0] == dc)


async def test_only_one_datacenter_reads_a_blob_from_its_registry() -> None:
    ports = free_ports(2)
    servers = [tracker_of(1, "dc1", *ports), tracker_of(2, "dc2", *reversed(ports))]
    async with running(servers[0]) as first, running(servers[1]) as second:
        await wait_until(lambda: all(server.core.grants.remotes for server in servers))
        mine, theirs = member(1, "dc1", Role.PROXY), member(2, "dc2", Role.PROXY)
        async with dialled(first, mine) as one, dialled(second, theirs) as two:
            for contested in (key_of("dc1"), key_of("dc2")):
                await one.send(LeaseAsk(1, contested))
                granted = await one.expect(LeaseAnswer)
                await two.send(LeaseAsk(1, contested))
                refused = await two.expect(LeaseAnswer)

                assert granted.fence > 0
                assert (refused.fence, refused.holder) == (0, mine)

                await one.send(LeaseEnd(contested, granted.fence))
                await wait_until(lambda: not any(len(s.core.leases) for s in servers))
                await two.send(LeaseAsk(2, contested))
                following = await two.expect(LeaseAnswer)

                assert following.fence > 0
                assert following.holder == mine
                await two.send(LeaseEnd(contested, following.fence))


async def test_each_side_goes_on_when_the_other_is_gone() -> None:
    ports = free_ports(2)
    server = tracker_of(1, "dc1", *ports)
    async with running(server) as url:
        async with running(tracker_of(2, "dc2", *reversed(ports))):
            await wait_until(lambda: server.core.grants.remotes)
        await wait_until(lambda: not server.core.grants.remotes)
        async with dialled(url, member(1, "dc1", Role.PROXY)) as proxy:
            await proxy.send(LeaseAsk(1, key_of("dc2")))

            assert (await proxy.expect(LeaseAnswer)).fence > 0
