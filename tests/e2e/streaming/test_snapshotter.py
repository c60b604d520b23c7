"""containerd with the snapshotter: containers run, and their layers are still at the registry."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness.cri import CriContainerd
from tests.e2e.harness.places import Place
from tests.e2e.harness.processes import LabError
from tests.e2e.streaming.world import (
    BIG,
    GREETING,
    IMAGE,
    LAYERS,
    NOISE,
    NOTHING_BEHIND,
    World,
    engines_root,
    open_world,
    until,
)
from tests.faults.records import recorded
from tests.streaming.archives import digest, text

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

CriWorld = World[CriContainerd]


@pytest.fixture
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="p2pe-snap-") as path:
        yield Path(path)


def _containerd(world: CriWorld) -> CriContainerd:
    place = Place(world.work, debian=engines_root())
    return CriContainerd(world.work, world.socket, world.root, world.mirror, place=place)


@pytest.fixture
async def world(work: Path, request: pytest.FixtureRequest) -> AsyncIterator[CriWorld]:
    fills = request.node.get_closest_marker("fills") is not None
    async with open_world(work, _containerd, () if fills else NOTHING_BEHIND) as made:
        yield made


async def pulled(world: CriWorld) -> str:
    return await asyncio.to_thread(world.engine.pull, IMAGE)


async def run(world: CriWorld, *command: str, name: str = "once", stays: bool = False) -> str:
    return await asyncio.to_thread(
        lambda: world.engine.run(IMAGE, *command, name=name, stays=stays)
    )


async def inside(world: CriWorld, name: str) -> Path:
    """The root of a running container, as it sees it."""
    table = await asyncio.to_thread(world.engine.ctr, "tasks", "list")
    pid = next(row.split()[1] for row in table.splitlines() if row.split()[0] == name)
    return Path(f"/proc/{pid}/root")


async def test_a_container_runs_before_its_layers_are_here(world: CriWorld) -> None:
    await world.indexed()
    before = world.received_bytes

    await pulled(world)
    told = await run(world, "/hello")

    assert told.strip() == GREETING
    assert world.received_bytes - before < 2_000_000, "a span of a layer, and what names it"
    await until(lambda: not os.listdir(world.root / "snapshots"), "end of the container's files")


async def test_the_snapshotter_says_what_it_shows_and_what_was_read_of_it(world: CriWorld) -> None:
    await world.indexed()
    await pulled(world)
    await run(world, "/hello")

    async with asyncio.timeout(30):
        while True:
            told = await world.status()
            if told["reads"]["waited"] and sum(told["layers"].values()) == len(LAYERS):
                break
            await asyncio.sleep(0.1)
    (image,) = told["images"]
    assert image["image"] == "docker.io/library/app"
    assert image["size_bytes"] == sum(map(len, LAYERS))
    assert told["layers"] == {"elsewhere": 2, "here": 1, "files": 0}, "one is below a MiB"
    reads = told["reads"]
    assert reads["bytes"] > len(GREETING)
    assert 0 < reads["fetched_bytes"]["demand"] < image["size_bytes"]
    assert (reads["failed"], reads["waiting"]) == (0, 0)
    assert told["degraded"] == []


async def test_a_container_sees_what_was_pushed_and_can_write(world: CriWorld) -> None:
    await world.indexed()
    await pulled(world)
    await run(world, "/pause", name="stays", stays=True)
    root = await inside(world, "stays")

    def looked_at() -> None:
        assert sorted(os.listdir(root / "etc")) == ["new"]
        assert stat.S_IMODE(os.stat(root / "etc").st_mode) == 0o751, "as a layer below says"
        assert (root / "noise").read_bytes() == NOISE
        assert (root / "words" / "007").read_bytes() == text(40_000, 7)
        assert (root / "etc" / "new").read_bytes() == b"new"
        assert stat.S_IMODE(os.stat(root).st_mode) == 0o755

        (root / "words" / "007").write_bytes(b"written")
        (root / "etc" / "new").unlink()
        (root / "made").mkdir()
        assert (root / "words" / "007").read_bytes() == b"written"
        assert os.listdir(root / "etc") == []

    await asyncio.to_thread(looked_at)


def unpacked(world: CriWorld) -> list[Path]:
    return list((world.root / "layers").glob("*/fs"))


@pytest.mark.fills
async def test_the_rest_of_an_image_follows(world: CriWorld) -> None:
    await world.indexed()
    await pulled(world)
    await run(world, "/hello")

    def here() -> bool:
        found = [world.peer.running.node.store.get(digest(LAYERS[number])) for number in (0, 2)]
        return all(blob is not None and blob.complete for blob in found)

    await until(here, "all of its layers")
    await until(lambda: len(unpacked(world)) == len(LAYERS), "plain files of all layers")
    mounted = world.worker()  # which reads for older containers, and for new ones no more
    os.kill(mounted, signal.SIGSTOP)
    try:
        await run(world, "/pause", name="stays", stays=True)
        root = await inside(world, "stays")
        assert await asyncio.to_thread((root / "noise").read_bytes) == NOISE
        assert sorted(os.listdir(root / "etc")) == ["new"]
        assert stat.S_IMODE(os.stat(root / "etc").st_mode) == 0o751
    finally:
        os.kill(mounted, signal.SIGCONT)


@pytest.mark.faults
async def test_daemons_that_end_end_no_container(world: CriWorld) -> None:
    """The process that reads is killed, the snapshotter and containerd are, and come back."""
    await world.indexed()
    await pulled(world)
    await run(world, "/pause", name="stays", stays=True)
    root = await inside(world, "stays")

    async def read(name: str) -> bytes:
        return await asyncio.to_thread((root / name).read_bytes)

    killed = "the worker of a mount is killed"
    with recorded(92, killed, "below a container, then snapshotter and containerd") as record:
        os.kill(world.worker(), signal.SIGKILL)
        began_s = time.monotonic()
        assert await read("words/001") == text(40_000, 1)
        record.took("read", time.monotonic() - began_s, at_most_s=0.5)
        world.snapshotter.kill9()
        assert await read("words/059") == text(40_000, 59)
        await world.start_snapshotter()
        assert await read("noise") == NOISE
        world.engine.kill9()
        world.engine.start()
        assert await inside(world, "stays") == root, "the same process"
        assert await read("big") == BIG
        assert (await run(world, "/hello")).strip() == GREETING, "and new containers start"
        record.outcome = "every file right, the container runs on, new ones start"


async def test_a_layer_that_is_shown_is_not_shown_twice(world: CriWorld) -> None:
    await world.indexed()
    first = await pulled(world)

    assert await pulled(world) == first
    assert len(os.listdir(world.root / "layers")) == len(LAYERS)


async def test_of_an_image_that_is_removed_nothing_stays(world: CriWorld) -> None:
    await world.indexed()
    await pulled(world)
    await run(world, "/hello")

    await asyncio.to_thread(world.engine.remove, IMAGE)

    def gone() -> bool:
        world.engine.ctr("content", "prune", "references")  # a collection that need not wait
        return not any(os.listdir(world.root / name) for name in ("layers", "snapshots"))

    await until(gone, "end of the layers")
    await pulled(world)
    assert (await run(world, "/hello")).strip() == GREETING


async def test_an_image_that_nobody_has_seen_is_pulled_as_ever(world: CriWorld) -> None:
    await pulled(world)

    assert (await run(world, "/hello")).strip() == GREETING
    assert os.listdir(world.root / "layers") == []
    await until(lambda: len(os.listdir(world.root / "snapshots")) == len(LAYERS), "unpacked layers")
    assert world.layer_reads() == [1] * 3


async def test_an_image_is_exported_when_its_layers_were_fetched(world: CriWorld) -> None:
    """containerd has none of them: it says so, and gets them from the mirror of this host."""
    await world.indexed()
    await pulled(world)
    out = world.root.parent / "out.tar"

    def ctr(*words: str) -> str:
        return world.engine.ctr(*words)

    with pytest.raises(LabError, match=r"content digest sha256:\w+: not found"):
        await asyncio.to_thread(ctr, "images", "export", str(out), IMAGE)

    hosts = ["--hosts-dir", str(world.engine.hosts)]
    await asyncio.to_thread(ctr, "content", "fetch", *hosts, IMAGE)
    await asyncio.to_thread(ctr, "images", "export", str(out), IMAGE)
    with tarfile.open(out) as archive:
        names = archive.getnames()
    assert {f"blobs/sha256/{digest(layer)[7:]}" for layer in LAYERS} <= set(names)
