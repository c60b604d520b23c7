"""Who asks a proxy for what is not there spends what the registry grants to all."""

from __future__ import annotations

import asyncio
import logging
import time

import aiohttp
import pytest

from p2pdist.registry_proxy.core.misses import MISSES_BURST, MISSES_PER_S
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

QUESTIONS = 500
# A look-up that fails is a HEAD, whose body would name the reason, and a GET.
REQUESTS_PER_MISS = 2
# 502: nothing is decided, so that peers ask elsewhere; of a blob dockerd would ask for it again.
# 200: past the last tag there are none, and nothing refers to what is not there.
KINDS = {
    "library/x{n}/manifests/latest": {404, 502},
    "library/app/manifests/y{n}": {404, 502},
    "library/app/manifests/sha256:{n:064x}": {404, 502},
    "library/app/blobs/sha256:{n:064x}": {404},
    "library/x{n}/tags/list": {404, 502},
    "library/app/tags/list?last={n}": {200, 502},
    "library/app/referrers/sha256:{n:064x}": {200, 502},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_host_that_asks_for_nothing_spends_little(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    registry.add_image("library/app", "1", [random_bytes(100, 1)])
    cold = registry.add_image("library/other", "1", [random_bytes(100, 2)])
    await lab.tracker()
    proxy = await lab.proxy()
    url = url_of(proxy.registry)
    await pull(client, url)

    async def status(session: aiohttp.ClientSession, path: str) -> int:
        async with session.get(f"{url}/v2/{path}") as answer:
            return answer.status

    with recorded(72, "client that asks for nothing", kind) as record:
        before, began_s = len(registry.asked), time.monotonic()
        statuses = await asyncio.gather(
            *(status(client, kind.format(n=n)) for n in range(QUESTIONS))
        )
        misses = MISSES_BURST + 1 + MISSES_PER_S * (time.monotonic() - began_s)
        spent = len(registry.asked) - before
        assert set(statuses) == KINDS[kind]
        assert spent <= REQUESTS_PER_MISS * misses

        assert await pull(client, url)  # what is known is served all the same
        connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
        async with aiohttp.ClientSession(connector=connector) as another:
            assert await status(another, f"library/other/manifests/{cold.manifest_digest}") == 200
        record.outcome = "bounded for that host; others, and what is known, are served"

    assert not [r for r in caplog.records if r.msg == "upstream.unanswered"]
    said = [r for r in caplog.records if r.msg == "proxy.misses_spent"]
    assert len(said) == 1
    assert said[0].levelno == logging.WARNING
