"""Docker's images in containerd, through the snapshotter: fetched whole, and shown."""

from __future__ import annotations

import asyncio
import json
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pdist.streaming.fuse import syscalls
from tests.docker_store.engine import DockerStore, PushTarget
from tests.e2e.harness.places import Place
from tests.e2e.harness.processes import LabError, run
from tests.e2e.streaming.world import (
    GREETING,
    LAYERS,
    NOISE,
    NOTHING_BEHIND,
    World,
    engines_root,
    open_world,
    until,
)
from tests.streaming.archives import digest, text

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

DockerWorld = World[DockerStore]
IMAGE = "app:1"
SHOWN = ("--snapshotter-whole-namespaces=", *NOTHING_BEHIND)
"""Options of a snapshotter that shows images to Docker, too."""


@pytest.fixture
def work() -> Iterator[Path]:
    """A directory in which mounts are seen from all namespaces, as all of a host's are."""
    with tempfile.TemporaryDirectory(prefix="p2pe-dock-") as path:
        run(["mount", "--bind", path, path])
        try:
            run(["mount", "--make-shared", path])
            yield Path(path)
        finally:
            syscalls.unmount(path)


def _docker(world: DockerWorld) -> DockerStore:
    root = engines_root()
    assert root is not None, "`make test-docker-store` says with which engines"
    place = Place(world.work, debian=root)
    return DockerStore(world.work, world.socket, world.root, world.mirror, place=place)


@pytest.fixture
async def world(work: Path) -> AsyncIterator[DockerWorld]:
    """The snapshotter is as it comes."""
    async with open_world(work, _docker, NOTHING_BEHIND) as made:
        yield made


@pytest.fixture
async def shown(work: Path) -> AsyncIterator[DockerWorld]:
    """Docker's containers start before their layers are here."""
    async with open_world(work, _docker, SHOWN) as made:
        await made.indexed()
        yield made


async def docker(world: DockerWorld, *words: str) -> str:
    return await asyncio.to_thread(world.engine.docker, *words)


async def container(world: DockerWorld, *words: str) -> str:
    return await asyncio.to_thread(world.engine.run_image, *words)


async def started(world: DockerWorld, name: str) -> Path:
    """Start a container that stays; return its root, as it sees it."""
    await docker(world, "run", "--detach", "--network=none", f"--name={name}", IMAGE, "/pause")
    pid = await docker(world, "inspect", "--format={{.State.Pid}}", name)
    return Path(f"/proc/{pid.strip()}/root")


def layers_in(saved: Path) -> set[str]:
    with tarfile.open(saved) as archive:
        names = archive.getnames()
    return {f"sha256:{name.rpartition('/')[2]}" for name in names if name.count("/") == 2}


# --- as it comes: Docker fetches images, and has all that it passes on ----------------------------


async def test_images_are_fetched_whole_and_passed_on_whole(world: DockerWorld) -> None:
    """Saved and loaded, pushed and pulled, committed: all bytes, also of an image with an index."""
    await world.indexed()
    await docker(world, "pull", IMAGE)
    assert (await container(world, IMAGE, "/hello")).strip() == GREETING
    listed = await docker(world, "image", "ls", "--format={{.Repository}}:{{.Tag}}")
    assert listed.split() == [IMAGE]
    assert list((world.root / "layers").iterdir()) == []

    root = await started(world, "stays")
    await asyncio.to_thread((root / "made").write_bytes, b"made")
    await docker(world, "commit", "stays", "mine:1")
    target = PushTarget(world.work)
    target.start()
    try:
        pushed = f"{target.endpoint}/mine:1"
        await docker(world, "tag", "mine:1", pushed)
        await docker(world, "push", pushed)
        saved = world.work / "saved.tar"
        await docker(world, "save", "--output", str(saved), "mine:1")
        assert {digest(layer) for layer in LAYERS} <= await asyncio.to_thread(layers_in, saved)

        await docker(world, "rm", "--force", "stays")
        await docker(world, "image", "rm", "--force", IMAGE, "mine:1", pushed)
        await docker(world, "pull", pushed)
        assert (await container(world, pushed, "/hello")).strip() == GREETING
        await docker(world, "image", "rm", "--force", pushed)
        await docker(world, "load", "--input", str(saved))
        assert (await container(world, "mine:1", "/hello")).strip() == GREETING
        changed = await docker(world, "create", "--network=none", "mine:1", "/hello")
        await docker(world, "cp", f"{changed.strip()}:/made", str(world.work / "made"))
        assert (world.work / "made").read_bytes() == b"made"
    finally:
        target.process.stop()


