"""One caller of a proxy spends no more of its registries than its budget; others have theirs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from p2pdist.errors import ErrorReason
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry

LAYER = random_bytes(3_000_000, 105)
OTHER = random_bytes(2_000_000, 106)
ProxyWith = Callable[[int, int], AbstractAsyncContextManager[RunningProxy]]


@pytest.fixture
def proxy_with(lab: Lab) -> ProxyWith:
    """A proxy that grants so many questions a minute, and so many bytes a second."""

    @asynccontextmanager
    async def running(questions: int, rate: int) -> AsyncIterator[RunningProxy]:
        settings = lab.settings("proxy")
        own = replace(settings.proxy, caller_questions=questions, caller_rate=rate)
        async with running_proxy(replace(settings, proxy=own)) as proxy:
            lab.proxies.append(url_of(proxy.registry))
            yield proxy

    return running


def from_address(address: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0)))


async def test_who_has_spent_its_questions_is_told_when_to_come_back_and_others_are_served(
    registry: FakeRegistry,
    client: aiohttp.ClientSession,
    proxy_with: ProxyWith,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(20):
        registry.add_image("library/app", str(number), [random_bytes(100, number)])
    async with proxy_with(10, 0) as proxy, from_address("127.0.0.2") as another:
        url = f"{url_of(proxy.registry)}/v2/library/app/manifests"
        statuses = []
        for number in range(20):
            async with client.get(f"{url}/{number}") as answer:
                statuses.append(answer.status)
                if answer.status == 429:
                    assert int(answer.headers["Retry-After"]) >= 1
                    assert answer.headers["P2pdist-Reason"] == ErrorReason.CALLER_BUDGET
                    (error,) = (await answer.json())["errors"]
                    assert error["code"] == "TOOMANYREQUESTS"
        refused = statuses.count(429)
        assert statuses[:10] == [200] * 10
        assert refused >= 5
        async with client.get(f"{url}/3") as answer:
            assert answer.status == 200, "what is known here costs nobody anything"
        async with another.get(f"{url}/19") as answer:
            assert answer.status == 200
        async with client.get(f"http://{proxy.admin}/metrics") as answer:
            text = await answer.text()
    assert f'p2pdist_proxy_budget_refused_total{{what="questions"}} {refused}.0' in text
    assert f'p2pdist_requests_refused_total{{reason="caller_budget"}} {refused}.0' in text
    (said,) = [r for r in caplog.records if r.msg == "client.refused"]
    assert said.levelno == logging.WARNING
    fields = vars(said)["fields"]
    assert fields["audit"] == "refused"
    assert fields["who"] == "127.0.0.1"


async def test_blobs_past_the_budget_are_not_begun_for_that_caller(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, proxy_with: ProxyWith
) -> None:
    await lab.tracker()
    first = registry.add_image("library/app", "1", [LAYER]).layer_digests[0]
    second = registry.add_image("library/app", "2", [OTHER]).layer_digests[0]
    async with proxy_with(0, 1) as proxy, from_address("127.0.0.2") as another:
        url = f"{url_of(proxy.registry)}/v2/library/app"
        for tag in "12":
            async with client.get(f"{url}/manifests/{tag}", raise_for_status=True):
                pass

        async def status(session: aiohttp.ClientSession, digest: str) -> int:
            async with session.get(f"{url}/blobs/{digest}") as answer:
                await answer.read()
                reason = answer.headers.get("P2pdist-Reason")
                assert (reason == ErrorReason.CALLER_BUDGET) == (answer.status == 404)
                return answer.status

        assert await status(client, first) == 200
        assert await status(client, second) == 404
        assert await status(client, first) == 200, "it lies here"
        assert await status(another, second) == 200
        assert await status(client, second) == 200


@pytest.mark.parametrize(("questions", "rate"), [(1, 0), (0, 1)])
async def test_a_peer_past_its_budget_pulls_from_the_registry_itself(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    proxy_with: ProxyWith,
    questions: int,
    rate: int,
) -> None:
    for tag, layer in (("1", LAYER), ("2", OTHER), ("3", LAYER[:1000]), ("4", OTHER[:1000])):
        registry.add_image("library/app", tag, [layer])
    await lab.tracker()
    async with proxy_with(questions, rate) as proxy:
        peer = await lab.peer("a", direct=True)
        async with asyncio.timeout(15):
            for tag in "1234":
                await pull(client, url_of(peer.mirror), tag)
        async with client.get(f"http://{proxy.admin}/metrics") as answer:
            text = await answer.text()
    what = "questions" if questions else "bytes"
    assert f'p2pdist_proxy_budget_refused_total{{what="{what}"}} 0' not in text
