"""Row 60: more blobs are stored than files may be open, at a proxy, a peer and their neighbour."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import random_bytes, read_blob
from tests.fakes.registry import FakeRegistry
from tests.faults.reading import check_stores
from tests.faults.records import recorded

OPEN_MAX = 6
LAYERS = [random_bytes(600_000 + number, 300 + number) for number in range(48)]
DIGESTS = [digest_of(layer) for layer in LAYERS]


async def test_row_60_more_blobs_than_files_may_be_open(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("p2pdist.store.disk.open_files_allowed", lambda: OPEN_MAX)
    registry.add_image("library/app", "1", LAYERS)
    await lab.tracker()
    proxy = await lab.proxy()
    with recorded(60, "more blobs than files may be open", f"{len(LAYERS)} blobs") as record:
        async with lab.peer_context("again") as peer:
            await _read_all(client, url_of(peer.mirror))
        async with lab.peer_context("again") as peer:  # a start with all of them on the disk
            neighbour = await lab.peer("b")
            await _read_all(client, url_of(neighbour.mirror))
            await _read_all(client, url_of(peer.mirror))

            nodes = [proxy.running, peer.running, neighbour.running]
            stored = [node.store.usage().blobs for node in nodes]
            assert stored == [len(LAYERS)] * 3
            async with asyncio.timeout(10):  # the last syncs
                while max(node.store.usage().open_files for node in nodes) > OPEN_MAX:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert not any(node.node.counters.fallbacks for node in nodes)
            assert sum(registry.payload_bytes[digest] for digest in DIGESTS) == sum(
                map(len, LAYERS)
            )
            record.outcome = f"all bodies right, each read once; {OPEN_MAX} files stay open"
        check_stores(lab)
        record.invariants = ["I1", "I2", "I5"]


async def _read_all(client: aiohttp.ClientSession, base: str) -> None:
    async with client.get(f"{base}/v2/library/app/manifests/1", raise_for_status=True) as got:
        await got.read()
    for at in range(0, len(LAYERS), 8):
        digests = DIGESTS[at : at + 8]
        bodies = await asyncio.gather(*(read_blob(client, base, digest) for digest in digests))
        assert bodies == LAYERS[at : at + 8]
