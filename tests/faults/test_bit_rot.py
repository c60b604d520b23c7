"""Rows 8 and 9: stored bytes that changed on disk go to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import aiohttp
import pytest

from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import digest_of
from p2pdist.peer.daemon import RunningPeer
from p2pdist.swarm.scrubbing import scrub_blob
from p2pdist.tracker.daemon import RunningTracker
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.reading import check_stores, read_in_one_get
from tests.faults.records import recorded

MIB = 1 << 20
LAYER = random_bytes(30 * MIB, 88)
DIGEST = digest_of(LAYER)
CHUNK = geometry_for(len(LAYER)).chunk_size_bytes
FLIPS = 100


def data_file(lab: Lab, name: str) -> Path:
    return (
        lab.directory
        / name
        / "peer"
        / "store"
        / "blobs"
        / "sha256"
        / DIGEST[7:9]
        / DIGEST[7:]
        / "data"
    )


def flip_bits(path: Path, count: int = FLIPS) -> None:
    """One bit in each of `count` chunks."""
    rng = Random(5)
    with path.open("r+b") as file:
        for chunk in rng.sample(range(len(LAYER) // CHUNK), count):
            at = chunk * CHUNK + rng.randrange(CHUNK)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ (1 << rng.randrange(8))]))


async def stored(registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession) -> RunningTracker:
    """A peer `a` that has pulled the layer and ended; the tracker that is returned and a proxy
    run."""
    registry.add_image("library/app", "1", [LAYER])
    tracker = await lab.tracker()
    await lab.proxy()
    async with lab.peer_context("a") as peer:
        await pull(client, url_of(peer.mirror))
    return tracker


DAMAGES: dict[str, tuple[int, Callable[[Path], None]]] = {
    "100 flipped bits": (8, flip_bits),
    "truncated to a half": (9, lambda path: _resize(path, len(LAYER) // 2)),
    "zero length": (9, lambda path: _resize(path, 0)),
    "extended": (9, lambda path: _resize(path, len(LAYER) + 4096)),
}


def _resize(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_local_runtime_gets_right_bytes_in_one_response(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, damage: str
) -> None:
    row, spoil = DAMAGES[damage]
    await stored(registry, lab, client)
    spoil(data_file(lab, "a"))
    upstream_before = registry.payload_bytes[DIGEST]
    with recorded(row, "cached file changed on disk", f"{damage}, read by the runtime") as record:
        peer = await lab.peer("a")

        reading = await read_in_one_get(client, url_of(peer.mirror), DIGEST)

        rotten = peer.running.node.counters.rejected["rot"]
        again = sum(peer.running.node.counters.received.values())
        assert reading.body == LAYER
        reading.held_to(record)
        assert registry.payload_bytes[DIGEST] == upstream_before  # the proxy has it
        assert again <= (FLIPS * CHUNK if row == 8 else len(LAYER)) + MIB
        if row == 8:
            assert rotten == FLIPS
        await settled(peer)
        record.bytes = {"fetched again": again}
        record.retries = rotten
        record.outcome = (
            f"{rotten} chunks found on first serve and fetched anew, 0 bad bytes sent; "
            f"longest silence {reading.longest_gap_s:.2f} s"
        )
        check_stores(lab)
        record.invariants = ["I1", "I2", "I3", "I4", "I5"]


async def test_a_neighbour_gets_no_rotten_chunk_and_bans_nobody(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    lab.proxy_upload_rate = len(LAYER) // 2
    tracker = await stored(registry, lab, client)
    flip_bits(data_file(lab, "a"), 10)  # with 100 of 120 hardly a run of four would be left
    with recorded(8, "cached file changed on disk", "10 flips, read by a neighbour") as record:
        rotten = await lab.peer("a")
        await announced(tracker, rotten)
        reader = await lab.peer("b")

        reading = await read_in_one_get(client, url_of(reader.mirror), DIGEST)

        counters = reader.running.node.counters
        assert reading.body == LAYER
        assert counters.rejected["hash"] == 0
        assert reader.running.node.core.trust.bans_total == 0
        assert counters.received["dc"] > 0
        check_stores(lab, ("proxy",))
        found = rotten.running.node.counters.rejected["rot"]
        record.bytes = {source: n for source, n in counters.received.items() if n}
        record.outcome = f"{found} rotten chunks refused before they were sent; nobody banned"
        record.invariants = ["I1", "I2", "I4"]


async def test_a_scrub_finds_all_and_they_come_anew(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    await stored(registry, lab, client)
    with recorded(8, "cached file changed on disk", "found by the scrub") as record:
        peer = await lab.peer("a")
        await read_in_one_get(client, url_of(peer.mirror), DIGEST)  # hashed once in this process
        flip_bits(data_file(lab, "a"))
        blob = peer.running.store.get(DIGEST)
        assert blob is not None

        await scrub_blob(peer.running.node, blob, 1e12)
        found = peer.running.node.counters.rejected["rot"]
        reading = await read_in_one_get(client, url_of(peer.mirror), DIGEST)

        assert found == FLIPS
        assert reading.body == LAYER
        record.outcome = f"all {found} found, fetched anew with the next read"
        record.retries = found
        await settled(peer)
        check_stores(lab)
        record.invariants = ["I1", "I2", "I4"]


async def settled(peer: RunningPeer) -> None:
    """The blob is whole again on disk."""
    async with asyncio.timeout(10):
        while (blob := peer.running.store.get(DIGEST)) is None or not blob.complete:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
