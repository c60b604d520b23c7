"""containerd with the snapshotter: containers run, and their layers are still at the registry."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import pytest

from p2pdist.peer.daemon import RunningPeer
from p2pdist.streaming.fuse import syscalls
from tests.e2e.harness.cri import CriContainerd
from tests.e2e.harness.image import greeting_program
from tests.e2e.harness.p2p import REPOSITORY_ROOT
from tests.e2e.harness.processes import Process
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.streaming.archives import archive, directory, file, gzipped, text
from tests.swarm.test_layer_indexes import index_at

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

T = TypeVar("T")

GREETING: Final = "hello from a layer that is not here"
NOISE: Final = random_bytes(6 << 20, 9)
BASE: Final = archive(
    directory("etc", 0o751),
    file("etc/old", b"old"),
    file("noise", NOISE),
    *(file(f"words/{i:03}", text(40_000, i)) for i in range(60)),
)
MIDDLE: Final = archive(file("etc/.wh.old"), file("etc/new", b"new"))
"""Small: it has no index."""
TOP: Final = archive(
    file("hello", greeting_program(GREETING), mode=0o755), file("big", random_bytes(3 << 20, 4))
)
ARCHIVES: Final = [BASE, MIDDLE, TOP]
LAYERS: Final = [gzipped(plain) for plain in ARCHIVES]
IMAGE: Final = "docker.io/library/app:1"


class World:
    """A registry, a proxy and a peer in this process; a snapshotter and a containerd beside it."""

    def __init__(self, registry: FakeRegistry, lab: Lab, peer: RunningPeer, work: Path) -> None:
        self.registry = registry
        self.lab = lab
        self.peer = peer
        self.root = work / "state" / "snapshotter"
        socket = work / "s.sock"
        argv = [sys.executable, "-m", "p2pdist.cli.main", "snapshotter"]
        argv += ["--host-state-dir", str(work / "state"), "--snapshotter-socket", str(socket)]
        argv += ["--snapshotter-mirror", url_of(peer.mirror)]
        self._socket = socket
        env = {"PYTHONPATH": str(REPOSITORY_ROOT), "PYTHONUNBUFFERED": "1"}
        self.snapshotter = Process("snapshotter", argv, work / "snapshotter.log", env)
        self.containerd = CriContainerd(work, socket, url_of(peer.mirror))

    async def start_snapshotter(self) -> None:
        self._socket.unlink(missing_ok=True)
        self.snapshotter.start()
        await asyncio.to_thread(self.snapshotter.wait_ready, self._socket.exists)

    async def start_containerd(self) -> None:
        self.containerd.process.start()
        await asyncio.to_thread(self.containerd.wait_ready)

    async def pull(self) -> str:
        return await asyncio.to_thread(self.containerd.pull, IMAGE)

    async def run(self, *command: str, name: str = "once", stays: bool = False) -> str:
        return await asyncio.to_thread(
            lambda: self.containerd.run(IMAGE, *command, name=name, stays=stays)
        )

    @property
    def received_bytes(self) -> int:
        return sum(self.peer.running.node.counters.received.values())


@pytest.fixture
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="p2pe-snap-") as path:
        yield Path(path)


@pytest.fixture
async def world(work: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(FakeRegistry())
        lab = await stack.enter_async_context(open_lab(work / "lab", {"docker.io": registry.url}))
        lab.layer_index = True
        registry.add_image("library/app", "1", LAYERS, archives=ARCHIVES)
        await lab.proxy()
        made = World(registry, lab, await lab.peer("peer"), work)
        stack.callback(syscalls.unmount, str(made.root / "mnt"))
        stack.push_async_callback(asyncio.to_thread, made.snapshotter.stop)
        stack.push_async_callback(asyncio.to_thread, made.containerd.process.stop)
        await made.start_snapshotter()
        await made.start_containerd()
        yield made


async def indexed(world: World) -> None:
    """The proxy has the layers and their indexes; the peer has none of them."""
    other = await world.lab.peer("other")
    async with aiohttp.ClientSession() as client:
        await pull(client, url_of(other.mirror))
        for number in (0, 2):
            await index_at(client, url_of(other.mirror), digest_at(world, number))


def digest_at(world: World, number: int) -> str:
    from tests.streaming.archives import digest

    return digest(LAYERS[number])


async def test_a_container_runs_before_its_layers_are_here(world: World) -> None:
    await indexed(world)
    before = world.received_bytes

    await world.pull()
    told = await world.run("/hello")

    assert told.strip() == GREETING
    assert world.received_bytes - before < 2_000_000
