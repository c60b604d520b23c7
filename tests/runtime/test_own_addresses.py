from __future__ import annotations

from p2pdist.model.members import Address
from p2pdist.runtime.own_addresses import advertised

TRACKER = "tcp://127.0.0.1:5200"


async def test_configured_addresses_win_and_a_port_of_0_is_the_bound_one() -> None:
    bound = Address("0.0.0.0", 5301)
    configured = [Address("10.0.0.7", 0), Address("2001:db8::7", 9000)]

    assert await advertised(bound, configured, [TRACKER]) == (
        Address("10.0.0.7", 5301),
        Address("2001:db8::7", 9000),
    )


async def test_a_listener_on_one_address_is_reached_there() -> None:
    bound = Address("192.0.2.1", 5301)

    assert await advertised(bound, [], [TRACKER]) == (bound,)


async def test_a_listener_on_all_is_reached_where_the_host_speaks_from() -> None:
    found = await advertised(Address("0.0.0.0", 5301), [], [TRACKER, "http://127.0.0.1:5100"])

    assert found == (Address("127.0.0.1", 5301),)


async def test_a_listener_on_all_of_both_families_is_reached_under_both() -> None:
    found = await advertised(Address("::", 5301), [], [TRACKER, "http://[::1]:5100"])

    assert found == (Address("127.0.0.1", 5301), Address("::1", 5301))


async def test_without_trackers_there_is_nothing_to_tell() -> None:
    assert await advertised(Address("0.0.0.0", 5301), [], []) == ()
    assert await advertised(Address("0.0.0.0", 5301), [], ["tcp://no.such.host.invalid:1"]) == ()
