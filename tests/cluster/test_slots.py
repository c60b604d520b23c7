"""One registry that trickles keeps no other registry's blobs from being fetched."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import pytest

from p2pdist.process.tasks import TaskOwner
from p2pdist.registry_proxy import obtaining
from p2pdist.registry_proxy.daemon import running_proxy
from p2pdist.settings import Upstream
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry, Fault
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

SLOTS = 4


async def test_a_slow_registry_does_not_take_every_slot(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(obtaining, "FETCHES_MAX", SLOTS)
    image = registry.add_image("library/app", "1", [random_bytes(700_000, 1)])
    await lab.tracker()
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(FakeRegistry())
        trickling = slow.add_image("m/x", "1", [random_bytes(600_000, 2 + i) for i in range(SLOTS)])
        for digest in trickling.layer_digests:
            slow.faults[digest] = Fault(bytes_per_s=1)
        upstreams = (
            Upstream("docker.io", registry.url),
            Upstream("ghcr.io", slow.url),
        )
        settings = replace(lab.settings("proxy"), upstream=upstreams)
        proxy = await stack.enter_async_context(running_proxy(settings))
        url = url_of(proxy.registry)
        async with client.get(f"{url}/v2/m/x/manifests/1?ns=ghcr.io") as answer:
            assert answer.status == 200
        tasks = TaskOwner("asking")
        stack.push_async_callback(tasks.close)
        stack.callback(slow.release)
        for digest in trickling.layer_digests:
            tasks.start(_ask(client, f"{url}/v2/m/x/blobs/{digest}?ns=ghcr.io"), name=digest)
        async with asyncio.timeout(10):
            while slow.count("GET", "/blobs/") < SLOTS // 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        with recorded(59, "slow registry", "more layers asked of it than slots") as record:
            async with asyncio.timeout(60):
                pulled = await pull(client, url)
            assert set(image.layer_digests) <= set(pulled)
            record.outcome = "an image of another registry comes through"


async def _ask(client: aiohttp.ClientSession, url: str) -> None:
    async with client.get(url) as answer:
        await answer.read()
