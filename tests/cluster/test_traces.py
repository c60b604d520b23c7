"""What a start read on one host, another host is told before its own."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from p2pdist.model.control import TRACE_UNITS_MAX
from p2pdist.model.ids import digest_of
from p2pdist.oci.traces import QUESTION, decode_trace, encode_trace
from p2pdist.peer.daemon import RunningPeer
from tests.fakes.cluster import Lab, url_of

LAYER = digest_of(b"layer")
UNITS = [3, 1, 200]


def url(peer: RunningPeer, layer: str = LAYER) -> str:
    return f"{url_of(peer.mirror)}{QUESTION}?layer={layer}"


async def told(client: aiohttp.ClientSession, peer: RunningPeer) -> list[int]:
    async with client.get(url(peer), raise_for_status=True) as answer:
        return decode_trace(await answer.read())


async def tell(
    client: aiohttp.ClientSession, peer: RunningPeer, body: bytes, layer: str = LAYER
) -> int:
    async with client.post(url(peer, layer), data=body) as answer:
        return answer.status


async def test_hosts_tell_each_other(lab: Lab, client: aiohttp.ClientSession) -> None:
    await lab.tracker()
    await lab.proxy()
    one, other = await lab.peer("one"), await lab.peer("other")
    assert await told(client, other) == []

    assert await tell(client, one, encode_trace(UNITS)) == 204

    async with asyncio.timeout(20):
        while True:
            if found := await told(client, other):
                break
    assert found == UNITS


async def test_without_a_tracker_nothing_is_known_and_nothing_fails(
    lab: Lab, client: aiohttp.ClientSession
) -> None:
    await lab.proxy()
    peer = await lab.peer("alone")

    assert await tell(client, peer, encode_trace(UNITS)) == 204
    assert await told(client, peer) == []


@pytest.mark.parametrize(
    ("body", "layer", "status"),
    [
        (b"\xc1", LAYER, 400),
        (b"", LAYER, 400),
        (encode_trace([-1]), LAYER, 400),
        (encode_trace([1] * (TRACE_UNITS_MAX + 1)), LAYER, 400),
        (encode_trace(UNITS), "sha256:0", 400),
        (bytes(5000), LAYER, 413),
    ],
)
async def test_what_is_no_trace_is_refused(
    lab: Lab, client: aiohttp.ClientSession, body: bytes, layer: str, status: int
) -> None:
    peer = await lab.peer("alone")

    assert await tell(client, peer, body, layer) == status
