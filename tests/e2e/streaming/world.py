"""A registry, a proxy and a peer in the test's process; a snapshotter and an engine beside it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import aiohttp

from p2pdist.demo.processes import free_ports
from p2pdist.peer.daemon import RunningPeer
from p2pdist.streaming.fuse import holder, syscalls
from p2pdist.streaming.snapshotter.layers_mount import WORKER
from tests.cluster.test_layer_indexes import index_at
from tests.e2e.harness.cri import CriContainerd
from tests.e2e.harness.image import greeting_program, pausing_program
from tests.e2e.harness.p2p import REPOSITORY_ROOT
from tests.e2e.harness.processes import Process, pids_with, wait_until
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.streaming.archives import archive, digest, directory, file, gzipped, text

HOLDER: Final = holder.__spec__.name
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


NOTHING_BEHIND: Final = ("--snapshotter-fill=false", "--snapshotter-unpack=false")
"""Options of a snapshotter: what is not read stays where it is."""
ENGINES: Final = "TESTS_ENGINES"

Engine = TypeVar("Engine", bound=CriContainerd)


class World(Generic[Engine]):
    def __init__(
        self,
        registry: FakeRegistry,
        lab: Lab,
        peer: RunningPeer,
        work: Path,
        options: Sequence[str],
    ) -> None:
        """`options`: of the snapshotter, beside what says where it is."""
        self.registry = registry
        self.lab = lab
        self.peer = peer
        self.work = work
        self.root = work / "state" / "snapshotter"
        self.socket = work / "s.sock"
        argv = [sys.executable, "-m", "p2pdist.cli.main", "snapshotter"]
        argv += ["--host-state-dir", str(work / "state"), "--snapshotter-socket", str(self.socket)]
        argv += ["--snapshotter-mirror", self.mirror, *options]
        self._admin = f"127.0.0.1:{free_ports(1)[0]}"
        argv += ["--snapshotter-admin-listen", self._admin]
        env = {"PYTHONPATH": str(REPOSITORY_ROOT), "PYTHONUNBUFFERED": "1"}
        self.snapshotter = Process("snapshotter", argv, work / "snapshotter.log", env)
        self.engine: Engine

    @property
    def mirror(self) -> str:
        """The URL of the peer's."""
        return url_of(self.peer.mirror)

    async def start_snapshotter(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.snapshotter.start()
        await asyncio.to_thread(self.snapshotter.wait_ready, self.socket.exists)

    async def status(self) -> dict[str, Any]:
        """What the snapshotter tells of itself."""
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{self._admin}/api/v1/status", raise_for_status=True) as answer,
        ):
            told: dict[str, Any] = await answer.json()
            return told

    async def indexed(self) -> None:
        await indexed(self.lab)

    def worker(self) -> int:
        """The process that reads for all containers."""
        (mine,) = set(pids_with(WORKER)) & set(pids_with(str(self.root))) - set(pids_with(HOLDER))
        return mine

    def layer_reads(self) -> list[int]:
        """How often the registry was asked for each layer."""
        return [self.registry.count("GET", f"/blobs/{digest(layer)}") for layer in LAYERS]

    @property
    def received_bytes(self) -> int:
        return sum(self.peer.running.node.counters.received.values())


async def indexed(lab: Lab) -> None:
    """The proxy has the layers and their indexes; the peer has none of them."""
    other = await lab.peer("other")
    async with aiohttp.ClientSession() as client:
        await pull(client, url_of(other.mirror))
        for number in (0, 2):
            await index_at(client, url_of(other.mirror), digest(LAYERS[number]))


def engines_root() -> Path | None:
    """The Debian whose engines are tried in place of this machine's (`make test-docker-store`)."""
    named = os.environ.get(ENGINES)
    return Path(named) if named else None


@asynccontextmanager
async def open_world(
    work: Path, engine_of: Callable[[World[Engine]], Engine], options: Sequence[str]
) -> AsyncIterator[World[Engine]]:
    """`work`: a short path. `engine_of` makes an engine that is started when all else runs."""
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(FakeRegistry())
        lab = await stack.enter_async_context(
            open_lab(work / "lab", {"docker.io": registry.url, "other.test": registry.url})
        )
        lab.layer_index = True
        registry.add_image("library/app", "1", LAYERS, archives=ARCHIVES)
        await lab.proxy()
        made: World[Engine] = World(registry, lab, await lab.peer("peer"), work, options)
        stack.callback(syscalls.unmount, str(made.root / "mnt"))
        stack.push_async_callback(asyncio.to_thread, made.snapshotter.stop)
        await made.start_snapshotter()
        made.engine = engine_of(made)
        stack.push_async_callback(asyncio.to_thread, made.engine.stop)
        made.engine.start()
        yield made


async def until(condition: Callable[[], bool], what: str, log: Path | None = None) -> None:
    """An engine collects what is gone when it suits it. `log`: what to show of if it does not."""
    await asyncio.to_thread(wait_until, condition, what, log=log)
