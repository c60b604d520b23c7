"""Lies of peers and of the registry: nothing wrong is stored, offered or delivered."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

from p2pdist.exchange.frames import MapRecord
from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, MapId, digest_of
from p2pdist.model.statements import HashBatch, MapHead, Revocation, Seal, Signer
from p2pdist.peer.daemon import RunningPeer
from p2pdist.process.clock import unix_s
from p2pdist.process.identity import read_secret
from p2pdist.registry_proxy.authority import ProxyAuthority
from p2pdist.swarm.core.trust import BAN_MAX_S
from tests.fakes.asker import asker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.evil import EvilPeer, evil_peer
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, Fault

MIB = 1 << 20
LAYER = random_bytes(12 * MIB, 7)
DIGEST = digest_of(LAYER)


def attack(
    lab: Lab, peer: RunningPeer, digest: Digest = DIGEST
) -> AbstractAsyncContextManager[EvilPeer]:
    secret = read_secret(lab.keys.secret_file)
    keyring = peer.running.node.keyring
    return evil_peer(peer.running.exchange_address, secret, keyring, digest)


async def swarm(lab: Lab) -> RunningPeer:
    await lab.tracker()
    await lab.proxy()
    return await lab.peer("victim")


def stored_right(peer: RunningPeer, layer: bytes = LAYER) -> bool:
    blob = peer.running.store.get(digest_of(layer))
    return blob is not None and blob.complete


def forged_map(signer: Signer, digest: Digest, size: int) -> list[bytes]:
    """A whole, sealed map of bytes that are all zero, signed by `signer`."""
    geometry = geometry_for(size)
    head = MapHead(digest, MapId(b"f" * 16), size, geometry.chunk_size_bytes, int(unix_s()))
    forged = ChunkMap(head, signer.sign(head))
    for chunk in geometry.indexes():
        batch = HashBatch(head.map_id, chunk, chunk_hash(bytes(geometry.length(chunk))))
        forged.apply(batch, signer.sign(batch))
    seal = Seal(digest, head.map_id, geometry.chunk_count, forged.root())
    return [*forged.records, signer.sign(seal)]


async def test_a_peer_with_wrong_bytes_is_banned_and_the_pull_succeeds(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    peer = await swarm(lab)
    async with attack(lab, peer) as evil:
        bodies = await pull(client, url_of(peer.mirror))
        async with asyncio.timeout(10):
            await evil.down.wait()

    node = peer.running.node
    assert bodies[DIGEST] == LAYER
    assert evil.chunks_sent > 0
    assert 1 <= node.counters.rejected["hash"] <= 3
    assert node.core.trust.bans_total == 1
    assert stored_right(peer)


async def test_a_banned_peer_is_not_let_in_again(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("p2pdist.swarm.core.trust.BAN_FIRST_S", BAN_MAX_S)
    registry.add_image("library/app", "1", [LAYER])
    peer = await swarm(lab)
    async with attack(lab, peer) as evil:
        await pull(client, url_of(peer.mirror))
        async with asyncio.timeout(10):
            await evil.down.wait()

    async with attack(lab, peer) as again, asyncio.timeout(10):
        await again.down.wait()

    assert again.records == []


async def test_a_forged_map_is_refused_and_its_sender_banned(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    peer = await swarm(lab)
    async with attack(lab, peer) as evil:
        await say(evil, forged_map(Signer.generate(), DIGEST, len(LAYER)))
        async with asyncio.timeout(10):
            await evil.down.wait()
        bodies = await pull(client, url_of(peer.mirror))

    assert bodies[DIGEST] == LAYER
    assert peer.running.node.counters.rejected["map"] >= 1
    assert peer.running.node.core.trust.bans_total == 1
    assert stored_right(peer)


async def test_another_blobs_map_changes_nothing(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """A true map of one blob, sent where another one is being fetched."""
    other = random_bytes(4 * MIB, 8)
    registry.add_image("library/app", "1", [LAYER])
    registry.add_image("library/app", "other", [other])
    peer = await swarm(lab)
    await pull(client, url_of(peer.mirror), "other")
    stored = peer.running.store.get(digest_of(other))
    assert stored is not None
    async with attack(lab, peer) as evil:
        await say(evil, stored.chunk_map.records)
        bodies = await pull(client, url_of(peer.mirror))

    assert bodies[DIGEST] == LAYER
    assert stored_right(peer)
    assert stored_right(peer, other)


@pytest.mark.parametrize("corrupt_at", [0, 6 * MIB, len(LAYER) - 1])
async def test_a_lying_registry_ends_in_a_short_body_and_a_revoked_map(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, corrupt_at: int
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    registry.faults[image.layer_digests[0]] = Fault(corrupt_at=corrupt_at)
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("victim")

    with pytest.raises(aiohttp.ClientError):
        await pull(client, url_of(peer.mirror))

    await wait_revoked(peer)
    for running in (proxy.running, peer.running):
        async with asyncio.timeout(10):  # the revocation is on disk before the blob is gone
            while running.store.get(DIGEST) is not None:  # noqa: ASYNC110  # no event for it
                await asyncio.sleep(0.01)
        assert len(running.store.revocations()) == 1


async def test_hosts_that_wait_do_not_make_a_lying_registry_be_read_again_and_again(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Who waits says so twice a second; a proxy used to read all of it each time."""
    image = registry.add_image("library/app", "1", [LAYER])
    registry.faults[DIGEST] = Fault(corrupt_at=5)
    proxy = await lab.proxy()
    url = f"{url_of(proxy.registry)}/v2/library/app/manifests/1"
    async with client.get(url, raise_for_status=True):
        pass
    secret = read_secret(lab.keys.secret_file)
    async with asker(proxy.running.exchange_address, secret) as waiting:
        await waiting.say_interest(DIGEST)
        authority = proxy.running.node.authority
        assert isinstance(authority, ProxyAuthority)
        async with asyncio.timeout(10):
            while not proxy.running.store.revocations() or authority.obtaining.runs(DIGEST):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for _ in range(20):
            await waiting.say_interest(DIGEST)

        assert not authority.obtaining.runs(DIGEST)
    assert registry.count("GET", f"/blobs/{image.layer_digests[0]}") == 1


async def test_a_replayed_revoked_map_is_not_taken_up(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    registry.faults[image.layer_digests[0]] = Fault(corrupt_at=5)
    peer = await swarm(lab)
    async with attack(lab, peer) as evil:
        with pytest.raises(aiohttp.ClientError):
            await pull(client, url_of(peer.mirror))
        await wait_revoked(peer)
        replayed = list(evil.records)
        registry.faults.clear()
        void = revoked_ids(peer)
    assert any(isinstance(peer.running.node.keyring.open(r), MapHead) for r in replayed)

    async with attack(lab, peer) as evil:
        await say(evil, replayed)
        body = await read_blob(client, url_of(peer.mirror), DIGEST)

    stored = peer.running.store.get(DIGEST)
    assert body == LAYER
    assert stored is not None
    assert stored.chunk_map.map_id not in void


async def say(evil: EvilPeer, records: list[bytes]) -> None:
    await evil.linked.wait()
    assert evil.link is not None
    for record in records:
        evil.link.send(MapRecord(record))


def revoked_ids(peer: RunningPeer) -> set[MapId]:
    opened = map(peer.running.node.keyring.open, peer.running.store.revocations())
    return {said.map_id for said in opened if isinstance(said, Revocation)}


async def wait_revoked(peer: RunningPeer) -> None:
    async with asyncio.timeout(10):
        while not peer.running.store.revocations():  # noqa: ASYNC110  # the store has no event
            await asyncio.sleep(0.01)
