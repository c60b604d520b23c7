from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from p2pdist.model.members import Address
from p2pdist.process import own_addresses
from p2pdist.process.own_addresses import OwnAddresses
from tests.fakes.descriptors import no_descriptors_left

TRACKER = "tcp://127.0.0.1:5200"
ANYWHERE = Address("0.0.0.0", 5301)
# An address for documentation: no host has it.
NOBODYS = "192.0.2.1"


@pytest.fixture(autouse=True)
def no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host has loopback alone, wherever the tests run."""
    monkeypatch.setattr(own_addresses, "_OUTWARD", ())


async def listening(
    bound: Address, towards: list[str], configured: tuple[Address, ...] = ()
) -> OwnAddresses:
    addresses = OwnAddresses(configured, towards)
    await addresses.listening(bound)
    return addresses


async def test_configured_addresses_win_and_a_port_of_0_is_the_bound_one() -> None:
    configured = (Address("10.0.0.7", 0), Address("2001:db8::7", 9000))

    addresses = await listening(ANYWHERE, [TRACKER], configured)

    assert addresses.current == (Address("10.0.0.7", 5301), Address("2001:db8::7", 9000))
    assert addresses.trouble() is None


async def test_a_configured_name_is_told_as_what_it_stands_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others believe no name."""
    known = {"here.corp": ["10.0.0.7", "127.0.1.1", "2001:db8::7"]}

    async def resolve(name: str) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, (host, 9)) for host in known.get(name, ())]

    monkeypatch.setattr(own_addresses, "_resolve", resolve)
    configured = (Address("here.corp", 0), Address("10.0.0.7", 5301), Address("gone.corp", 1))
    addresses = await listening(ANYWHERE, [TRACKER], configured)
    told = (Address("10.0.0.7", 5301), Address("2001:db8::7", 5301), Address("gone.corp", 1))

    assert addresses.current == told

    known.clear()
    for _ in range(own_addresses.CONFIGURED_EVERY):
        await addresses.look()
    assert addresses.current == told, "as long as it does not resolve"

    known["here.corp"] = ["10.0.0.8"]
    for _ in range(own_addresses.CONFIGURED_EVERY):
        await addresses.look()
    assert Address("10.0.0.8", 5301) in addresses.current


async def test_a_listener_on_one_address_is_reached_there() -> None:
    bound = Address("127.0.0.5", 5301)

    addresses = await listening(bound, [TRACKER])

    assert addresses.current == (bound,)
    assert addresses.trouble() is None


async def test_a_listener_on_an_address_that_the_host_lost_is_named() -> None:
    addresses = await listening(Address(NOBODYS, 5301), [TRACKER])

    assert NOBODYS in (addresses.trouble() or "")


async def test_a_listener_on_all_is_reached_where_the_host_speaks_from() -> None:
    addresses = await listening(ANYWHERE, [TRACKER, "http://127.0.0.1:5100"])

    assert addresses.current == (Address("127.0.0.1", 5301),)
    assert addresses.trouble() is None


async def test_beside_its_tracker_and_proxy_a_host_is_reached_where_it_speaks_to_the_world(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others cannot dial its loopback address: they would dial themselves."""
    outward = (socket.AF_INET, socket.SOCK_DGRAM, 0, ("127.0.0.9", 9))
    routes = own_addresses._routes

    def routed(targets: Any) -> list[str]:
        return ["203.0.113.7"] if targets == (outward,) else routes(targets)

    monkeypatch.setattr(own_addresses, "_OUTWARD", (outward,))
    monkeypatch.setattr(own_addresses, "_routes", routed)
    addresses = await listening(ANYWHERE, [TRACKER])

    assert addresses.current == (Address("203.0.113.7", 5301),)


async def test_a_listener_on_all_of_both_families_is_reached_under_both() -> None:
    addresses = await listening(Address("::", 5301), [TRACKER, "http://[::1]:5100"])

    assert addresses.current == (Address("127.0.0.1", 5301), Address("::1", 5301))


@pytest.mark.parametrize("towards", [[], ["tcp://no.such.host.invalid:1"], ["tcp://a..b:1"]])
async def test_without_trackers_there_is_nothing_to_tell(towards: list[str]) -> None:
    addresses = await listening(ANYWHERE, towards)

    assert addresses.current == ()
    assert "no tracker or proxy" in (addresses.trouble() or "")


async def test_before_it_listens_nothing_is_told_and_nothing_is_wrong() -> None:
    addresses = OwnAddresses((), [TRACKER])

    assert addresses.current == ()
    assert addresses.trouble() is None


# --- networks that come and change ---------------------------------------------------------------


class Network:
    """Names, and the addresses that this host would speak to them from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[str]] = {}
        self.routes: dict[str, str] = {}
        self.own = {ANYWHERE.host}
        self.resolved = 0
        monkeypatch.setattr(own_addresses, "_resolve", self._resolve)
        monkeypatch.setattr(own_addresses, "_routes", self._routes)
        monkeypatch.setattr(own_addresses, "_is_ours", lambda host: host in self.own)

    def leads(self, name: str, target: str, own: str) -> None:
        """`name` stands for `target`, to which this host speaks from `own`."""
        self.names[name] = [target]
        self.routes[target] = own
        self.own.add(own)

    async def _resolve(self, name: str) -> list[Any]:
        self.resolved += 1
        return [(socket.AF_INET, 0, 0, (ip, 9)) for ip in self.names.get(name, ())]

    def _routes(self, targets: list[Any]) -> list[str]:
        return [self.routes[t[3][0]] for t in targets if t[3][0] in self.routes]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


