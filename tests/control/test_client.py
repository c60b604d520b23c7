from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest
from msgspec.structs import replace

from p2pdist.control.client import TrackerClient
from p2pdist.control.core import leases, state
from p2pdist.model.control import Announce, Delta, Handout, LeaseAnswer, SwarmKey
from p2pdist.model.control_wire import CONNECT_S
from p2pdist.model.ids import Digest, MapId
from p2pdist.model.members import Address, Member, Role
from p2pdist.model.statements import Revocation
from p2pdist.process import clock
from p2pdist.process.health import Health
from p2pdist.tracker.core.intake import RETRY_AFTER_MIN_S
from p2pdist.tracker.core.state import STEP_DELTAS, TrackerLimits
from p2pdist.tracker.server import TrackerServer
from tests.fakes.secrets import always
from tests.tracker.hosts import key, member, seed
from tests.tracker.servers import (
    DEADLINE_S,
    SECRET,
    SIGNER,
    dialled,
    running,
    tracker_server,
    wait_until,
)

NOWHERE = "tcp://127.0.0.1:1"


class Host:
    """Keeps what the tracker says; `held` is the inventory."""

    def __init__(self, me: Member) -> None:
        self.me = me
        self.held: list[Delta] = []
        self.handouts: list[Handout] = []
        self.revocations: list[bytes] = []
        self.ups = 0
        self.downs = 0
        self.inventories = 0

    def tracker_up(self) -> None:
        self.ups += 1

    def tracker_down(self) -> None:
        self.downs += 1

    def handout(self, handout: Handout) -> None:
        self.handouts.append(handout)

    def revoked(self, records: list[bytes]) -> None:
        self.revocations += records

    def full_announce(self) -> list[Delta]:
        self.inventories += 1
        return self.held


def client_of(
    host: Host, *urls: str, secret: bytes = SECRET, health: Health | None = None
) -> TrackerClient:
    return TrackerClient(
        urls,
        secret=always(secret),
        me=lambda: host.me,
        listener=host,
        rng=Random(2),
        numbers=lambda: {"bytes": 3.0},
        health=health,
    )


@asynccontextmanager
async def online(
    host: Host, *urls: str, secret: bytes = SECRET, health: Health | None = None
) -> AsyncIterator[TrackerClient]:
    client = client_of(host, *urls, secret=secret, health=health)
    client.start()
    try:
        yield client
    finally:
        await client.close()


def holds(server: TrackerServer, host: Host, swarm_key: SwarmKey) -> bool:
    """Whether the tracker knows that `host` holds something of `swarm_key`."""
    record = server.core.export(host.me.host_id)
    return record is not None and any(delta.key == swarm_key for delta in record.deltas)


async def test_the_inventory_is_announced_on_the_first_connection() -> None:
    server, host = tracker_server(), Host(member(1))
    host.held = [seed(key(str(i))) for i in range(3000)]
    async with running(server) as url, online(host, url):
        await wait_until(lambda: server.core.swarms.entry_count == 3000)

    assert host.inventories == 1


async def test_a_join_is_answered_with_its_number() -> None:
    holder, reader = Host(member(1)), Host(member(2))
    holder.held = [seed(key())]
    server = tracker_server()
    async with running(server) as url, online(holder, url), online(reader, url) as client:
        await wait_until(lambda: client.connected and holds(server, holder, key()))

        seq = client.join(key())
        await wait_until(lambda: reader.handouts)

    assert [(h.seq, h.members) for h in reader.handouts] == [(seq, [holder.me])]


async def test_a_join_before_the_connection_is_sent_with_it() -> None:
    host = Host(member(1))
    async with running(tracker_server()) as url:
        client = client_of(host, url)
        seq = client.join(key())
        client.start()
        await wait_until(lambda: host.handouts)
        await client.close()

    assert host.handouts[0].seq == seq


async def test_a_complete_blob_is_announced_long_before_the_interval() -> None:
    server, host = tracker_server(limits=TrackerLimits(announce_interval_s=3600.0)), Host(member(1))
    async with running(server) as url, online(host, url) as client:
        await wait_until(lambda: client.connected)

        client.note(key(), 8, True)

        await wait_until(lambda: holds(server, host, key()))


