from __future__ import annotations

import socket
from ipaddress import ip_network

import msgspec

from p2pdist.exchange.seen import hosts_here, proved_member
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from tests.exchange.transport_parts import End, transport_of

# An address for documentation: no host has it.
FOREIGN = Address("192.0.2.9", 5301)
OWN = Address("127.0.0.1", 5301)
ME = Member(HostId("a" * 32), Role.PEER, Place("dc1"), (OWN, FOREIGN))
LOCAL = ("127.0.0.1", 1)


def own_addresses() -> set[str]:
    """Those of the world's side, where this machine has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((FOREIGN.host, 9))
        except OSError:
            return set()
        return {str(probe.getsockname()[0])}


def test_what_this_machine_has_is_here_for_who_comes_from_it() -> None:
    hosts = {"127.0.0.1", "127.9.9.9", "::1", *own_addresses()}
    announced = [Address(host, 5301) for host in (*hosts, FOREIGN.host, "host.corp")]

    assert hosts_here("127.0.0.1", "127.0.0.1", announced) == hosts
    assert hosts_here("10.0.0.1", "10.0.0.1", announced) == hosts
    assert hosts_here("10.0.0.2", "10.0.0.1", announced) == set()
    assert hosts_here("", "", announced) == set()


def test_what_is_not_proved_is_left_out_and_told() -> None:
    named, refused = proved_member(ME, LOCAL, LOCAL, ())

    assert named == msgspec.structs.replace(ME, addresses=(OWN,))
    assert refused.startswith("192.0.2.9:5301 ")


def test_a_connection_that_has_gone_proves_nothing() -> None:
    named, refused = proved_member(ME, None, None, ())

    assert named.addresses == ()
    assert refused


def test_who_announces_nothing_has_nothing_to_prove() -> None:
    nowhere = msgspec.structs.replace(ME, addresses=())

    assert proved_member(nowhere, None, None, ()) == (nowhere, "")
    assert proved_member(ME, LOCAL, LOCAL, [ip_network("192.0.2.0/24")]) == (ME, "")


async def test_the_session_of_a_link_names_proved_addresses_alone() -> None:
    one, two = End(), End()
    ours = transport_of(one, "a", addresses=(FOREIGN, OWN))
    theirs = transport_of(two, "b", addresses=(FOREIGN, OWN))
    address = await theirs.listen("127.0.0.1", 0)
    link = await ours.dial(address, timeout_s=5)
    await two.has_links(1)

    assert two.links[0].session.member.addresses == (OWN,)
    assert link.session.member.addresses == (OWN,)
    await ours.close()
    await theirs.close()
