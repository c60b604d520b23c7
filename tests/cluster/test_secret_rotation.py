"""The drill by which a cluster gets another secret: real daemons, each with a file of its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from p2pdist.exchange.link import Link
from p2pdist.exchange.transport import ExchangeTransport
from p2pdist.model.ids import digest_of
from p2pdist.peer.daemon import RunningPeer
from p2pdist.process import watched_file
from p2pdist.process.keys import Step, rotate_secret
from p2pdist.process.secret_holder import SecretHolder
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.tracker.servers import wait_until

LAYER_BYTES = 700_000
LAYERS = [random_bytes(LAYER_BYTES, number) for number in range(12)]


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        for number, layer in enumerate(LAYERS):
            found.add_image("library/app", str(number), [layer])
        yield found


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_file, "LOOK_EVERY_S", 0.02)


def own_file(lab: Lab, name: str) -> Path:
    """Of the daemons that are started from now on."""
    path = lab.directory / f"{name}.secret"
    shutil.copy2(lab.keys.secret_file, path)
    lab.keys = replace(lab.keys, secret_file=path)
    return path


async def test_a_cluster_gets_another_secret_under_pulls(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """One host after the other takes each step, and both peers pull an image while it does."""
    master = lab.keys.secret_file
    files = [own_file(lab, "tracker")]
    tracker = await lab.tracker()
    files.append(own_file(lab, "proxy"))
    proxy = await lab.proxy()
    files.append(own_file(lab, "one"))
    one = await lab.peer("one")
    files.append(own_file(lab, "two"))
    two = await lab.peer("two")
    nodes = [each.running for each in (proxy, one, two)]
    holders = [tracker.secret, *(node.secret for node in nodes)]
    tags = count()

    async def taken(path: Path, holder: SecretHolder) -> None:
        before = holder.taken_total
        await asyncio.to_thread(shutil.copyfile, master, path)
        await wait_until(lambda: holder.taken_total > before)

    async def pulled(peer: RunningPeer, tag: str) -> None:
        await pull(client, url_of(peer.mirror), tag=tag)

    async def step(which: Step) -> None:
        await asyncio.to_thread(rotate_secret, master, which)
        for path, holder in zip(files, holders, strict=True):
            tag = str(next(tags))
            await asyncio.gather(taken(path, holder), pulled(one, tag), pulled(two, tag))

    await wait_until(lambda: all(node.tracker.connected for node in nodes))
    await step(Step.ADD)
    first = [links_of(node.transport) for node in nodes]
    await step(Step.SWAP)
    assert all(first)
    assert all(links_of(n.transport) >= was for n, was in zip(nodes, first, strict=True))
    assert tracker.server.core.counters.connections_total == len(nodes)
    (old,) = {holder.believed().marks[1] for holder in holders}

    assert [node.node.counters.fallbacks.total() for node in nodes] == [0, 0, 0]
    assert [node.node.health.names() for node in nodes] == [[], [], []]

    await step(Step.DROP)

    assert len({holder.believed() for holder in holders}) == 1
    await wait_until(lambda: all(node.tracker.connected for node in nodes))
    assert not any(link.session.mark == old for n in nodes for link in links_of(n.transport))
    assert next(tags) == len(LAYERS)
    assert {registry.payload_bytes[digest_of(layer)] for layer in LAYERS} == {LAYER_BYTES}
    for node in nodes:  # what a host wanted in the moment of a cut, its proxy gave without a link
        assert set(node.node.counters.fallbacks) <= {"proxy"}
        assert set(node.node.health.names()) <= {"fallback_used"}
    assert tracker.server.core.counters.strangers_total == 0


def links_of(transport: ExchangeTransport) -> set[Link]:
    return {link for link in transport._all if not link.closed}