async def test_progress_is_coalesced_into_the_newest_value() -> None:
    server, host = tracker_server(limits=TrackerLimits(announce_interval_s=0.05)), Host(member(1))
    async with running(server) as url, online(host, url) as client:
        await wait_until(lambda: server.core.counters.announces_total)  # the inventory
        for held_chunks in range(1, 500):
            client.note(key(), held_chunks, False)

        await wait_until(lambda: holds(server, host, key()))
        record = server.core.export(host.me.host_id)

    assert record is not None
    assert record.deltas == [Delta(key(), 499, False)]
    assert server.core.counters.deltas_total == 1


async def test_a_retraction_and_a_leave_end_the_membership() -> None:
    server, host = tracker_server(), Host(member(1))
    async with running(server) as url, online(host, url) as client:
        await wait_until(lambda: client.connected)
        client.join(key())
        client.note(key(), 8, True)
        await wait_until(lambda: holds(server, host, key()))

        client.leave(key())
        client.note(key(), 0, False)

        await wait_until(lambda: not server.core.swarms.get(key()))


async def test_a_restarted_tracker_learns_active_swarms_and_inventories_again() -> None:
    host = Host(member(1))
    host.held = [seed(key("idle"))]
    async with AsyncExitStack() as stack:
        first = tracker_server()
        address = await first.start()
        client = await stack.enter_async_context(online(host, f"tcp://{address}"))
        client.join(key("active"))
        client.note(key("active"), 3, False)
        await wait_until(lambda: holds(first, host, key("idle")))
        await first.close()
        await wait_until(lambda: host.downs == 1)

        second = tracker_server(address.port, limits=TrackerLimits(announce_interval_s=0.05))
        await stack.enter_async_context(running(second))

        await wait_until(lambda: second.core.swarms.get(key("active")))
        await wait_until(lambda: holds(second, host, key("idle")))
    assert host.inventories == 2


async def test_what_an_active_swarm_holds_is_said_before_the_inventory() -> None:
    host = Host(member(1))
    server = tracker_server(limits=TrackerLimits(announce_interval_s=3600.0))
    async with running(server) as url:
        client = client_of(host, url)
        client._core._returning = True  # the inventory waits for its turn of hours
        client.join(key())
        client.note(key(), 3, False)
        client.start()
        await wait_until(lambda: holds(server, host, key()))
        await client.close()

    assert host.inventories == 0


async def test_the_next_tracker_is_tried_when_the_first_does_not_answer() -> None:
    host = Host(member(1))
    async with running(tracker_server()) as url, online(host, NOWHERE, url) as client:
        await wait_until(lambda: client.connected)


async def test_a_wrong_secret_never_connects_and_fails_nothing() -> None:
    server, host = tracker_server(), Host(member(1))
    async with (
        running(server) as url,
        online(host, url, secret=b"a secret of somebody else") as client,
    ):
        await wait_until(lambda: server.core.counters.protocol_faults_total >= 2)

        assert not client.connected
        assert await client.lease(key(), timeout_s=DEADLINE_S) is None
    assert host.ups == host.downs == 0


async def test_a_goodbye_takes_the_host_out_at_once() -> None:
    server, host = tracker_server(), Host(member(1))
    host.held = [seed(key())]
    async with running(server) as url:
        async with online(host, url):
            await wait_until(lambda: holds(server, host, key()))

        await wait_until(lambda: not server.core.host_ids())


async def test_a_lease_is_granted_refused_and_handed_on() -> None:
    one, two = Host(member(1, role=Role.PROXY)), Host(member(2, role=Role.PROXY))
    async with (
        running(tracker_server()) as url,
        online(one, url) as first,
        online(two, url) as second,
    ):
        await wait_until(lambda: first.connected and second.connected)

        granted = await first.lease(key(), timeout_s=DEADLINE_S)
        refused = await second.lease(key(), timeout_s=DEADLINE_S)
        assert granted is not None
        first.end_lease(key(), granted.fence)
        await first.lease(key("later"), timeout_s=DEADLINE_S)  # the end was taken in
        handed_on = await second.lease(key(), timeout_s=DEADLINE_S)

    assert isinstance(refused, LeaseAnswer)
    assert (refused.fence, refused.holder) == (0, one.me)
    assert handed_on is not None
    assert handed_on.fence > granted.fence


