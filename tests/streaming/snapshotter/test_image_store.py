"""An image store that is looked through while engines' own stores come and go."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2pdist.process.tasks import TaskOwner
from p2pdist.streaming.snapshotter.core.image_store import layer_ids
from p2pdist.streaming.snapshotter.image_store import ImageStore
from p2pdist.streaming.snapshotter.image_store_files import LAYERS_JSON, ImageStoreFiles
from p2pdist.streaming.snapshotter.opened import OpenedLayer
from p2pdist.streaming.snapshotter.snapshot_store import SnapshotStore
from p2pdist.streaming.snapshotter.snapshotter import Snapshotter
from tests.e2e.harness.processes import wait_until
from tests.streaming.snapshotter.test_snapshot_store import IMAGE, opened, opened_store, root

__all__ = ["opened", "root"]

IDS = list(layer_ids([layer.diff_id for layer in IMAGE.layers]))


class OpenedImages:
    """All that `ImageStore` asks of `LazyImages`: an image whose indexes are here."""

    def __init__(self, opened: list[OpenedLayer]) -> None:
        self._opened = opened

    async def all_of(self, image: object) -> list[OpenedLayer]:
        return self._opened


class Shown:
    """Nothing has to be mounted for it."""

    def ensure(self) -> None:
        pass


class World:
    def __init__(self, root: Path, engine: Path, opened: list[OpenedLayer]) -> None:
        self.engine = engine
        self.snapshots: SnapshotStore = opened_store(root)
        images = OpenedImages(opened)
        self.snapshotter = Snapshotter(
            self.snapshots,
            images,  # type: ignore[arg-type]
            Shown(),  # type: ignore[arg-type]
            shown=lambda: None,
        )
        self._files = ImageStoreFiles(root / "images")
        self.store = ImageStore(
            self.snapshots,
            self.snapshotter,
            images,  # type: ignore[arg-type]
            self._files,
            [engine],
            shown=lambda: None,
            retry_s=0.01,
        )

    def layers(self) -> list[str]:
        """Those that an engine finds."""
        return [layer["id"] for layer in json.loads((self._files.root / LAYERS_JSON).read_bytes())]

    def a_day_later(self) -> None:
        for path in (self._files.root / "overlay").glob("*/link"):
            os.utime(path, (1, 1))

    def engine_has(self, *images: str) -> None:
        """With a store of its own by now, and images whose top layers are these."""
        (self.engine / "overlay-layers").mkdir(parents=True, exist_ok=True)
        (self.engine / "overlay-images").mkdir(exist_ok=True)
        told = [{"id": name, "layer": name} for name in images]
        (self.engine / "overlay-images" / "images.json").write_text(json.dumps(told))

    def nothing_left(self) -> bool:
        return not (self.layers() or any(self.snapshots.layers.iterdir()))


@pytest.fixture
async def world(root: Path, tmp_path: Path, opened: list[OpenedLayer]) -> AsyncIterator[World]:
    made = World(root, tmp_path / "engine", opened)
    await made.store.begin()
    await made.store.show(IMAGE)
    assert made.layers() == IDS
    yield made
    await made.snapshotter.close()
    made.snapshots.close()


async def test_what_is_unused_goes_when_engines_can_tell_again(world: World) -> None:
    """Long before the next regular look: what hindered this one may have been a moment's."""
    world.a_day_later()
    assert not await world.store.look_through()
    assert world.layers() == IDS, "the engine's store may be on a disk that is not there yet"

    tasks = TaskOwner("test")
    tasks.start(world.store.run(), name="looks")
    try:
        world.engine_has()
        await asyncio.to_thread(wait_until, world.nothing_left, "end of the layers")
    finally:
        await tasks.close()


async def test_what_an_engine_names_stays(world: World) -> None:
    world.a_day_later()
    world.engine_has(IDS[-1])
    assert await world.store.look_through()
    assert world.layers() == IDS

    world.engine_has()
    assert await world.store.look_through()
    assert world.nothing_left()


async def test_what_was_asked_for_of_late_stays(world: World) -> None:
    world.engine_has()
    assert await world.store.look_through()
    assert world.layers() == IDS
