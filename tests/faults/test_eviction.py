"""Row 41: eviction races a reader, a neighbour and the next pull of one blob."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import aiohttp

from p2pdist.model.control import digest_key
from p2pdist.model.ids import Digest, HostId, digest_of
from p2pdist.peer.daemon import running_peer
from p2pdist.settings import StoreSection
from p2pdist.tracker.daemon import RunningTracker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import random_bytes, read_blob
from tests.fakes.registry import FakeRegistry
from tests.faults.reading import check_stores, read_in_one_get
from tests.faults.records import recorded

MIB = 1 << 20
LAYERS = [random_bytes(6 * MIB, 120 + number) for number in range(5)]
DIGESTS = [digest_of(layer) for layer in LAYERS]


async def test_row_41_open_readers_finish_and_nothing_promised_is_refused(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Room for two layers of five, read again and again by slow and quick clients."""
    registry.add_image("library/app", "1", LAYERS)
    tracker = await lab.tracker()
    await lab.proxy()
    settings = lab.settings("small")
    small = replace(settings, store=StoreSection(max_bytes=14 * MIB))
    peer = await lab.stack.enter_async_context(running_peer(small))
    neighbour = await lab.peer("b")
    for base in (url_of(peer.mirror), url_of(neighbour.mirror)):
        async with client.get(f"{base}/v2/library/app/manifests/1", raise_for_status=True) as got:
            await got.read()

    with recorded(41, "eviction races readers", "5 layers in room for 2") as record:
        slow_url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{DIGESTS[0]}"
        async with client.get(slow_url, raise_for_status=True) as slow:
            begun = await slow.content.readexactly(64 * 1024)
            for digest, layer in zip(DIGESTS, LAYERS, strict=True):
                readings = await asyncio.gather(
                    read_in_one_get(client, url_of(peer.mirror), digest),
                    read_in_one_get(client, url_of(peer.mirror), digest),
                    read_in_one_get(client, url_of(neighbour.mirror), digest),
                )
                assert all(reading.body == layer for reading in readings)
            rest = await slow.read()

        again = await asyncio.gather(
            *(read_blob(client, url_of(peer.mirror), digest) for digest in DIGESTS)
        )
        assert begun + rest == LAYERS[0]
        assert again == LAYERS
        assert sum(registry.payload_bytes[digest] for digest in DIGESTS) <= 1.05 * sum(
            map(len, LAYERS)
        )
        store = peer.running.store
        kept = [digest for digest in DIGESTS if store.get(digest) is not None]
        host = peer.running.me().host_id
        async with asyncio.timeout(10):  # what was evicted is offered no more
            while any(  # noqa: ASYNC110
                digest not in kept and _offered(tracker, digest, host) for digest in DIGESTS
            ):
                await asyncio.sleep(0.05)
        check_stores(lab)
        evicted = store.usage().evicted_bytes_total
        assert evicted > 0, "nothing was evicted: there was no race"
        unstored = sum(peer.running.node.counters.fallbacks.values())
        record.bytes = {"evicted": evicted, "passed through unstored": unstored}
        record.outcome = f"all 21 bodies right, no 404; {len(kept)} layers kept"
        record.invariants = ["I1", "I2", "I4", "I5"]


def _offered(tracker: RunningTracker, digest: Digest, host: HostId) -> bool:
    record = tracker.server.core.export(host)
    key = digest_key(digest)
    return record is not None and any(delta.key == key for delta in record.deltas)