async def test_a_held_lease_is_renewed_until_it_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_TICK_S", 0.01)
    server, host = tracker_server(), Host(member(1))
    async with running(server) as url, online(host, url) as client:
        await wait_until(lambda: client.connected)
        granted = await client.lease(key(), timeout_s=DEADLINE_S)
        assert granted is not None
        client._core._leases.held[key()].renew_at_s = 0.0

        await wait_until(lambda: server.core.counters.leases_renewed_total)
        client.end_lease(key(), granted.fence)
        await wait_until(lambda: not len(server.core.leases))


async def test_a_lease_that_nobody_ends_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a fetch that got lost would keep its whole datacenter from the blob."""
    monkeypatch.setattr(leases, "RENEW_TICK_S", 0.01)
    monkeypatch.setattr(leases, "LEASE_KEPT_S", 0.0)
    server, host = tracker_server(), Host(member(1))
    async with running(server) as url, online(host, url) as client:
        await wait_until(lambda: client.connected)
        assert await client.lease(key(), timeout_s=DEADLINE_S) is not None

        await wait_until(lambda: not client._core._leases.held)


async def test_a_revocation_reaches_other_hosts_and_trackers_that_start_later() -> None:
    record = SIGNER.sign(Revocation(Digest(key()), MapId(bytes(16)), 0))
    proxy, peer = Host(member(1, role=Role.PROXY)), Host(member(2))
    async with running(tracker_server()) as url, online(peer, url) as client:
        await wait_until(lambda: client.connected)
        sender = client_of(proxy, url)
        sender.revoke([record])
        sender.start()

        await wait_until(lambda: peer.revocations == [record])
        await sender.close()


async def test_a_host_that_became_another_is_told_anew_and_one_that_did_not_is_left() -> None:
    """Others are named the addresses that it has now."""
    server, host = tracker_server(), Host(member(1))
    async with running(server) as url, online(host, url) as client:
        await wait_until(lambda: client.connected)
        client.tell_who_we_are()
        host.me = replace(host.me, addresses=(Address("127.0.0.9", 1001),))
        client.tell_who_we_are()

        known = server.core.hosts
        await wait_until(lambda: known[host.me.host_id].member == host.me and host.ups == 2)
        client.tell_who_we_are()
        client.join(key())
        await wait_until(lambda: host.handouts)
    assert server.core.counters.connections_total == 2


async def test_who_we_are_is_asked_when_it_is_known_where_we_speak_from() -> None:
    server, host = tracker_server(), Host(member(1))
    async with running(server) as url:

        def spoke_from(towards: str, address: str) -> None:
            host.me = replace(host.me, addresses=(Address(address, 7),))
            assert towards == url

        client = client_of(host, url)
        client._spoke_from = spoke_from
        client.start()
        await wait_until(lambda: client.connected)
        known = server.core.hosts[host.me.host_id].member
        await client.close()

    assert known.addresses == (Address("127.0.0.1", 7),)


async def test_of_two_hosts_with_one_id_one_is_told_before_it_dials_again() -> None:
    server, told = tracker_server(), asyncio.Queue[str]()
    hosts = [Host(member(1)), Host(member(1))]
    async with running(server) as url:
        clients = []
        for number, host in enumerate(hosts):
            client = client_of(host, url)
            client._instance = b"instance %d" % number

            def id_in_use(detail: str, host: Host = host) -> None:
                host.me = member(2)
                told.put_nowait(detail)

            client._on_id_in_use = id_in_use
            clients.append(client)
            client.start()

        async with asyncio.timeout(DEADLINE_S):
            detail = await told.get()
        await wait_until(lambda: server.core.hosts_connected == 2)
        assert server.health.names() == ["host_cloned"]
        for client in clients:
            await client.close()

    assert detail == f"{url}: this host id is in use at 127.0.0.1"
    assert told.empty()
    assert {host.me.host_id for host in hosts} == {member(1).host_id, member(2).host_id}
    assert server.core.counters.host_ids_in_use_total == 1


async def test_a_host_that_lost_its_network_or_has_another_tracker_is_no_clone() -> None:
    """Its old connections are still there when the next ones come: it cannot end them."""
    host, told = Host(member(1)), list[str]()
    first, second = tracker_server(), tracker_server()
    async with running(first) as url, running(second) as other, AsyncExitStack() as stack:
        for _ in range(4):  # nobody tells the tracker that the one before is cut off
            await stack.enter_async_context(dialled(url, host.me, instance=b"this process"))
        client = client_of(host, url, other)
        client._instance = b"this process"
        client._on_id_in_use = told.append
        client.start()
        await wait_until(lambda: client.connected)
        await first.close()
        await wait_until(lambda: second.core.hosts_connected)
        await client.close()

    assert told == []
    for server in (first, second):
        assert server.core.counters.host_ids_in_use_total == 0


async def test_the_numbers_of_a_host_reach_the_tracker() -> None:
    server = tracker_server()
    async with running(server) as url, online(Host(member(1)), url):
        await wait_until(lambda: server.core.sums.totals == {"bytes": 3.0})


async def test_without_a_tracker_all_calls_return_at_once() -> None:
    host = Host(member(1))
    client = client_of(host)
    client.start()

    client.note(key(), 1, True)
    client.join(key())
    client.leave(key())
    client.end_lease(key(), 1)

    assert await client.lease(key(), timeout_s=DEADLINE_S) is None
    await client.close()


async def test_a_host_that_is_sent_away_comes_back_when_it_was_told_to() -> None:
    server, host = tracker_server(), Host(member(1))
    intake = server.reception.intake
    async with running(server) as url:
        intake._pace_s = 2 * CONNECT_S
        intake.arrive(socket.socket(), "", 0.0)  # somebody who is never greeted is before it
        began_s = asyncio.get_running_loop().time()
        async with online(host, url) as client:
            await wait_until(lambda: intake.sent_away_total == 1)
            assert not client.connected
            intake._pace_s = 0.001
            await wait_until(lambda: client.connected)

        assert asyncio.get_running_loop().time() - began_s >= RETRY_AFTER_MIN_S
        assert intake.sent_away_total == 1


async def test_a_tracker_that_stops_is_left_by_all_its_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without being made to: it would wait for ever here."""
    monkeypatch.setattr("p2pdist.tracker.reception.CLOSE_S", None)
    server, hosts = tracker_server(), [Host(member(number)) for number in range(1, 31)]
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(running(server))
        for host in hosts:
            await stack.enter_async_context(online(host, url))
        await wait_until(lambda: server.core.hosts_connected == len(hosts))
        async with asyncio.timeout(20):
            await server.reception.close("the tracker is going away")
        await wait_until(lambda: all(host.downs for host in hosts))


