"""What is frozen is never collected (`runtime.collector`): so nothing may need to be."""

from __future__ import annotations

import gc
from random import Random

from p2pdist.model.control import Announce, Delta, Describe, Join, Status
from p2pdist.model.statements import Keyring
from p2pdist.tracker.core.state import (
    HostConnected,
    HostDisconnected,
    MessageReceived,
    TrackerCore,
    TrackerLimits,
)
from tests.tracker.hosts import key, member, seed
from tests.tracker.servers import dialled, running, tracker_server, wait_until


async def test_a_host_that_came_and_went_leaves_no_cycle() -> None:
    core = TrackerCore(
        epoch="e",
        dc="dc1",
        epoch_s=0.0,
        epoch_unix_s=0.0,
        keyring=Keyring([]),
        rng=Random(1),
        limits=TrackerLimits(),
        token=bytes,
    )
    gc.collect()
    gc.disable()
    try:
        for number in range(50):
            link = number + 1
            core.handle(HostConnected(link, member(number)), 1.0)
            for message in (
                Describe(f"h{number}", ["a=b"], "linux/amd64"),
                Announce([seed(key(str(n))) for n in range(20)], full=True),
                Join(1, key("0")),
                Status({"bytes": 1.0}),
                Announce([Delta(key("1"), 0, False)]),
            ):
                core.handle(MessageReceived(link, message), 1.0)
            core.handle(HostDisconnected(link, leaving=number % 2 == 0), 2.0)
        core.handle_deadline(1000.0)
        assert not core.host_ids()
        assert gc.collect() == 0
    finally:
        gc.enable()


async def test_an_ended_connection_leaves_none_of_the_trackers_objects_behind() -> None:
    server = tracker_server()
    async with running(server) as url:
        async with dialled(url, member(1)) as host:
            await host.send(Status({"bytes": 1.0}))
            (connection,) = server.reception._connections
        await wait_until(lambda: not server.reception._connections)
        await wait_until(lambda: not server.core.hosts_connected)
        assert connection._transport._protocol is None  # type: ignore[attr-defined]  # of asyncio