async def test_an_image_that_nobody_has_seen_is_pulled_as_ever(world: DockerWorld) -> None:
    await docker(world, "pull", IMAGE)

    assert (await container(world, IMAGE, "/hello")).strip() == GREETING
    assert world.layer_reads() == [1] * 3


# --- where the snapshotter is told to show Docker's images, too ----------------------------------


async def test_a_container_runs_before_its_layers_are_here(shown: DockerWorld) -> None:
    before = shown.received_bytes

    await docker(shown, "pull", IMAGE)
    told = await container(shown, IMAGE, "/hello")

    assert told.strip() == GREETING
    assert shown.received_bytes - before < 2_000_000, "a span of a layer, and what names it"
    assert len(list((shown.root / "layers").iterdir())) == len(LAYERS)
    again = await docker(shown, "pull", IMAGE)
    assert "Image is up to date" in again


async def test_a_container_sees_what_was_pushed_and_can_write(shown: DockerWorld) -> None:
    """Above what Docker itself put between: a layer of its own with names of hosts and devices."""
    await docker(shown, "pull", IMAGE)
    root = await started(shown, "stays")

    def looked_at() -> None:
        assert (root / "noise").read_bytes() == NOISE
        assert (root / "etc" / "new").read_bytes() == b"new"
        assert not (root / "etc" / "old").exists()
        assert (root / "etc" / "mtab").is_symlink(), "of the layer between"
        (root / "words" / "007").write_bytes(b"written")
        (root / "etc" / "new").unlink()

    await asyncio.to_thread(looked_at)
    changed = (await docker(shown, "diff", "stays")).splitlines()
    assert {"C /words/007", "D /etc/new"} <= set(changed)
    await docker(shown, "restart", "--time=0", "stays")
    pid = await docker(shown, "inspect", "--format={{.State.Pid}}", "stays")
    again = Path(f"/proc/{pid.strip()}/root")
    assert await asyncio.to_thread((again / "words" / "007").read_bytes) == b"written"


async def test_a_snapshotter_that_ends_ends_no_container(shown: DockerWorld) -> None:
    await docker(shown, "pull", IMAGE)
    root = await started(shown, "stays")

    shown.snapshotter.kill9()
    assert await asyncio.to_thread((root / "words" / "001").read_bytes) == text(40_000, 1)
    await shown.start_snapshotter()
    assert await asyncio.to_thread((root / "noise").read_bytes) == NOISE
    assert (await container(shown, IMAGE, "/hello")).strip() == GREETING


async def test_of_an_image_that_is_removed_nothing_stays(shown: DockerWorld) -> None:
    await docker(shown, "pull", IMAGE)
    await container(shown, IMAGE, "/hello")

    await docker(shown, "image", "rm", IMAGE)

    def gone() -> bool:
        return not any(any((shown.root / name).iterdir()) for name in ("layers", "snapshots"))

    await until(gone, "end of the layers")
    await docker(shown, "pull", IMAGE)
    assert (await container(shown, IMAGE, "/hello")).strip() == GREETING


async def test_what_docker_says_of_an_image_that_it_has_not(shown: DockerWorld) -> None:
    """The reason why it is told to fetch: push refuses, save does not, and old ones list nothing.

    The day that `save` refuses, the setting's text and the page about it have to change.
    """
    await docker(shown, "pull", IMAGE)
    target = PushTarget(shown.work)
    target.start()
    try:
        pushed = f"{target.endpoint}/app:1"
        await docker(shown, "tag", IMAGE, pushed)
        with pytest.raises(LabError, match=r"content digest sha256:\w+: not found"):
            await docker(shown, "push", pushed)
    finally:
        target.process.stop()
    saved = shown.work / "saved.tar"
    await docker(shown, "save", "--output", str(saved), IMAGE)
    assert not {digest(layer) for layer in LAYERS} & await asyncio.to_thread(layers_in, saved)

    listed = await docker(shown, "image", "ls", "--format={{.Repository}}:{{.Tag}}")
    newer = await asyncio.to_thread(shown.engine.version) >= (28,)
    assert (IMAGE in listed.split()) is newer
    used: dict[str, Any] = json.loads(
        (await docker(shown, "system", "df", "--format=json")).splitlines()[0]
    )
    assert used["Type"] == "Images"
