"""Which links there are: handshakes, dials that cross, limits, refusals, ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from p2pdist.errors import LinkRefused, PeerFault
from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import Link
from p2pdist.exchange.transport import (
    MAGIC,
    ExchangeLimits,
    Watchers,
    keep_existing,
)
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address
from tests.exchange.transport_parts import (
    DIGEST,
    End,
    transport_of,
)


async def test_a_wrong_secret_is_refused() -> None:
    one, two = End(), End()
    ours, theirs = transport_of(one, "a", b"another secret here"), transport_of(two, "b")
    address = await theirs.listen("127.0.0.1", 0)

    with pytest.raises(PeerFault, match="secret"):
        await ours.dial(address, timeout_s=5)

    await ours.close()
    await theirs.close()
    assert not one.links
    assert not two.links


async def slow_dial(address: Address) -> socket.socket:
    """From another address than all others, and no further than three bytes."""
    sock, loop = socket.socket(), asyncio.get_running_loop()
    sock.setblocking(False)
    sock.bind(("127.0.0.9", 0))
    await loop.sock_connect(sock, (address.host, address.port))
    await loop.sock_sendall(sock, MAGIC[:3])
    return sock


async def test_slow_handshakes_of_one_address_keep_nobody_out() -> None:
    """256 places held with 3 bytes each: 1 of 20 honest dials used to get through."""
    one, two = End(), End()
    theirs = transport_of(two, "b", limits=ExchangeLimits(handshakes_max=4))
    ours = transport_of(one, "a")
    address = await theirs.listen("127.0.0.1", 0)
    slow = [await slow_dial(address) for _ in range(12)]

    for count in range(1, 4):  # the place that was free again is taken by a slow one
        link = await ours.dial(address, timeout_s=5)
        await two.has_links(count)
        link.close("again")
        await two.until(lambda: two.links[-1].closed)
        slow.append(await slow_dial(address))

    for sock in slow:
        sock.close()
    await ours.close()
    await theirs.close()
    assert len(two.links) == 3


async def test_a_host_does_not_link_to_itself() -> None:
    one, two = End(), End()
    ours, theirs = transport_of(one, "a"), transport_of(two, "a")
    address = await theirs.listen("127.0.0.1", 0)

    with pytest.raises(PeerFault, match="itself"):
        await ours.dial(address, timeout_s=5)

    await ours.close()
    await theirs.close()


async def test_crossed_dials_leave_one_link() -> None:
    one, two = End(), End()
    first, second = transport_of(one, "a"), transport_of(two, "b")
    addresses = [await t.listen("127.0.0.1", 0) for t in (first, second)]

    await asyncio.gather(
        first.dial(addresses[1], timeout_s=5), second.dial(addresses[0], timeout_s=5)
    )
    await one.until(lambda: sum(not k.closed for k in one.links) == 1)
    await two.until(lambda: sum(not k.closed for k in two.links) == 1)
    ours = next(k for k in one.links if not k.closed)
    ours.send(fr.Interest(DIGEST))
    await two.until(lambda: fr.Interest(DIGEST) in two.frames)

    assert ours.dialled  # the lower host id's dial wins on both ends
    await first.close()
    await second.close()


@pytest.mark.parametrize(
    ("existing_dialled", "new_dialled", "kept"),
    [(True, True, False), (False, False, False), (True, False, True), (False, True, False)],
)
def test_which_of_two_links_survives(existing_dialled: bool, new_dialled: bool, kept: bool) -> None:
    low, high = HostId("0" * 32), HostId("f" * 32)

    at_low = keep_existing(low, high, existing_dialled=existing_dialled, new_dialled=new_dialled)
    at_high = keep_existing(
        high, low, existing_dialled=not existing_dialled, new_dialled=not new_dialled
    )

    assert at_low == at_high == kept


async def test_more_links_than_allowed_are_not_accepted() -> None:
    one, two, three = End(), End(), End()
    listening = transport_of(one, "a", limits=ExchangeLimits(links_max=1))
    address = await listening.listen("127.0.0.1", 0)
    dialling = [transport_of(two, "b"), transport_of(three, "c")]
    await dialling[0].dial(address, timeout_s=5)
    await one.until(lambda: one.links)

    with pytest.raises(LinkRefused, match="full"):
        await dialling[1].dial(address, timeout_s=5)
    assert listening.refused == {"full": 1}
    again = await dialling[0].dial(address, timeout_s=5)  # its old link makes way
    await one.until(lambda: len(one.links) == 2)

    assert not again.closed
    for transport in (listening, *dialling):
        await transport.close()
    assert three.links == []


async def test_of_two_hosts_with_one_id_the_second_is_refused_and_told() -> None:
    proxy, one, two = End(), End(), End()
    told: list[str] = []
    listening = transport_of(proxy, "a")
    address = await listening.listen("127.0.0.1", 0)
    watchers = Watchers(id_in_use=told.append)
    first = transport_of(one, "b", instance=b"first", watchers=watchers)
    second = transport_of(two, "b", instance=b"second")
    try:
        for transport in (first, first, second, second):  # whoever merely dials again is let in
            await transport.dial(address, timeout_s=5)
        await proxy.until(lambda: len(proxy.links) == 4)
        assert told == []

        with pytest.raises(LinkRefused, match="host_id_in_use"):
            await first.dial(address, timeout_s=5)

        assert told == [f"the host at {address} has a link with it"]
        assert not proxy.links[-1].closed
        assert listening.refused == {"host_id_in_use": 1}
    finally:
        for transport in (listening, first, second):
            await transport.close()


async def test_a_dialled_host_whose_namesake_has_a_link_is_left() -> None:
    dialler, one, two = End(), End(), End()
    dialling = transport_of(dialler, "a")
    first = transport_of(one, "b", instance=b"first")
    second = transport_of(two, "b", instance=b"second")
    addresses = [await transport.listen("127.0.0.1", 0) for transport in (first, second)]
    try:
        for address in addresses:
            last = await dialling.dial(address, timeout_s=5)

        with pytest.raises(PeerFault, match="another host of the same id"):
            await dialling.dial(addresses[0], timeout_s=5)
        assert not last.closed
    finally:
        for transport in (dialling, first, second):
            await transport.close()


async def test_dropped_links_are_down_at_both_ends_and_may_be_dialled_anew() -> None:
    one, two = End(), End()
    ours, theirs = transport_of(one, "a"), transport_of(two, "b")
    address = await theirs.listen("127.0.0.1", 0)
    try:
        await ours.dial(address, timeout_s=5)
        await two.until(lambda: two.links)

        ours.drop_links("a new id")
        await one.until(lambda: one.downs)
        await two.until(lambda: two.downs)

        assert one.downs == ["a new id"]
        assert not (await ours.dial(address, timeout_s=5)).closed
    finally:
        await ours.close()
        await theirs.close()


async def test_dials_at_once_do_not_get_past_the_limit() -> None:
    one, others = End(), [End() for _ in range(8)]
    listening = transport_of(one, "a", limits=ExchangeLimits(links_max=3))
    address = await listening.listen("127.0.0.1", 0)
    dialling = [transport_of(end, name) for end, name in zip(others, "bcdef012", strict=True)]

    dials = (transport.dial(address, timeout_s=5) for transport in dialling)
    got = await asyncio.gather(*dials, return_exceptions=True)

    assert sum(isinstance(each, Link) for each in got) == 3
    assert sum(isinstance(each, LinkRefused) for each in got) == 5
    for transport in (listening, *dialling):
        await transport.close()


async def test_a_node_that_drains_refuses_new_links_and_keeps_the_others() -> None:
    one, two, three = End(), End(), End()
    listening = transport_of(one, "a")
    address = await listening.listen("127.0.0.1", 0)
    dialling = [transport_of(two, "b"), transport_of(three, "c")]
    kept = await dialling[0].dial(address, timeout_s=5)

    listening.draining = True
    with pytest.raises(LinkRefused, match="draining"):
        await dialling[1].dial(address, timeout_s=5)

    assert not kept.closed
    for transport in (listening, *dialling):
        await transport.close()


async def test_a_stranger_who_says_nothing_holds_no_link() -> None:
    one = End()
    listening = transport_of(one, "a")
    address = await listening.listen("127.0.0.1", 0)
    with socket.create_connection((address.host, address.port)) as stranger:
        stranger.send(b"GET / HTTP/1.1\r\n\r\n")
        stranger.settimeout(5)
        with contextlib.suppress(ConnectionResetError):  # closed with bytes unread
            assert await asyncio.to_thread(stranger.recv, 100) == b""

    await listening.close()
    assert one.links == []


async def test_dialling_nobody_raises() -> None:
    transport = transport_of(End(), "a")

    with pytest.raises(OSError, match="Connect call failed"):
        await transport.dial(Address("127.0.0.1", 1), timeout_s=5)

    await transport.close()
