"""Hosts that read a part of a layer and nothing else, through real daemons."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from p2pdist.exchange.frames import Frame, Offer
from p2pdist.exchange.link import Link
from p2pdist.model.control import digest_key
from p2pdist.model.ids import Digest
from p2pdist.model.members import Role
from p2pdist.peer.daemon import RunningPeer
from p2pdist.registry.ports import DEMAND_AGAIN, DEMAND_HEADER
from p2pdist.registry.serving import endpoint
from p2pdist.registry_proxy.daemon import RunningProxy
from p2pdist.store.blob import Blob
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core import fetch, scope
from p2pdist.swarm.core.fetch import FetchCounters
from p2pdist.swarm.routing import FrameRouter
from p2pdist.tracker.daemon import RunningTracker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry

CHUNK = 256 * 1024
SIZE = 64 << 20
LAYER = random_bytes(SIZE, 1)
RANGE = (20_000_000, 20_350_000)
DEADLINE_S = 30.0

Offers = list[tuple[Role, FrameRouter]]
"""From whom, and to whose node."""


@pytest.fixture
async def digest(registry: FakeRegistry) -> Digest:
    image = registry.add_image("library/app", "1", [LAYER])
    (digest,) = image.layer_digests
    return digest


@pytest.fixture
async def tracker(lab: Lab) -> RunningTracker:
    return await lab.tracker()


@pytest.fixture
async def proxy(
    lab: Lab, tracker: RunningTracker, digest: Digest, client: aiohttp.ClientSession
) -> RunningProxy:
    """It has the layer."""
    proxy = await lab.proxy()
    await pull(client, url_of(proxy.registry))
    return proxy


async def read_range(
    client: aiohttp.ClientSession,
    peer: RunningPeer,
    digest: Digest,
    begin: int = RANGE[0],
    end: int = RANGE[1],
) -> None:
    """Demand the bytes from `begin` to `end` (exclusive) of the layer, and compare them."""
    url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{digest}"
    headers = {"Range": f"bytes={begin}-{end - 1}", DEMAND_HEADER: "1"}
    async with client.get(url, headers=headers, raise_for_status=True) as answer:
        assert answer.status == 206
        assert await answer.read() == LAYER[begin:end]


async def know(client: aiohttp.ClientSession, *peers: RunningPeer) -> None:
    """The manifest was asked for, as a mount does."""
    for peer in peers:
        url = f"{url_of(peer.mirror)}/v2/library/app/manifests/1"
        async with client.get(url, raise_for_status=True):
            pass


def received(peer: RunningPeer) -> int:
    return sum(peer.running.node.counters.received.values())


def active(peer: RunningPeer, digest: Digest) -> ActiveBlob:
    return peer.running.node.actives[digest]


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> Offers:
    """All that are heard."""
    heard: Offers = []
    frame_of = FrameRouter.frame

    def frame(router: FrameRouter, link: Link, frame: Frame) -> None:
        if isinstance(frame, Offer):
            heard.append((link.session.member.role, router))
        frame_of(router, link, frame)

    monkeypatch.setattr(FrameRouter, "frame", frame)
    return heard


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # counters have no event
            await asyncio.sleep(0.005)


def sent_to_peers(proxy: RunningProxy) -> int:
    return proxy.running.node.counters.sent["peer"]


async def test_a_range_at_a_cold_peer_moves_only_its_chunks_and_waits_for_no_promise(
    lab: Lab,
    proxy: RunningProxy,
    digest: Digest,
    client: aiohttp.ClientSession,
    offers: Offers,
) -> None:
    peer = await lab.peer("a")
    await know(client, peer)
    before = received(peer)

    await read_range(client, peer, digest)
    await read_range(client, peer, digest, SIZE - 300_000, SIZE)

    assert received(peer) - before <= 350_000 + 300_000 + 4 * CHUNK
    assert Role.PROXY not in {role for role, _ in offers}
    assert peer.running.node.fetch_totals() == FetchCounters()
    assert not active(peer, digest).complete


async def test_a_range_without_the_word_brings_the_whole_blob(
    lab: Lab, proxy: RunningProxy, digest: Digest, client: aiohttp.ClientSession
) -> None:
    peer = await lab.peer("a")
    await know(client, peer)
    url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{digest}"
    async with client.get(url, headers={"Range": "bytes=5-9"}, raise_for_status=True) as answer:
        assert await answer.read() == LAYER[5:10]

    await until(lambda: active(peer, digest).complete)


@pytest.fixture
def time_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts whom a proxy refers to others ask it again when they starve, and not before."""
    monkeypatch.setattr(fetch, "REFUSED_S", DEADLINE_S)


@pytest.mark.usefixtures("time_to_meet")
async def test_what_a_fleet_needs_at_once_leaves_the_proxy_about_once(
    lab: Lab, proxy: RunningProxy, digest: Digest, client: aiohttp.ClientSession
) -> None:
    peers = [await lab.peer(f"p{n}") for n in range(8)]
    await know(client, *peers)
    before = sent_to_peers(proxy)

    await asyncio.gather(*(read_range(client, peer, digest) for peer in peers))

    one_copy = 2 * CHUNK  # the chunks that the range lies in
    assert all(received(peer) <= one_copy + 2 * CHUNK for peer in peers)
    # Once; and a second and a third time at most, should hosts be too busy to meet in time.
    assert sent_to_peers(proxy) - before <= 3 * one_copy


