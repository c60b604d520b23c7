from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from p2pdist.errors import PeerFault
from p2pdist.model.control import Announce, Handout, Join, Revoke, Revoked, Welcome
from p2pdist.model.control_wire import (
    CONNECT_S,
    MAGIC,
    MESSAGE_BYTES_MAX,
    CloseCode,
    Kind,
    frame,
    read_retry,
)
from p2pdist.model.ids import Digest, MapId
from p2pdist.model.members import Role
from p2pdist.model.statements import Revocation
from p2pdist.tracker.core.intake import RETRY_AFTER_MIN_S
from p2pdist.tracker.core.state import TrackerLimits
from tests.tracker.hosts import key, member, seed
from tests.tracker.servers import SIGNER, connected, dialled, running, tracker_server, wait_until


async def announce_and_ask(url: str) -> list[int]:
    """Two seeds announce, a reader asks; return the ports of those it is named."""
    async with (
        dialled(url, member(1, "dc1/r2")) as far,
        dialled(url, member(2, "dc1/r1")) as near,
        dialled(url, member(3, "dc1/r1"), features=0) as reader,
    ):
        for host in (far, near):
            await host.send(Announce([seed(key())]))
            await host.send(Join(1, key(), member=False))
            await host.expect(Handout)  # so the announce before it was taken in
        await reader.send(Join(9, key()))
        handout = await reader.expect(Handout)
        return [m.addresses[0].port for m in handout.members]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_reader_is_named_the_nearest_first_on_either_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> list[int]:
        async with running(tracker_server()) as url:
            return await announce_and_ask(url)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(scenario()) == [1002, 1001]


async def test_a_host_with_another_secret_is_refused() -> None:
    server = tracker_server()
    async with running(server) as url:
        with pytest.raises(PeerFault):
            async with dialled(url, member(1), secret=b"a secret of somebody else"):
                pass

        await wait_until(lambda: server.core.counters.protocol_faults_total)
        assert server.core.hosts_connected == 0


@pytest.mark.parametrize(
    "said",
    [
        b"GET /control HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
        MAGIC + frame(Kind.HELLO, b"\xff" * 100),
        MAGIC + frame(Kind.PROOF, bytes(32)),
        MAGIC + frame(Kind.MESSAGE, b"\x80"),
        MAGIC + b"\xff" * 100,
        MAGIC + 20 * frame(Kind.PROOF, bytes(32)),
    ],
)
async def test_a_client_that_cannot_prove_the_secret_is_refused(said: bytes) -> None:
    server = tracker_server()
    async with running(server) as url, connected(url) as stranger:
        await stranger.send_bytes(said)

        assert await stranger.wait_closed() == CloseCode.REFUSED
        assert server.core.hosts_connected == 0
        assert server.reception.intake.greeted == 0


async def test_a_client_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("p2pdist.tracker.reception.HANDSHAKE_S", 0.05)
    server = tracker_server()
    async with running(server) as url, connected(url) as mute:
        await mute.send_bytes(MAGIC)

        assert await mute.wait_closed() == CloseCode.REFUSED
        assert server.reception.intake.greeted == 0


async def test_who_would_wait_too_long_is_told_when_to_come_back() -> None:
    server = tracker_server()
    async with running(server) as url:
        server.reception.intake._pace_s = 2 * CONNECT_S
        async with connected(url) as first, connected(url) as second:
            await first.send_bytes(MAGIC)
            await second.send_bytes(MAGIC)

            kind, payload = await second.receive_frame()

        assert kind == Kind.RETRY
        assert read_retry(payload) >= RETRY_AFTER_MIN_S
        assert server.reception.intake.sent_away_total == 1


async def test_a_tracker_is_in_no_swarm() -> None:
    async with (
        running(tracker_server()) as url,
        dialled(url, member(1, role=Role.TRACKER)) as other,
    ):
        await other.send(Join(1, key()))

        assert await other.wait_closed() == CloseCode.REFUSED


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x00",
        b"\x07rest",
        b"\x00\xc1",
        b"\x01" + b"\x28\xb5\x2f\xfd" * 5,
        b"\x00\x81\xa1t\xa1x",
    ],
)
async def test_a_hostile_frame_closes_its_connection_only(packed: bytes) -> None:
    async with (
        running(tracker_server()) as url,
        dialled(url, member(1)) as hostile,
        dialled(url, member(2)) as good,
    ):
        await hostile.send_frame(Kind.MESSAGE, packed)

        assert await hostile.wait_closed() == CloseCode.REFUSED
        await good.send(Join(1, key()))
        assert (await good.expect(Handout)).seq == 1


async def test_an_oversize_frame_is_refused_from_its_header() -> None:
    async with running(tracker_server()) as url, dialled(url, member(1)) as hostile:
        await hostile.send_bytes(frame(Kind.MESSAGE, bytes(MESSAGE_BYTES_MAX + 1))[:5])

        assert await hostile.wait_closed() == CloseCode.REFUSED


async def test_a_revocation_is_pushed_to_connected_hosts_and_told_to_later_ones() -> None:
    record = SIGNER.sign(Revocation(Digest(key()), MapId(bytes(16)), 0))
    async with running(tracker_server()) as url, dialled(url, member(1)) as other:
        async with dialled(url, member(2, role=Role.PROXY)) as proxy:
            await proxy.send(Revoke([record]))
            assert (await other.expect(Revoked)).records == [record]

        async with dialled(url, member(3)) as later:
            assert isinstance(await later.receive(), Welcome)
            assert (await later.expect(Revoked)).records == [record]


async def test_a_second_connection_of_a_host_ends_the_first() -> None:
    async with (
        running(tracker_server()) as url,
        dialled(url, member(1)) as first,
        dialled(url, member(1)) as second,
    ):
        assert await first.wait_closed() == CloseCode.REFUSED
        await second.send(Join(1, key()))
        await second.expect(Handout)


async def test_a_silent_host_is_disconnected() -> None:
    limits = TrackerLimits(heartbeat_s=0.02)
    async with running(tracker_server(limits=limits)) as url, dialled(url, member(1)) as silent:
        assert await silent.wait_closed() == CloseCode.REFUSED


async def test_a_stopping_tracker_says_so_and_its_successor_knows_the_offers(
    tmp_path: Path,
) -> None:
    server = tracker_server(state_dir=tmp_path)
    async with running(server) as url, dialled(url, member(1)) as host:
        await host.send(Announce([seed(key())]))
        await host.send(Join(1, key(), member=False))
        await host.expect(Handout)
        async with asyncio.TaskGroup() as tasks:
            closed = tasks.create_task(host.wait_closed())
            await server.close()
        assert closed.result() == CloseCode.GOING_AWAY

    async with running(tracker_server(state_dir=tmp_path)) as url, dialled(url, member(2)) as asker:
        await asker.send(Join(1, key()))
        assert (await asker.expect(Handout)).members == [member(1)]
