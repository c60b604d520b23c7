"""Links to proxies: full proxies, links that were idle, and what crosses their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from p2pdist.exchange.frames import Interest
from p2pdist.exchange.link import Link
from p2pdist.model.ids import Digest
from p2pdist.model.members import Role
from p2pdist.peer.daemon import RunningPeer
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.swarm.core import proxy_links
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry, Fault

MIB = 1 << 20
LAYERS = [random_bytes(6 * MIB + 5, 71), random_bytes(2 * MIB, 72), random_bytes(700, 73)]
ANOTHER = Digest("sha256:" + "7" * 64)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # daemons have no event for all that tests see
            await asyncio.sleep(0.01)


def proxy_link(peer: RunningPeer) -> Link | None:
    links = peer.running.node.neighbourhood.links.values()
    return next((link for link in links if link.session.member.role is Role.PROXY), None)


def link_to(proxy: RunningProxy, peer: RunningPeer) -> Link:
    return proxy.running.node.neighbourhood.links[peer.running.me().host_id]


def links_made(peer: RunningPeer, monkeypatch: pytest.MonkeyPatch) -> list[Link]:
    """All links that the peer will have had; a soon idle one is gone when a test looks for it."""
    neighbourhood, made = peer.running.node.neighbourhood, list[Link]()
    add = neighbourhood.add

    def noted(link: Link) -> bool:
        made.append(link)
        return add(link)

    monkeypatch.setattr(neighbourhood, "add", noted)
    return made


@asynccontextmanager
async def full_proxy(lab: Lab, links_max: int) -> AsyncIterator[RunningProxy]:
    settings = lab.settings("proxy")
    limited = replace(settings.proxy, links_max=links_max)
    async with running_proxy(replace(settings, proxy=limited)) as running:
        lab.proxies.append(url_of(running.registry))
        yield running


@pytest.fixture
def soon_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_links, "IDLE_S", 0.4)


# --- a full proxy -------------------------------------------------------------------------------


async def test_a_host_that_a_full_proxy_refuses_gets_its_image_from_peers(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    tracker = await lab.tracker()
    async with full_proxy(lab, links_max=1) as proxy:
        first = await lab.peer("first")
        await pull(client, url_of(first.mirror))
        await announced(tracker, first)
        second = await lab.peer("second")

        await pull(client, url_of(second.mirror))

        refused = second.running.node
        assert proxy.running.transport.refused["full"] >= 1
        assert refused.neighbourhood.refused_by["full"] >= 1
        assert refused.health.names() == ["proxies_refuse"]
        assert proxy_link(second) is None
        chunked = sum(map(len, LAYERS[:2]))
        assert refused.counters.received["dc"] >= chunked
        assert refused.counters.fallbacks == {}
        for digest in image.layer_digests:
            assert registry.count("GET", f"/blobs/{digest}") == 1


async def test_a_refused_host_leaves_the_proxy_alone_until_its_time(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    tags = ("1", "2", "3")
    for number, tag in enumerate(tags):
        registry.add_image("library/app", tag, [random_bytes(2 * MIB, 80 + number)])
    await lab.tracker()
    async with full_proxy(lab, links_max=1) as proxy:
        first = await lab.peer("first")
        for tag in tags:
            await pull(client, url_of(first.mirror), tag=tag)
        second = await lab.peer("second")

        for tag in tags:
            await pull(client, url_of(second.mirror), tag=tag)

        assert proxy.running.transport.refused["full"] == 1


async def test_a_lonely_host_that_is_refused_gets_its_image_over_http(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """The last resort: the one host with a link takes no part in what the other one pulls."""
    registry.add_image("library/app", "1", LAYERS)
    registry.add_image("library/app", "2", [random_bytes(3 * MIB, 74)])
    await lab.tracker()
    async with full_proxy(lab, links_max=1):
        first = await lab.peer("first")
        await pull(client, url_of(first.mirror))
        second = await lab.peer("second")

        await pull(client, url_of(second.mirror), tag="2")

        assert second.running.node.counters.received["proxy"] >= 3 * MIB


# --- idle links ---------------------------------------------------------------------------------


async def test_no_link_is_made_before_anything_is_wanted(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    assert proxy_link(peer) is None

    await pull(client, url_of(peer.mirror))

    assert proxy_link(peer) is not None


@pytest.mark.usefixtures("soon_idle")
async def test_an_idle_link_is_left_and_dialled_again_on_demand(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.add_image("library/app", "1", LAYERS)
    registry.add_image("library/app", "2", [random_bytes(3 * MIB, 75)])
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")
    made = links_made(peer, monkeypatch)
    await pull(client, url_of(peer.mirror))

    await until(lambda: not proxy.running.node.neighbourhood.links)
    await until(lambda: proxy_link(peer) is None)
    before = list(made)
    await pull(client, url_of(peer.mirror), tag="2")

    assert before
    assert all(link.closed for link in before)
    assert len(made) > len(before)
    assert peer.running.node.counters.fallbacks == {}


@pytest.mark.usefixtures("soon_idle")
async def test_a_link_that_the_proxy_has_a_use_for_stays(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", LAYERS)
    registry.faults[image.layer_digests[0]] = Fault(stall_after=MIB)
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pull(client, url_of(peer.mirror)))
        await until(lambda: proxy_link(peer) is not None)  # busy until the registry goes on
        kept = proxy_link(peer)
        at_proxy = proxy.running.node.neighbourhood.links
        await until(lambda: peer.running.me().host_id in at_proxy)  # its end is a moment later
        active = proxy.running.node.activate(ANOTHER, 3 * MIB)
        active.attach(link_to(proxy, peer))
        registry.release()

    await asyncio.sleep(3 * proxy_links.IDLE_S)  # as long as nothing must happen

    # The peer asks again and again whether there is a use for it, and is without it meanwhile.
    await until(lambda: proxy_link(peer) is kept)
    assert kept is not None
    assert not kept.closed


async def test_an_interest_that_crosses_the_end_of_a_link_keeps_it(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")
    await pull(client, url_of(peer.mirror))
    ours, theirs = proxy_link(peer), link_to(proxy, peer)
    assert ours is not None
    node = peer.running.node
    await until(lambda: not (ours.busy or theirs.busy))

    node.proxy_links.leave(ours)  # in one turn of the loop: neither has heard the other
    proxy.running.node.activate(ANOTHER, 3 * MIB).attach(theirs)
    assert proxy_link(peer) is None
    await until(lambda: proxy_link(peer) is ours)

    wanted_by = node.activate(ANOTHER, 3 * MIB).core.wishes()
    assert wanted_by == {theirs_id(proxy): Interest(ANOTHER)}
    assert not ours.closed
    assert not theirs.closed


async def test_what_a_host_wants_while_its_link_ends_makes_a_new_one(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", LAYERS)
    registry.add_image("library/app", "2", [random_bytes(3 * MIB, 76)])
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")
    await pull(client, url_of(peer.mirror))
    ours, theirs = proxy_link(peer), link_to(proxy, peer)
    assert ours is not None
    await until(lambda: not (ours.busy or theirs.busy))

    peer.running.node.proxy_links.leave(ours)
    await pull(client, url_of(peer.mirror), tag="2")

    assert ours.closed
    assert peer.running.node.counters.fallbacks == {}
    assert peer.running.node.counters.received["proxy"] >= 9 * MIB


def theirs_id(proxy: RunningProxy) -> str:
    return proxy.running.me().host_id


# --- dials that cross -----------------------------------------------------------------------------


async def test_what_goes_on_at_a_link_goes_on_at_the_one_that_takes_its_place(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Two hosts that dial each other at once had a blob that neither asked the other for."""
    image = registry.add_image("library/app", "1", [random_bytes(6 * MIB, 60)])
    lab.proxy_upload_rate = 2 * MIB
    await lab.tracker()
    await lab.proxy()
    hosts = [await lab.peer("a"), await lab.peer("b")]
    pulls = [asyncio.create_task(pull(client, url_of(h.mirror))) for h in hosts]  # noqa: TID251
    first, second = hosts
    digest = image.layer_digests[0]
    await until(lambda: asked_link(first, second, digest) is not None)
    link = asked_link(first, second, digest)
    assert link is not None
    dialling, dialled = (first, second) if link.dialled else (second, first)

    await dialling.running.transport.dial(dialled.running.exchange_address, timeout_s=5)

    await until(lambda: asked_link(first, second, digest) not in (None, link))
    await until(lambda: asked_link(second, first, digest) is not None)
    assert link.closed
    await asyncio.gather(*pulls)
    assert all(h.running.node.counters.fallbacks == {} for h in hosts)


def asked_link(host: RunningPeer, other: RunningPeer, digest: Digest) -> Link | None:
    """The live link on which `host` asks `other` for a blob."""
    link = host.running.node.neighbourhood.links.get(other.running.me().host_id)
    active = host.running.node.actives.get(digest)
    asks = link is not None and active is not None and active.asks(link)
    return link if asks else None
