"""Hosts that announce addresses which they do not prove, at a real tracker."""

from __future__ import annotations

from ipaddress import ip_network
from random import Random

import msgspec
import pytest

from p2pdist.model.control import Announce, Handout, Join, LeaseAnswer, LeaseAsk, Welcome
from p2pdist.model.health import Reason
from p2pdist.model.members import Address, Member, Role
from p2pdist.model.private_places import IpNetwork
from p2pdist.process.proxy_key_holder import ProxyKeyHolder
from p2pdist.tracker.server import TrackerServer
from tests.fakes.secrets import held
from tests.tracker.hosts import host_id, key, member, seed
from tests.tracker.servers import SECRET, SIGNER, TRACKER, dialled, running, wait_until
from tests.tracker.test_federation import key_of, tracker_member

# Addresses for documentation: no host has them.
FOREIGN = Address("192.0.2.9", 5301)
OTHER = Address("198.51.100.9", 5301)


def server_of(*networks: IpNetwork, federation: tuple[str, ...] = ()) -> TrackerServer:
    return TrackerServer(
        Address("127.0.0.1", 0),
        secret=held(SECRET),
        me=TRACKER,
        proxy_keys=ProxyKeyHolder(None, [SIGNER.public_key_bytes]),
        rng=Random(1),
        member_networks=networks,
        federation=federation,
    )


def at(number: int, *addresses: Address, role: Role = Role.PEER) -> Member:
    return msgspec.structs.replace(member(number, role=role), addresses=addresses)


async def named_to_others(server: TrackerServer, me: Member) -> tuple[list[Member], Welcome]:
    """Who a reader is told of when `me` holds the blob, and what `me` was told."""
    async with running(server) as url, dialled(url, me) as holder:
        welcome = await holder.expect(Welcome)
        await holder.send(Announce([seed(key())]))
        await wait_until(lambda: server.core.counters.announces_total)
        async with dialled(url, member(2)) as reader:
            await reader.send(Join(1, key()))
            return (await reader.expect(Handout)).members, welcome


async def test_a_host_with_foreign_addresses_alone_is_named_to_nobody_and_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = server_of()

    named, welcome = await named_to_others(server, at(1, FOREIGN))

    assert named == []
    assert welcome.unnamed
    assert "192.0.2.9:5301" in welcome.refused
    assert "127.0.0.1" in welcome.refused
    assert server.core.export(host_id(1)) is None, "after a restart it is named to nobody either"
    assert server.core.counters.hosts_unnamed_total == 1
    assert Reason.ADDRESS_REFUSED in server.health.names()
    assert [r.getMessage() for r in caplog.records].count("host.address_refused") == 1


async def test_a_foreign_address_beside_a_proved_one_is_left_out() -> None:
    server, own = server_of(), Address("127.0.0.1", 5301)

    named, welcome = await named_to_others(server, at(1, FOREIGN, own))

    assert [m.addresses for m in named] == [(own,)]
    assert welcome.refused
    assert not welcome.unnamed
    assert Reason.ADDRESS_REFUSED not in server.health.names()


async def test_an_address_in_a_network_of_the_operator_is_named() -> None:
    named, welcome = await named_to_others(
        server_of(ip_network("192.0.2.0/24")), at(1, FOREIGN, OTHER)
    )

    assert [m.addresses for m in named] == [(FOREIGN,)]
    assert str(OTHER) in welcome.refused


async def test_a_host_that_proves_its_address_later_is_named_again() -> None:
    server, own = server_of(), Address("127.0.0.1", 5301)
    async with running(server) as url:
        async with dialled(url, at(1, FOREIGN)) as holder:
            await holder.send(Announce([seed(key())]))
            await wait_until(lambda: server.core.counters.announces_total)
        async with dialled(url, at(1, own)) as holder, dialled(url, member(2)) as reader:
            await holder.send(Announce([seed(key())], full=True))
            await wait_until(lambda: server.core.counters.announces_total == 2)
            server.core.validate()
            await reader.send(Join(1, key()))

            assert [m.addresses for m in (await reader.expect(Handout)).members] == [(own,)]


@pytest.mark.parametrize(("federation", "believed"), [("127.0.0.1", True), ("192.0.2.1", False)])
async def test_only_a_tracker_that_is_asked_itself_vouches_for_others(
    federation: str, believed: bool
) -> None:
    """Whoever knows the secret can say that it is a tracker."""
    server, theirs = server_of(federation=(f"tcp://{federation}:1",)), at(1, FOREIGN)
    contested = key_of("dc1")
    async with running(server) as url, dialled(url, tracker_member(2, "dc2")) as asking:
        await asking.send(LeaseAsk(1, contested, theirs))
        assert (await asking.expect(LeaseAnswer)).fence > 0
        async with dialled(url, member(3, role=Role.PROXY)) as proxy:
            await proxy.send(LeaseAsk(1, contested))
            holder = (await proxy.expect(LeaseAnswer)).holder

    assert holder is not None
    assert holder.host_id == host_id(1)
    assert holder.addresses == ((FOREIGN,) if believed else ())
