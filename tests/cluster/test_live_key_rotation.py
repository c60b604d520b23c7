"""The drill by which proxies get another signing key, without a restart: real daemons, each with
files of its own."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from p2pdist.model.health import Reason
from p2pdist.model.ids import Digest, digest_of
from p2pdist.model.statements import key_id
from p2pdist.peer.daemon import RunningPeer
from p2pdist.process import watched_file
from p2pdist.process.keys import make_keys
from p2pdist.process.proxy_key_holder import ProxyKeyHolder
from p2pdist.registry_proxy.daemon import RunningProxy
from p2pdist.tracker.daemon import RunningTracker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_faults import Fault
from tests.tracker.servers import wait_until

LAYER_BYTES = 700_000
LAYERS = [random_bytes(LAYER_BYTES, number) for number in range(10)]


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        for number, layer in enumerate(LAYERS):
            found.add_image("library/app", str(number), [layer])
        yield found


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_file, "LOOK_EVERY_S", 0.02)


class Cluster:
    """A tracker, a proxy and two peers, each with a keys file; and two pairs of keys."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.fresh = make_keys(lab.directory / "other-keys")
        self.old, self.new = lab.keys.public_key, self.fresh.public_key
        self.key_file = lab.directory / "the-proxys.key"
        self.files: list[Path] = []
        self.tracker: RunningTracker
        self.proxy: RunningProxy
        self.peers: list[RunningPeer] = []

    def _own_file(self, name: str, *keys: str) -> None:
        path = self.lab.directory / f"{name}.pub"
        put(path, *(keys or (self.old,)))
        self.files.append(path)
        self.lab.proxy_keys_file = path

    async def start(self) -> None:
        shutil.copy2(self.lab.keys.key_file, self.key_file)
        self.lab.keys = replace(self.lab.keys, key_file=self.key_file)
        self._own_file("tracker")
        self.tracker = await self.lab.tracker()
        self._own_file("proxy")
        self.proxy = await self.lab.proxy()
        for name in ("one", "two"):
            await self.add_peer(name)

    async def add_peer(self, name: str, *keys: str) -> RunningPeer:
        self._own_file(name, *keys)
        self.peers.append(await self.lab.peer(name))
        return self.peers[-1]

    @property
    def nodes(self) -> list[RunningProxy | RunningPeer]:
        return [self.proxy, *self.peers]

    @property
    def holders(self) -> list[ProxyKeyHolder]:
        return [
            self.tracker.server._proxy_keys,
            *(each.running.proxy_keys for each in self.nodes),
        ]

    async def believe(self, *keys: str) -> AsyncIterator[None]:
        """Put these into all files, one after the other, and wait for each to be taken up."""
        for path, holder in zip(self.files, self.holders, strict=True):
            await self._believe(path, holder, *keys)
            yield

    async def _believe(self, path: Path, holder: ProxyKeyHolder, *keys: str) -> None:
        before = holder.taken_total
        put(path, *keys)
        await wait_until(lambda: holder.taken_total > before)

    async def turn_key(self) -> None:
        await asyncio.to_thread(replaced, self.fresh.key_file, self.key_file)

    def signs_with(self) -> str:
        return self.proxy.signing.id


