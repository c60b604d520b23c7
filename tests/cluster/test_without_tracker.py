"""Hosts that come while no tracker is there find each other by their proxy; real daemons."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp

from p2pdist.model.ids import Digest
from p2pdist.swarm.core.event_log import Kind
from p2pdist.tracker.daemon import running_tracker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry
from tests.tracker.servers import wait_until

HOSTS: Final = 6
LAYER: Final = random_bytes(24 << 20, 81)
COPIES_MAX: Final = 2.0
"""Of those that six hosts take; 6.0 where each knows the proxy alone."""
DEADLINE_S: Final = 60.0


async def read_everywhere(
    lab: Lab, client: aiohttp.ClientSession, digest: Digest, *, tracker_up: bool
) -> set[Kind]:
    """Have new hosts read the layer at once; return all that happened to it there."""
    peers = [await lab.peer(f"peer{number}") for number in range(HOSTS)]
    await wait_until(lambda: all(p.running.tracker.connected == tracker_up for p in peers))
    async with asyncio.timeout(DEADLINE_S):
        bodies = await asyncio.gather(
            *(read_blob(client, url_of(peer.mirror), digest) for peer in peers)
        )
    assert all(body == LAYER for body in bodies)
    logs = [peer.running.node.core.blobs[digest].log for peer in peers]
    now_s = asyncio.get_running_loop().time()
    return {entry.kind for log in logs for entry in log.story(now_s).entries}


async def test_hosts_that_come_after_the_trackers_death_share_what_the_proxy_sends_once(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    lab.proxy_upload_rate = 12 << 20
    async with running_tracker(lab.settings("tracker")) as tracker:
        lab.trackers.append(url_of(tracker.control, "tcp"))
        proxy = await lab.proxy()
        await pull(client, url_of(proxy.registry))

    happened = await read_everywhere(lab, client, image.layer_digests[0], tracker_up=False)

    assert {Kind.ASKED_WHO, Kind.TOLD_WHO} <= happened
    assert Kind.NAMED not in happened
    assert proxy.running.node.counters.sent["peer"] <= COPIES_MAX * len(LAYER)


async def test_with_a_tracker_nobody_asks_the_proxy_for_names(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    lab.proxy_upload_rate = 12 << 20
    await lab.tracker()
    proxy = await lab.proxy()
    await pull(client, url_of(proxy.registry))

    happened = await read_everywhere(lab, client, image.layer_digests[0], tracker_up=True)

    assert Kind.NAMED in happened
    assert Kind.ASKED_WHO not in happened
    assert proxy.running.node.counters.sent["peer"] <= COPIES_MAX * len(LAYER)