@pytest.mark.usefixtures("time_to_meet")
async def test_a_host_that_comes_later_gets_it_from_those_that_have_it(
    lab: Lab, proxy: RunningProxy, digest: Digest, client: aiohttp.ClientSession
) -> None:
    first, second = await lab.peer("a"), await lab.peer("b")
    await know(client, first, second)
    await read_range(client, first, digest)

    await read_range(client, second, digest)

    assert second.running.node.counters.received["dc"] >= CHUNK


async def test_a_pull_beside_is_promised_all_that_it_needs(
    lab: Lab,
    proxy: RunningProxy,
    digest: Digest,
    client: aiohttp.ClientSession,
    offers: Offers,
) -> None:
    readers, puller = [await lab.peer(f"p{n}") for n in range(4)], await lab.peer("puller")
    await know(client, *readers, puller)

    async def read_often(peer: RunningPeer, number: int) -> None:
        for step in range(8):
            begin = (8 * number + step) * 2_000_000
            await read_range(client, peer, digest, begin, begin + 350_000)

    reading = [read_often(peer, number) for number, peer in enumerate(readers)]
    body, *_ = await asyncio.gather(read_blob(client, url_of(puller.mirror), digest), *reading)

    assert body == LAYER
    promised_to = {router for role, router in offers if role is Role.PROXY}
    assert promised_to == {puller.running.node.router}
    assert puller.running.node.fetch_totals().escapes == 0
    assert not any(active(peer, digest).complete for peer in readers)


async def test_an_ordinary_reader_and_an_order_want_all_of_it(
    lab: Lab, proxy: RunningProxy, digest: Digest, client: aiohttp.ClientSession
) -> None:
    pulling, ordered = await lab.peer("a"), await lab.peer("b")
    await know(client, pulling, ordered)
    for peer in (pulling, ordered):
        await read_range(client, peer, digest)

    assert await read_blob(client, url_of(pulling.mirror), digest) == LAYER
    ordered.running.node.fetch_bulk(active(ordered, digest), None)

    await until(lambda: active(ordered, digest).complete)


def held_at(tracker: RunningTracker, peer: RunningPeer, digest: Digest) -> int:
    """How many chunks the tracker knows of."""
    known, key = tracker.server.core.export(peer.running.me().host_id), digest_key(digest)
    return sum(d.held_chunks for d in known.deltas if d.key == key) if known is not None else 0


async def test_who_reads_no_more_leaves_the_swarm_with_what_it_has_and_comes_back(
    lab: Lab,
    tracker: RunningTracker,
    proxy: RunningProxy,
    digest: Digest,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scope, "REST_S", 0.1)
    peer, other = await lab.peer("a"), await lab.peer("b")
    await know(client, peer, other)
    await read_range(client, peer, digest)
    await until(lambda: not active(peer, digest).member)
    assert not active(peer, digest).in_use
    held = received(peer)

    # What it has goes out to others, and nothing comes in for their sake.
    await until(lambda: held_at(tracker, peer, digest) == 2)
    assert await read_blob(client, url_of(other.mirror), digest) == LAYER
    assert other.running.node.counters.received["dc"] >= 2 * CHUNK
    assert received(peer) == held

    # It goes on from there.
    await read_range(client, peer, digest)
    assert received(peer) == held
    await read_range(client, peer, digest, RANGE[0], RANGE[1] + CHUNK)
    assert held < received(peer) <= held + 2 * CHUNK
    assert peer.running.node.fetch_totals() == FetchCounters()


# --- what is wrong ------------------------------------------------------------------------------


async def ranged(
    client: aiohttp.ClientSession, peer: RunningPeer, digest: Digest, demand: str
) -> bytes:
    url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{digest}"
    headers = {"Range": f"bytes={RANGE[0]}-{RANGE[1] - 1}", DEMAND_HEADER: demand}
    async with client.get(url, headers=headers, raise_for_status=True) as answer:
        return await answer.read()


def rot(peer: RunningPeer, digest: Digest) -> None:
    """Change a byte of the range on the peer's disk, which hashed it a moment ago."""
    blob = peer.running.store.get(digest)
    assert isinstance(blob, Blob)
    with (blob.path / "data").open("r+b") as file:
        file.seek(RANGE[0] + 1000)
        byte = file.read(1)
        file.seek(RANGE[0] + 1000)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.usefixtures("proxy")
async def test_what_rotted_is_fetched_anew_for_who_says_that_it_is_wrong(
    lab: Lab, client: aiohttp.ClientSession, digest: Digest
) -> None:
    peer = await lab.peer("a")
    await know(client, peer)
    await read_range(client, peer, digest)
    rot(peer, digest)
    wanted = LAYER[RANGE[0] : RANGE[1]]
    assert await ranged(client, peer, digest, "1") != wanted, "it was hashed when it came"

    assert await ranged(client, peer, digest, DEMAND_AGAIN) == wanted

    assert peer.running.node.counters.rejected["rot"] == 1
    assert await ranged(client, peer, digest, "1") == wanted


@pytest.mark.usefixtures("proxy")
async def test_no_other_host_has_this_one_hash_its_chunks(
    lab: Lab, client: aiohttp.ClientSession, digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await lab.peer("a")
    await know(client, peer)
    await read_range(client, peer, digest)
    rot(peer, digest)
    monkeypatch.setattr(endpoint, "to_other_host", lambda _: True)

    assert await ranged(client, peer, digest, DEMAND_AGAIN) != LAYER[RANGE[0] : RANGE[1]]

    assert peer.running.node.counters.rejected["rot"] == 0