def told(addresses: OwnAddresses) -> list[str]:
    assert all(address.port == ANYWHERE.port for address in addresses.current)
    return [address.host for address in addresses.current]


async def test_a_network_that_comes_after_the_daemon_is_found(network: Network) -> None:
    addresses = await listening(ANYWHERE, ["tcp://tracker:5200"])
    assert told(addresses) == []

    network.leads("tracker", "10.0.0.1", own="10.0.0.7")
    await addresses.look()

    assert told(addresses) == ["10.0.0.7"]
    assert addresses.trouble() is None


async def test_a_new_address_takes_the_place_of_the_old_one(network: Network) -> None:
    network.leads("tracker", "10.0.0.1", own="10.0.0.7")
    addresses = await listening(ANYWHERE, ["tcp://tracker:5200", "http://tracker:5100"])
    addresses.spoke_from("tcp://tracker:5200", "10.0.0.7")

    network.own.remove("10.0.0.7")
    network.leads("tracker", "10.0.0.1", own="10.0.0.99")
    await addresses.look()

    assert told(addresses) == ["10.0.0.99"]
    assert network.resolved == 1, "the routes alone tell it, without a question to any resolver"


async def test_a_name_that_moved_where_no_route_leads_is_resolved_anew(network: Network) -> None:
    network.leads("tracker", "10.0.0.1", own="10.0.0.7")
    addresses = await listening(ANYWHERE, ["tcp://tracker:5200"])

    del network.routes["10.0.0.1"]
    network.leads("tracker", "10.1.0.1", own="10.1.0.7")
    await addresses.look()

    assert told(addresses) == ["10.1.0.7"]


async def test_a_network_that_is_down_for_a_moment_is_not_forgotten(network: Network) -> None:
    network.leads("tracker", "10.0.0.1", own="10.0.0.7")
    addresses = await listening(ANYWHERE, ["tcp://tracker:5200"])

    network.routes.clear()
    network.names.clear()
    await addresses.look()
    assert told(addresses) == ["10.0.0.7"]

    network.own.remove("10.0.0.7")
    await addresses.look()
    assert told(addresses) == []


async def test_where_a_connection_came_from_comes_first_while_it_is_ours(network: Network) -> None:
    network.leads("tracker", "10.0.0.1", own="10.0.0.7")
    network.own.add("10.0.0.8")
    addresses = await listening(ANYWHERE, ["tcp://tracker:5200"])

    addresses.spoke_from("tcp://tracker:5200", "10.0.0.8")
    before = told(addresses)
    await addresses.look()

    assert before == told(addresses) == ["10.0.0.8", "10.0.0.7"], "a look changes nothing here"
    network.own.remove("10.0.0.8")
    assert told(addresses) == ["10.0.0.7"]


@pytest.mark.parametrize("useless", ["127.0.0.1", "fe80::1"])
async def test_what_means_another_host_elsewhere_is_not_told(
    network: Network, useless: str
) -> None:
    network.leads("here", "127.0.0.1", own=useless)
    network.leads("tracker", "10.0.0.1", own="10.0.0.7")

    addresses = await listening(ANYWHERE, ["http://here:5100", "tcp://tracker:5200"])

    assert told(addresses) == ["10.0.0.7"]


async def test_who_watches_is_told_after_each_look(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_addresses, "LOOK_EVERY_S", 0.0)
    addresses = await listening(ANYWHERE, ["tcp://tracker:5200"])
    seen: asyncio.Queue[list[str]] = asyncio.Queue()
    note: Callable[[], None] = lambda: seen.put_nowait(told(addresses))  # noqa: E731
    watching = asyncio.create_task(addresses.watch(note))  # noqa: TID251  # ends with the test
    try:
        async with asyncio.timeout(10):
            assert await seen.get() == []
            network.leads("tracker", "10.0.0.1", own="10.0.0.7")
            while await seen.get() != ["10.0.0.7"]:
                pass
    finally:
        watching.cancel()


async def test_what_is_ours_is_asked_of_the_system() -> None:
    assert own_addresses._is_ours("127.0.0.1")
    assert not own_addresses._is_ours("192.0.2.1")


async def test_a_host_without_descriptors_does_not_take_its_addresses_for_lost() -> None:
    """`/readyz` used to answer 500 then."""
    with no_descriptors_left():
        assert own_addresses._is_ours("127.0.0.1")
