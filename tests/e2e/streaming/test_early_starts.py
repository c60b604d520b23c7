"""`runtime install --early-starts` on a real containerd, and what is left when it is undone."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness.clients import CONTAINERD
from tests.e2e.harness.cri import CriContainerd
from tests.e2e.harness.p2p import REPOSITORY_ROOT
from tests.e2e.harness.places import Place
from tests.e2e.harness.processes import LabError, run
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
from tests.streaming.archives import digest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ETC = "/etc/containerd"


class InstalledContainerd(CriContainerd):
    """With the file that it writes by itself, and what the command made of it."""

    config_name = f"root{ETC}/config.toml"

    def configure(self) -> None:
        if self._config.exists():
            return
        self._config.parent.mkdir(parents=True)
        self.place.run("mount", "--bind", str(self._config.parent), ETC)
        self._config.write_text(self.place.run(CONTAINERD, "config", "default"))

    @property
    def config(self) -> Path:
        return self._config

    def restart(self) -> None:
        self.kill9()
        self.start()

    def content(self) -> set[str]:
        """The digests that lie in its store."""
        return set(self.ctr("content", "ls", "--quiet").split())


InstalledWorld = World[InstalledContainerd]


@pytest.fixture
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="p2pe-early-") as path:
        yield Path(path)


@pytest.fixture
async def world(work: Path) -> AsyncIterator[InstalledWorld]:
    def engine(made: InstalledWorld) -> InstalledContainerd:
        place = Place(made.work, debian=engines_root())
        return InstalledContainerd(made.work, made.socket, made.root, made.mirror, place=place)

    async with open_world(work, engine, NOTHING_BEHIND) as made:
        yield made


async def runtime(world: InstalledWorld, verb: str, *options: str) -> str:
    argv = [sys.executable, "-m", "p2pdist.cli.main", "runtime", verb, "--engine", "containerd"]
    argv += ["--root", str(world.work / "root"), "--state-dir", str(world.work / "kept"), *options]
    return await asyncio.to_thread(run, argv, env={"PYTHONPATH": str(REPOSITORY_ROOT)})


async def installed(world: InstalledWorld) -> str:
    where = ["--snapshotter-socket", str(world.socket), "--snapshotter-dir", str(world.root)]
    return await runtime(world, "install", "--early-starts", "--mirror", world.mirror, *where)


async def test_containers_start_early_from_then_on_and_not_after_it_was_undone(
    world: InstalledWorld,
) -> None:
    await world.indexed()
    engine, layers = world.engine, {digest(layer) for layer in LAYERS}
    original = engine.config.read_bytes()

    said = await installed(world)
    assert "restart containerd once" in said
    await asyncio.to_thread(engine.restart)
    before = world.received_bytes
    await asyncio.to_thread(engine.pull, IMAGE)
    told = await asyncio.to_thread(engine.run, IMAGE, "/hello")

    assert told.strip() == GREETING
    assert not engine.content() & layers
    assert world.received_bytes - before < 2_000_000, "a span of a layer, and what names it"

    await asyncio.to_thread(engine.remove, IMAGE)
    await until(lambda: not in_use(world), "end of what containerd has by it")
    said = await runtime(world, "install", "--no-early-starts", "--mirror", world.mirror)
    assert "restart containerd once" in said
    await asyncio.to_thread(engine.restart)
    await asyncio.to_thread(engine.pull, IMAGE)
    assert layers <= engine.content(), "as ever"
    assert not in_use(world)
    await runtime(world, "uninstall")
    assert engine.config.read_bytes() == original


async def test_a_container_runs_on_where_they_are_taken_back_by_force(
    world: InstalledWorld,
) -> None:
    await world.indexed()
    engine = world.engine
    await installed(world)
    await asyncio.to_thread(engine.restart)
    await asyncio.to_thread(engine.pull, IMAGE)
    await asyncio.to_thread(lambda: engine.run(IMAGE, "/pause", name="stays", stays=True))
    table = await asyncio.to_thread(engine.ctr, "tasks", "list")
    pid = next(row.split()[1] for row in table.splitlines() if row.split()[0] == "stays")

    await runtime(world, "uninstall", "--force")
    await asyncio.to_thread(engine.restart)

    root = Path(f"/proc/{pid}/root")
    assert await asyncio.to_thread((root / "noise").read_bytes) == NOISE
    assert await asyncio.to_thread((root / "big").read_bytes) == BIG
    await asyncio.to_thread(engine.ctr, "tasks", "kill", "--signal", "KILL", "stays")
    await asyncio.to_thread(engine.ctr, "tasks", "delete", "--force", "stays")
    with pytest.raises(LabError, match="snapshotter not loaded: p2pdist"):
        await asyncio.to_thread(engine.ctr, "containers", "delete", "stays")
    await installed(world)
    await asyncio.to_thread(engine.restart)
    await asyncio.to_thread(engine.ctr, "containers", "delete", "stays")


def in_use(world: InstalledWorld) -> bool:
    world.engine.ctr("content", "prune", "references")  # a collection that need not wait
    return any(any((world.root / name).iterdir()) for name in ("layers", "snapshots"))