async def test_an_inventory_beyond_one_step_replaces_the_one_before() -> None:
    server, host = tracker_server(), Host(member(1))
    host.held = [seed(key(str(n))) for n in range(3 * STEP_DELTAS)]
    async with running(server) as url:
        async with online(host, url):
            await wait_until(lambda: server.core.swarms.entry_count == 3 * STEP_DELTAS)
        await wait_until(lambda: not server.core.host_ids())
        host.held = [seed(key(str(n))) for n in range(STEP_DELTAS, 4 * STEP_DELTAS)]
        async with dialled(url, host.me) as hand:
            await hand.send(Announce([seed(key("0"))]))
            await hand.send(Announce(host.held, full=True))
            await wait_until(lambda: server.core.swarms.entry_count == 3 * STEP_DELTAS)
            await wait_until(lambda: not holds(server, host, key("0")))


async def test_a_trackers_clock_that_goes_wrong_later_is_heard_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "PING_S", 0.02)
    ahead_s, real = 0.0, clock.unix_s
    monkeypatch.setattr(clock, "unix_s", lambda: real() + ahead_s)  # the tracker's
    health = Health(unix_s=real)
    async with (
        running(tracker_server()) as url,
        online(Host(member(1)), url, health=health) as client,
    ):
        await wait_until(lambda: client.connected)
        assert health.names() == []

        ahead_s = 300.0
        await wait_until(lambda: health.names() == ["clock_skew"])
        ahead_s = 0.0
        await wait_until(lambda: health.names() == [])


async def test_a_tracker_with_another_secret_is_told_from_one_that_is_away() -> None:
    health, away = Health(), Health()
    server = tracker_server()
    async with running(server) as url:
        secret = b"another secret, long enough"
        async with (
            online(Host(member(1)), url, secret=secret, health=health),
            online(Host(member(2)), NOWHERE, health=away),
        ):
            await wait_until(lambda: health.names() == ["wrong_secret"])
            await wait_until(lambda: server.core.counters.strangers_total > 0)
            assert server.health.names() == ["strangers"]
            assert away.names() == []
