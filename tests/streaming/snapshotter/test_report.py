"""What a snapshotter tells of itself at its admin port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from p2pdist.model.health import RULES, Reason
from p2pdist.model.ids import digest_of
from p2pdist.model.members import Address
from p2pdist.oci.layered_image import layered_image
from p2pdist.oci.names import ImageName
from p2pdist.settings import Host, Settings
from p2pdist.settings import Snapshotter as SnapshotterSection
from p2pdist.streaming.core.index import encode_index
from p2pdist.streaming.core.policy import Why
from p2pdist.streaming.read_counts import Outcome, ReadCounts, counts_in
from p2pdist.streaming.snapshotter import daemon, report
from p2pdist.streaming.snapshotter.daemon import running_snapshotter
from p2pdist.streaming.snapshotter.inventory import Inventory
from p2pdist.streaming.snapshotter.layer_files import FILES, write_layer
from p2pdist.streaming.snapshotter.opened import OpenedLayer
from tests.fakes.cluster import url_of
from tests.fakes.layers_mount import Mounted
from tests.streaming.archives import archive, file, gzipped, index_of

PLAIN = archive(file("f", b"content"))
BLOB = gzipped(PLAIN)
IMAGE = layered_image(
    ImageName("docker.io", "library/app"), [(digest_of(BLOB), len(BLOB))], [digest_of(PLAIN)]
)


@dataclass
class Told:
    counts: ReadCounts
    layers: Path
    scratch: Path
    get: Callable[[str], Awaitable[Any]]

    def show(self, number: int) -> None:
        index = self.scratch / f"{number}.index"
        index.write_bytes(encode_index(index_of(BLOB)))
        opened = OpenedLayer(IMAGE.name, IMAGE.layers[0], index, None, len(PLAIN))
        write_layer(self.layers, number, opened, [])

    async def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """What is told, once it is so."""
        async with asyncio.timeout(20):
            while not holds(told := await self.get(path)):  # noqa: ASYNC110  # told over HTTP
                await asyncio.sleep(0.01)
        return told


@pytest.fixture
async def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Told]:
    section = SnapshotterSection(
        socket=tmp_path / "s.sock",
        mirror="http://127.0.0.1:1",
        admin_listen=Address("127.0.0.1", 0),
        fill=False,
        unpack=False,
    )
    host = Host(state_dir=tmp_path / "state", dc="ams", rack="r7", name="web-17")
    monkeypatch.setattr(daemon, "LayersMount", Mounted)
    monkeypatch.setattr(Mounted, "broken", False)
    monkeypatch.setattr(report, "LOOK_S", 0.01)
    monkeypatch.setattr(daemon, "Inventory", partial(Inventory, look_s=0.01))
    monkeypatch.setattr("p2pdist.process.admin.METRICS_CACHE_S", 0.0)
    settings = replace(Settings(), host=host, snapshotter=section)
    async with running_snapshotter(settings) as running, aiohttp.ClientSession() as client:

        async def get(path: str) -> Any:
            async with client.get(f"{url_of(running.admin)}{path}") as answer:
                return await (answer.text() if path == "/metrics" else answer.json())

        root = host.state_dir / "snapshotter"
        yield Told(counts_in(root), root / "layers", tmp_path, get)


async def test_the_status_says_what_is_shown_and_what_was_read_of_it(told: Told) -> None:
    told.show(1)
    told.show(2)
    (told.layers / "2" / FILES).mkdir()
    told.counts.read(700, Outcome.WAITED)
    told.counts.fetched(Why.AHEAD, 300)

    status = await told.until(
        "/api/v1/status",
        lambda now: now["layers"]["files"] == 1 and now["reads"]["bytes"] == 700,
    )

    size = len(BLOB)
    assert (status["role"], status["host_id"], status["dc"]) == ("snapshotter", "web-17", "ams")
    assert status["layer_bytes"] == {"elsewhere": size, "here": 0, "files": size}
    assert status["images"] == [
        {
            "image": "docker.io/library/app",
            "layers": 2,
            "size_bytes": 2 * size,
            "here_bytes": size,
        }
    ]
    assert status["reads"]["waited"] == 1
    assert status["reads"]["fetched_bytes"] == {"demand": 0, "ahead": 300, "expected": 0}
    assert status["degraded"] == []


async def test_the_metrics_say_the_same(told: Told) -> None:
    told.show(1)
    told.counts.read(700, Outcome.FAILED)
    with told.counts.waiting():
        wanted = 'p2pdist_lazy_layers{where="elsewhere"} 1.0'
        text = await told.until(
            "/metrics", lambda now: wanted in now and "p2pdist_lazy_reads_waiting 1.0" in now
        )
    lines = text.splitlines()
    assert 'p2pdist_lazy_reads_total{outcome="failed"} 1.0' in lines
    assert "p2pdist_lazy_read_bytes_total 700.0" in lines
    assert 'p2pdist_node_info{dc="ams",rack="r7",role="snapshotter"} 1.0' in lines
    ended = 'p2pdist_lazy_wait_seconds_bucket{le="+Inf"} 1.0'
    await told.until("/metrics", lambda now: ended in now)


async def test_containers_that_stand_still_are_told_of(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "WAIT_LONG_S", 0.05)
    with told.counts.waiting():
        async with asyncio.timeout(20):
            while told.counts.reads().oldest_s < 0.05:
                await asyncio.sleep(0.01)
                told.counts.age()
        ready = await told.until("/readyz", lambda now: now["degraded"])
        assert ready["degraded"] == [Reason.READS_WAIT]
        assert ready["ready"], "it stays in service: engines need it"
    told.counts.age()
    await told.until("/readyz", lambda now: not now["degraded"])


async def test_a_mount_that_ended_is_told_of(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = replace(RULES[Reason.LAYERS_UNSHOWN], begin_s=0.0)
    monkeypatch.setitem(RULES, Reason.LAYERS_UNSHOWN, rule)
    monkeypatch.setattr(Mounted, "broken", True)
    await told.until("/readyz", lambda now: now["degraded"] == [Reason.LAYERS_UNSHOWN])

    monkeypatch.setattr(Mounted, "broken", False)
    await told.until("/readyz", lambda now: not now["degraded"])


async def test_a_mount_that_hangs_is_one_that_ended(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def hang(self: Mounted) -> bool:
        return go_on.wait(20)

    rule = replace(RULES[Reason.LAYERS_UNSHOWN], begin_s=0.0)
    monkeypatch.setitem(RULES, Reason.LAYERS_UNSHOWN, rule)
    monkeypatch.setattr(report, "MOUNT_SILENT_S", 0.05)
    monkeypatch.setattr(Mounted, "answers", hang)
    try:
        await told.until("/readyz", lambda now: now["degraded"] == [Reason.LAYERS_UNSHOWN])
    finally:
        go_on.set()
    await told.until("/readyz", lambda now: not now["degraded"])