def put(path: Path, *keys: str) -> None:
    """As tools do it: another file in its place."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text("".join(f"{key}\n" for key in keys))
    fresh.chmod(0o644)
    fresh.replace(path)


def replaced(source: Path, path: Path) -> None:
    fresh = path.with_suffix(".fresh")
    shutil.copy2(source, fresh)
    fresh.replace(path)


@pytest.fixture
async def cluster(lab: Lab) -> Cluster:
    cluster = Cluster(lab)
    await cluster.start()
    return cluster


async def test_proxies_get_another_key_under_pulls(
    registry: FakeRegistry, cluster: Cluster, client: aiohttp.ClientSession
) -> None:
    tags = count()

    async def pulled(tag: int) -> None:
        await asyncio.gather(*(pull(client, url_of(p.mirror), tag=str(tag)) for p in cluster.peers))

    async def beside(steps: AsyncIterator[None]) -> None:
        """An image at each step, and one that lies here already."""
        async for _ in steps:
            tag = next(tags)
            await asyncio.gather(pulled(tag), pulled(tag // 2))

    await wait_until(lambda: all(node.running.tracker.connected for node in cluster.nodes))
    await beside(cluster.believe(cluster.old, cluster.new))
    before = cluster.signs_with()
    await asyncio.gather(cluster.turn_key(), pulled(next(tags)))
    await wait_until(lambda: cluster.signs_with() != before)
    await pulled(next(tags))
    assert [node.running.node.counters.fallbacks.total() for node in cluster.nodes] == [0, 0, 0]

    await beside(cluster.believe(cluster.new))

    assert next(tags) == len(LAYERS)
    for tag in range(len(LAYERS)):
        await pulled(tag)
    late = await cluster.add_peer("three", cluster.new)
    for tag in range(len(LAYERS)):
        await pull(client, url_of(late.mirror), tag=str(tag))

    assert {registry.payload_bytes[digest_of(layer)] for layer in LAYERS} == {LAYER_BYTES}
    for node in cluster.nodes:
        assert set(node.running.node.counters.fallbacks) <= {"proxy"}
        assert node.running.node.core.trust.bans_total == 0
        assert set(node.running.node.health.names()) <= {"fallback_used"}
        for layer in LAYERS:
            blob = node.running.store.get(digest_of(layer))
            assert blob is not None
            assert blob.chunk_map.signed_by(node.running.node.keyring.knows)
    for node in cluster.nodes[1:-1]:  # what lay there was hashed, and came from nowhere
        received = node.running.node.counters.received.total()
        assert received < len(LAYERS) * LAYER_BYTES * 1.2


async def test_a_key_that_nobody_believes_yet_waits_until_it_is(
    registry: FakeRegistry, cluster: Cluster, client: aiohttp.ClientSession
) -> None:
    health = cluster.proxy.running.node.health
    before = cluster.signs_with()

    await cluster.turn_key()
    await wait_until(lambda: health.conditions().get(Reason.SIGNING_KEY_UNREAD) is not None)
    await pull(client, url_of(cluster.peers[0].mirror), tag="0")
    assert cluster.signs_with() == before
    assert cluster.new in health.conditions()[Reason.SIGNING_KEY_UNREAD]

    async for _ in cluster.believe(cluster.old, cluster.new):
        pass
    await wait_until(lambda: cluster.signs_with() != before)
    assert Reason.SIGNING_KEY_UNREAD not in health.conditions()


async def test_a_peer_that_lacked_the_key_is_well_as_soon_as_it_has_it(
    registry: FakeRegistry, cluster: Cluster, client: aiohttp.ClientSession
) -> None:
    late = await cluster.add_peer("three", cluster.new)
    health = late.running.node.health
    await wait_until(lambda: health.names() == ["wrong_proxy_key"])

    put(cluster.files[-1], cluster.new, cluster.old)

    await wait_until(lambda: not health.names())
    await pull(client, url_of(late.mirror), tag="0")


async def test_what_is_on_its_way_while_its_key_is_dropped_comes_to_its_end(
    registry: FakeRegistry, cluster: Cluster, client: aiohttp.ClientSession
) -> None:
    """It is signed with the old key to its end, and with the new one afterwards."""
    large = random_bytes((9 << 20) + 5, 77)
    registry.add_image("library/app", "large", [large])
    digest = digest_of(large)
    registry.faults[digest] = Fault(stall_after=len(large) // 2)
    loop = asyncio.get_running_loop()
    before = cluster.signs_with()
    reading = [
        loop.create_task(pull(client, url_of(peer.mirror), tag="large")) for peer in cluster.peers
    ]
    await registry.stalled.wait()
    async for _ in cluster.believe(cluster.old, cluster.new):
        pass
    await cluster.turn_key()
    await wait_until(lambda: cluster.signs_with() != before)

    async for _ in cluster.believe(cluster.new):
        pass
    registry.release()

    for bodies in await asyncio.gather(*reading):
        assert bodies[digest] == large
    await wait_until(
        lambda: not any(held_under(node, cluster.old, digest) for node in cluster.nodes)
    )
    late = await cluster.add_peer("three", cluster.new)
    assert (await pull(client, url_of(late.mirror), tag="large"))[digest] == large
    assert registry.payload_bytes[digest] == len(large)
    assert not held_under(late, cluster.old, digest)
    assert [node.running.node.core.trust.bans_total for node in cluster.nodes] == [0] * 4


async def test_who_reads_from_a_proxy_that_drops_a_key_goes_on_under_the_new_one(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    large = random_bytes((9 << 20) + 5, 78)
    registry.add_image("library/app", "large", [large])
    digest = digest_of(large)
    lab.proxy_upload_rate = 4_000_000
    cluster = Cluster(lab)
    await cluster.start()
    await pull(client, url_of(cluster.proxy.registry), tag="large")
    async for _ in cluster.believe(cluster.old, cluster.new):
        pass
    before = cluster.signs_with()
    await cluster.turn_key()
    await wait_until(lambda: cluster.signs_with() != before)
    one = cluster.peers[0]
    loop = asyncio.get_running_loop()
    reading = loop.create_task(pull(client, url_of(one.mirror), tag="large"))
    await wait_until(lambda: (b := one.running.store.get(digest)) is not None and bool(b.verified))
    assert held_under(one, cluster.old, digest)

    async for _ in cluster.believe(cluster.new):
        pass

    assert (await reading)[digest] == large
    assert registry.payload_bytes[digest] == len(large)
    await wait_until(lambda: held_under(one, cluster.new, digest))
    assert one.running.node.core.trust.bans_total == 0
    assert one.running.node.counters.received.total() < len(large) * 1.5


def held_under(node: RunningProxy | RunningPeer, public_key: str, digest: Digest) -> bool:
    """It lies there as `public_key` signed it."""
    blob = node.running.store.get(digest)
    signer = key_id(base64.b64decode(public_key))
    return blob is not None and blob.chunk_map.signed_by(lambda by: by == signer)
