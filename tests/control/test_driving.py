"""How the client carries its core's orders out: in their order, and whatever happens to one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pdist.control.core import state
from p2pdist.control.dial import TrackerDial
from p2pdist.control.line import ControlLine
from p2pdist.model.control import Delta, Trace
from p2pdist.model.ids import Digest
from p2pdist.tracker.core.state import TrackerLimits
from tests.control.test_client import Host, client_of, online
from tests.fakes.secrets import only
from tests.tracker.hosts import key, member, seed
from tests.tracker.servers import DEADLINE_S, SECRET, running, tracker_server, wait_until

LAYER = Digest(key("layer"))


@asynccontextmanager
async def silent_listener() -> AsyncIterator[tuple[str, asyncio.Queue[bool]]]:
    """Yield the URL of somebody who never answers, and what happens there: True for each
    connection, False for its end."""
    seen = asyncio.Queue[bool]()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.put_nowait(True)
        try:
            while await reader.read(1 << 16):
                pass
        except ConnectionResetError:
            pass
        seen.put_nowait(False)
        writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"tcp://127.0.0.1:{port}", seen


async def test_who_says_nothing_is_hung_up_before_the_next_dial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "CONNECT_S", 0.05)
    async with silent_listener() as (url, seen), online(Host(member(1)), url):
        async with asyncio.timeout(DEADLINE_S):
            assert [await seen.get() for _ in range(4)] == [True, False, True, False]


async def test_a_client_that_closes_while_it_dials_leaves_no_connection() -> None:
    async with silent_listener() as (url, seen):
        client = client_of(Host(member(1)), url)
        client.start()
        async with asyncio.timeout(DEADLINE_S):
            assert await seen.get()
            await client.close()
            assert not await seen.get()
    assert client._timer is None


async def test_a_client_may_be_closed_before_its_dial_began() -> None:
    client = client_of(Host(member(1)), "tcp://127.0.0.1:1")
    client.start()
    await client.close()

    assert client._dial is not None
    assert client._dial.ended.done()


async def test_a_host_that_fails_at_an_order_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Host):
        def full_announce(self) -> list[Delta]:
            self.inventories += 1
            if self.inventories == 1:
                raise RuntimeError("the disk went away")
            return self.held

    server, host = (
        tracker_server(limits=TrackerLimits(announce_interval_s=0.05)),
        Failing(member(1)),
    )
    host.held = [seed(key())]
    async with running(server) as url, online(host, url):
        await wait_until(lambda: server.core.swarms.entry_count == 1)

    assert (host.ups, host.inventories) == (2, 2)
    assert "the disk went away" in caplog.text


async def test_a_url_that_cannot_be_dialled_is_tried_again_and_again() -> None:
    client = client_of(Host(member(1)), "no url at all")
    client.start()
    await wait_until(lambda: client._dial is not None and client._dial.number > 1)
    await client.close()


async def test_a_lease_that_nobody_waits_for_any_more_is_given_back() -> None:
    server, host = tracker_server(), Host(member(1))
    async with running(server) as url, online(host, url) as client:
        await wait_until(lambda: client.connected)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(client.lease(key(), timeout_s=DEADLINE_S))
            await asyncio.sleep(0)
            waiting.cancel()

        await wait_until(lambda: server.core.counters.leases_granted_total)
        await wait_until(lambda: not len(server.core.leases))
        assert await client.lease(key(), timeout_s=0.0) is None
    assert not client._asked


async def test_what_a_start_read_is_asked_of_the_tracker() -> None:
    async with running(tracker_server()) as url, online(Host(member(1)), url) as client:
        assert await client.trace(LAYER, timeout_s=DEADLINE_S) == []  # not connected yet
        await wait_until(lambda: client.connected)
        client.tell(Trace(key("layer"), [3, 4]))

        assert await client.trace(LAYER, timeout_s=DEADLINE_S) == [3, 4]
        assert await client.trace(Digest(key("other")), timeout_s=DEADLINE_S) == []
        assert await client.trace(LAYER, timeout_s=0.0) == []


async def test_what_comes_of_an_order_goes_out_behind_the_orders_before() -> None:
    """A host that asks again for each handout that it gets."""

    class Asking(Host):
        def tracker_up(self) -> None:
            client.join(key("new"))

    said: list[str] = []
    server, host = tracker_server(), Asking(member(1))
    async with running(server) as url:
        client = client_of(host, url)
        write = client._use

        def use(dial: object, order: object) -> None:
            said.append(type(getattr(order, "message", order)).__name__)
            write(dial, order)  # type: ignore[arg-type]  # what the client passes on

        client._use = use  # type: ignore[method-assign]  # to see it
        client.start()
        await wait_until(lambda: host.handouts)
        await client.close()

    assert said[:5] == ["AskInventory", "SendNumbers", "Ping", "Join", "Announce"]


async def test_progress_that_waits_sets_no_timer() -> None:
    server, host = tracker_server(limits=TrackerLimits(announce_interval_s=3600.0)), Host(member(1))
    async with running(server) as url, online(host, url) as client:
        await wait_until(lambda: client.connected)
        timer = client._timer
        for held_chunks in range(100):
            client.note(key(), held_chunks + 1, False)

        assert client._timer is timer


async def test_a_lost_connection_answers_a_waiting_lease() -> None:
    host = Host(member(1))
    server = tracker_server()
    async with running(server) as url, online(host, url) as client:
        await wait_until(lambda: client.connected)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(client.lease(key(), timeout_s=DEADLINE_S))
            await asyncio.sleep(0)
            assert client._dial is not None
            client._dial.abort("for the test")

        assert waiting.result() is None


async def test_the_late_end_of_an_older_line_ends_nothing() -> None:
    host = Host(member(1))
    async with running(tracker_server()) as url, online(host, url) as client:
        await wait_until(lambda: client.connected)
        older, now = TrackerDial(client, 0, url), client._dial
        older.line_lost(ControlLine(older, only(SECRET), host.me, client._codecs), "late")

        assert client.connected
        assert client._dial is now
        client.join(key())
        await wait_until(lambda: host.handouts)
    assert host.ups == 1
