"""containerd with the snapshotter: containers run, and their layers are still at the registry."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from p2pdist.demo.processes import free_ports
from p2pdist.peer.daemon import RunningPeer
from p2pdist.streaming.fuse import holder, syscalls
from p2pdist.streaming.snapshotter.layers_mount import WORKER
from tests.e2e.harness.cri import CriContainerd
from tests.e2e.harness.image import greeting_program, pausing_program
from tests.e2e.harness.p2p import REPOSITORY_ROOT
from tests.e2e.harness.processes import LabError, Process, pids_with, wait_until
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded
from tests.streaming.archives import archive, digest, directory, file, gzipped, text
from tests.swarm.test_layer_indexes import index_at

HOLDER = holder.__spec__.name

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

GREETING: Final = "hello from a layer that is not here"
NOISE: Final = random_bytes(6 << 20, 9)
BIG: Final = random_bytes(3 << 20, 4)
BASE: Final = archive(
    directory("etc", 0o751),
    file("etc/old", b"old"),
    file("noise", NOISE),
    *(file(f"words/{i:03}", text(40_000, i)) for i in range(60)),
)
MIDDLE: Final = archive(file("etc/.wh.old"), file("etc/new", b"new"))
"""Small: it has no index."""
TOP: Final = archive(
    file("hello", greeting_program(GREETING), mode=0o755),
    file("pause", pausing_program(), mode=0o755),
    file("big", BIG),
)
ARCHIVES: Final = [BASE, MIDDLE, TOP]
LAYERS: Final = [gzipped(plain) for plain in ARCHIVES]
IMAGE: Final = "docker.io/library/app:1"


class World:
    """A registry, a proxy and a peer in this process; a snapshotter and a containerd beside it."""

    def __init__(
        self, registry: FakeRegistry, lab: Lab, peer: RunningPeer, work: Path, *, fills: bool
    ) -> None:
        self.registry = registry
        self.lab = lab
        self.peer = peer
        self.root = work / "state" / "snapshotter"
        socket = work / "s.sock"
        argv = [sys.executable, "-m", "p2pdist.cli.main", "snapshotter"]
        argv += ["--host-state-dir", str(work / "state"), "--snapshotter-socket", str(socket)]
        argv += ["--snapshotter-mirror", url_of(peer.mirror)]
        (port,) = free_ports(1)
        self._admin = f"127.0.0.1:{port}"
        argv += ["--snapshotter-admin-listen", self._admin]
        for behind in ("fill", "unpack"):
            argv += [f"--snapshotter-{behind}", "true" if fills else "false"]
        self._socket = socket
        env = {"PYTHONPATH": str(REPOSITORY_ROOT), "PYTHONUNBUFFERED": "1"}
        self.snapshotter = Process("snapshotter", argv, work / "snapshotter.log", env)
        self.containerd = CriContainerd(work, socket, url_of(peer.mirror))

    async def start_snapshotter(self) -> None:
        self._socket.unlink(missing_ok=True)
        self.snapshotter.start()
        await asyncio.to_thread(self.snapshotter.wait_ready, self._socket.exists)

    async def pull(self) -> str:
        return await asyncio.to_thread(self.containerd.pull, IMAGE)

    async def run(self, *command: str, name: str = "once", stays: bool = False) -> str:
        return await asyncio.to_thread(
            lambda: self.containerd.run(IMAGE, *command, name=name, stays=stays)
        )

    async def status(self) -> dict[str, Any]:
        """What the snapshotter tells of itself."""
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{self._admin}/api/v1/status", raise_for_status=True) as answer,
        ):
            told: dict[str, Any] = await answer.json()
            return told

    async def inside(self, name: str) -> Path:
        """The root of a running container, as it sees it."""
        table = await asyncio.to_thread(self.containerd.ctr, "tasks", "list")
        pid = next(row.split()[1] for row in table.splitlines() if row.split()[0] == name)
        return Path(f"/proc/{pid}/root")

    def worker(self) -> int:
        """The process that reads for all containers."""
        (mine,) = set(pids_with(WORKER)) & set(pids_with(str(self.root))) - set(pids_with(HOLDER))
        return mine

    @property
    def received_bytes(self) -> int:
        return sum(self.peer.running.node.counters.received.values())


@pytest.fixture
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="p2pe-snap-") as path:
        yield Path(path)


@pytest.fixture
async def world(work: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    fills = request.node.get_closest_marker("fills") is not None
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(FakeRegistry())
        lab = await stack.enter_async_context(open_lab(work / "lab", {"docker.io": registry.url}))
        lab.layer_index = True
        registry.add_image("library/app", "1", LAYERS, archives=ARCHIVES)
        await lab.proxy()
        made = World(registry, lab, await lab.peer("peer"), work, fills=fills)
        stack.callback(syscalls.unmount, str(made.root / "mnt"))
        stack.push_async_callback(asyncio.to_thread, made.snapshotter.stop)
        stack.push_async_callback(asyncio.to_thread, made.containerd.stop)
        await made.start_snapshotter()
        made.containerd.start()
        yield made


async def until(condition: Callable[[], bool], what: str) -> None:
    """containerd collects what is gone when it suits it."""
    await asyncio.to_thread(wait_until, condition, what)


async def indexed(world: World) -> None:
    """The proxy has the layers and their indexes; the peer has none of them."""
    other = await world.lab.peer("other")
    async with aiohttp.ClientSession() as client:
        await pull(client, url_of(other.mirror))
        for number in (0, 2):
            await index_at(client, url_of(other.mirror), digest(LAYERS[number]))


async def test_a_container_runs_before_its_layers_are_here(world: World) -> None:
    await indexed(world)
    before = world.received_bytes

    await world.pull()
    told = await world.run("/hello")

    assert told.strip() == GREETING
    assert world.received_bytes - before < 2_000_000, "a span of a layer, and what names it"
    await until(lambda: not os.listdir(world.root / "snapshots"), "end of the container's files")


async def test_the_snapshotter_says_what_it_shows_and_what_was_read_of_it(world: World) -> None:
    await indexed(world)
    await world.pull()
    await world.run("/hello")

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


async def test_a_container_sees_what_was_pushed_and_can_write(world: World) -> None:
    await indexed(world)
    await world.pull()
    await world.run("/pause", name="stays", stays=True)
    root = await world.inside("stays")

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


def unpacked(world: World) -> list[Path]:
    return list((world.root / "layers").glob("*/fs"))


@pytest.mark.fills
async def test_the_rest_of_an_image_follows(world: World) -> None:
    await indexed(world)
    await world.pull()
    await world.run("/hello")

    def here() -> bool:
        found = [world.peer.running.node.store.get(digest(LAYERS[number])) for number in (0, 2)]
        return all(blob is not None and blob.complete for blob in found)

    await until(here, "all of its layers")
    await until(lambda: len(unpacked(world)) == len(LAYERS), "plain files of all layers")
    mounted = world.worker()  # which reads for older containers, and for new ones no more
    os.kill(mounted, signal.SIGSTOP)
    try:
        await world.run("/pause", name="stays", stays=True)
        root = await world.inside("stays")
        assert await asyncio.to_thread((root / "noise").read_bytes) == NOISE
        assert sorted(os.listdir(root / "etc")) == ["new"]
        assert stat.S_IMODE(os.stat(root / "etc").st_mode) == 0o751
    finally:
        os.kill(mounted, signal.SIGCONT)


@pytest.mark.faults
async def test_daemons_that_end_end_no_container(world: World) -> None:
    """The process that reads is killed, the snapshotter and containerd are, and come back."""
    await indexed(world)
    await world.pull()
    await world.run("/pause", name="stays", stays=True)
    root = await world.inside("stays")

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
        world.containerd.kill9()
        world.containerd.start()
        assert await world.inside("stays") == root, "the same process"
        assert await read("big") == BIG
        assert (await world.run("/hello")).strip() == GREETING, "and new containers start"
        record.outcome = "every file right, the container runs on, new ones start"


async def test_a_layer_that_is_shown_is_not_shown_twice(world: World) -> None:
    await indexed(world)
    first = await world.pull()

    assert await world.pull() == first
    assert len(os.listdir(world.root / "layers")) == len(LAYERS)


async def test_of_an_image_that_is_removed_nothing_stays(world: World) -> None:
    await indexed(world)
    await world.pull()
    await world.run("/hello")

    await asyncio.to_thread(world.containerd.remove, IMAGE)

    def gone() -> bool:
        world.containerd.ctr("content", "prune", "references")  # a collection that need not wait
        return not any(os.listdir(world.root / name) for name in ("layers", "snapshots"))

    await until(gone, "end of the layers")
    await world.pull()
    assert (await world.run("/hello")).strip() == GREETING


async def test_an_image_that_nobody_has_seen_is_pulled_as_ever(world: World) -> None:
    await world.pull()

    assert (await world.run("/hello")).strip() == GREETING
    assert os.listdir(world.root / "layers") == []
    await until(lambda: len(os.listdir(world.root / "snapshots")) == len(LAYERS), "unpacked layers")
    assert [world.registry.count("GET", f"/blobs/{digest(layer)}") for layer in LAYERS] == [1] * 3


async def test_an_image_is_exported_when_its_layers_were_fetched(world: World) -> None:
    """containerd has none of them: it says so, and gets them from the mirror of this host."""
    await indexed(world)
    await world.pull()
    out = world.root.parent / "out.tar"

    def ctr(*words: str) -> str:
        return world.containerd.ctr(*words)

    with pytest.raises(LabError, match=r"content digest sha256:\w+: not found"):
        await asyncio.to_thread(ctr, "images", "export", str(out), IMAGE)

    hosts = ["--hosts-dir", str(world.containerd.hosts)]
    await asyncio.to_thread(ctr, "content", "fetch", *hosts, IMAGE)
    await asyncio.to_thread(ctr, "images", "export", str(out), IMAGE)
    with tarfile.open(out) as archive:
        names = archive.getnames()
    assert {f"blobs/sha256/{digest(layer)[7:]}" for layer in LAYERS} <= set(names)
