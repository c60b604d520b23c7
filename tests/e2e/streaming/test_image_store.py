"""Podman with the image store of the snapshotter: containers run, their layers are elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pdist.peer.daemon import RunningPeer
from p2pdist.peer.wanted_images import HOLD_S
from p2pdist.streaming.fuse import syscalls
from p2pdist.streaming.snapshotter.layers_mount import WORKER
from tests.e2e.harness.p2p import REPOSITORY_ROOT
from tests.e2e.harness.processes import LabError, Process, pids_with, run, wait_until
from tests.e2e.streaming.world import (
    ARCHIVES,
    GREETING,
    HOLDER,
    LAYERS,
    NOISE,
    indexed,
    until,
)
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.registry import FakeRegistry
from tests.streaming.archives import digest, text

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

_LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
"""By itself Podman asks for more than a process without CAP_SYS_RESOURCE may have."""
IMAGE = "docker.io/library/app:1"


class Podman:
    """On this host, with state of its own; it finds layers in `store`."""

    def __init__(self, work: Path, store: Path, mirror_url: str) -> None:
        self.root = work / "podman"
        self._work = work
        mirror = mirror_url.partition("//")[2]
        self.registries_conf = work / "registries.conf"
        self.registries_conf.write_text(
            '[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n[[registry.mirror]]\n'
            f'location = "{mirror}/docker.io"\ninsecure = true\n'
        )
        (work / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (work / "auth.json").write_text("{}")
        self.own_storage = (
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.root}"\n'
            f'runroot = "{work / "podman-run"}"\n'
        )
        self.storage_conf = work / "storage.conf"
        named = f'[storage.options]\nadditionalimagestores = ["{store}"]\n'
        self.storage_conf.write_text(self.own_storage + named)

    def __call__(self, *words: str) -> str:
        env = {
            "CONTAINERS_STORAGE_CONF": str(self.storage_conf),
            "CONTAINERS_REGISTRIES_CONF": str(self.registries_conf),
            "REGISTRY_AUTH_FILE": str(self._work / "auth.json"),
            "TMPDIR": str(self._work),
        }
        common = ["podman", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        return run([*common, *words], timeout_s=120, env=env)

    def pull(self) -> str:
        policy = ["--signature-policy", str(self._work / "policy.json")]
        return self("pull", "--quiet", *policy, IMAGE).strip()

    def run(self, *command: str) -> str:
        isolated = ["--network", "none", *_LIMITS, "--pull", "never"]
        return self("run", *isolated, *command)

    def stop(self) -> None:
        with contextlib.suppress(LabError):
            self("rm", "--all", "--force", "--time", "0")
        # What cleans up after a container goes on by itself, and mounts the store upon itself.
        wait_until(lambda: not pids_with(str(self._work / "podman-run")), "end of all Podmans")
        while syscalls.unmount(str(self.root / "overlay")):
            pass


class World:
    """A registry, a proxy and a peer in this process; a snapshotter and a Podman beside it."""

    def __init__(self, registry: FakeRegistry, lab: Lab, peer: RunningPeer, work: Path) -> None:
        self.registry = registry
        self.lab = lab
        self.peer = peer
        self.root = work / "state" / "snapshotter"
        self.podman = Podman(work, self.root / "images", url_of(peer.mirror))
        self.socket = work / "s.sock"
        argv = [sys.executable, "-m", "p2pdist.cli.main", "snapshotter"]
        argv += ["--config", str(work / "snapshotter.toml")]
        argv += ["--host-state-dir", str(work / "state"), "--snapshotter-socket", str(self.socket)]
        argv += ["--snapshotter-mirror", url_of(peer.mirror), "--snapshotter-image-store", "true"]
        argv += ["--snapshotter-image-store-engines", str(self.podman.root)]
        argv += ["--snapshotter-admin-listen", "127.0.0.1:0", "--log-level", "debug"]
        self._config = work / "snapshotter.toml"
        self.snapshotter_fills(True)
        env = {"PYTHONPATH": str(REPOSITORY_ROOT), "PYTHONUNBUFFERED": "1"}
        self.snapshotter = Process("snapshotter", argv, work / "snapshotter.log", env)

    def places(self) -> list[str]:
        """Options of `runtime install`: the mirror, and what the snapshotter keeps."""
        return ["--mirror", url_of(self.peer.mirror), "--snapshotter-dir", str(self.root)]

    def snapshotter_fills(self, fills: bool) -> None:
        """From its next start on."""
        word = "true" if fills else "false"
        self._config.write_text(f"[snapshotter]\nfill = {word}\nunpack = {word}\n")

    async def restart_snapshotter(self) -> None:
        await asyncio.to_thread(self.snapshotter.stop)
        await self.start_snapshotter()

    async def a_day_later(self) -> None:
        """The store looks for what is unused, and all was asked for long ago."""
        await asyncio.to_thread(self.snapshotter.stop)
        for path in (self.root / "images" / "overlay").glob("*/link"):
            os.utime(path, (1, 1))
        await self.start_snapshotter()

    def worker(self) -> int:
        """The process that reads for all containers."""
        (mine,) = set(pids_with(WORKER)) & set(pids_with(str(self.root))) - set(pids_with(HOLDER))
        return mine

    async def stays(self) -> Path:
        """The root of a container that runs on."""
        await self.run("--detach", "--name", "stays", IMAGE, "/pause")
        pid = self.podman("inspect", "--format", "{{.State.Pid}}", "stays").strip()
        return Path(f"/proc/{pid}/root")

    async def start_snapshotter(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.snapshotter.start()
        await asyncio.to_thread(self.snapshotter.wait_ready, self.socket.exists)
        await until(lambda: self._asks, "its question for wanted images")

    @property
    def _asks(self) -> bool:
        """In any thread."""
        return self.peer.backend.wanted.listeners > 0

    async def pull(self) -> str:
        return await asyncio.to_thread(self.podman.pull)

    async def run(self, *command: str) -> str:
        return await asyncio.to_thread(self.podman.run, *command)

    @property
    def received_bytes(self) -> int:
        return sum(self.peer.running.node.counters.received.values())


@pytest.fixture
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="p2pe-pod-") as path:
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
        stack.push_async_callback(asyncio.to_thread, made.podman.stop)
        await made.start_snapshotter()
        yield made


def layer_requests(world: World) -> int:
    return sum(world.registry.count("GET", f"/blobs/{digest(layer)}") for layer in LAYERS)


def own_layers(world: World) -> int:
    """How many layers Podman has itself."""
    return len(json.loads((world.podman.root / "overlay-layers" / "layers.json").read_bytes()))


def shown_by(world: World) -> dict[str, str]:
    """Where the layers of the image store are, by their short names."""
    overlay = world.root / "images" / "overlay"
    links = {}
    for path in (overlay / "l").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it goes at this moment
            links[path.name] = path.resolve()
    return {name: str(path.relative_to(world.root)) for name, path in sorted(links.items())}


async def test_a_container_runs_before_its_layers_are_here(world: World) -> None:
    await indexed(world.lab)
    before = world.received_bytes
    world.snapshotter_fills(False)
    await world.restart_snapshotter()

    await world.pull()
    told = await world.run("--rm", IMAGE, "/hello")

    assert told.strip() == GREETING
    assert world.received_bytes - before < 2_000_000, "a span of a layer, and what names it"
    assert own_layers(world) == 0


async def test_one_command_has_containers_start_early_and_takes_it_back(
    world: World, work: Path
) -> None:
    await indexed(world.lab)
    world.snapshotter_fills(False)
    await world.restart_snapshotter()
    etc = work / "root" / "etc" / "containers"
    etc.mkdir(parents=True)
    world.podman.storage_conf = etc / "storage.conf"
    world.podman.storage_conf.write_text(world.podman.own_storage)
    world.podman.registries_conf = etc / "registries.conf.d" / "50-p2pdist.conf"
    # The command looks for the store below the root that it is given.
    (work / "root" / (world.root / "images").relative_to("/")).mkdir(parents=True)

    await runtime(work, "install", "--early-starts", *world.places())
    before = world.received_bytes
    await world.pull()
    assert (await world.run("--rm", IMAGE, "/hello")).strip() == GREETING
    assert world.received_bytes - before < 2_000_000, "a span of a layer, and what names it"
    assert own_layers(world) == 0

    world.podman("rmi", IMAGE)
    said = await runtime(work, "install", "--no-early-starts", *world.places())
    assert "early starts are out of storage.conf" in said
    assert world.podman.storage_conf.read_text() == world.podman.own_storage
    await world.pull()
    assert (await world.run("--rm", IMAGE, "/hello")).strip() == GREETING
    assert own_layers(world) == len(LAYERS), "as ever"
    await runtime(work, "uninstall")
    assert not world.podman.registries_conf.exists()


async def runtime(work: Path, verb: str, *options: str) -> str:
    argv = [sys.executable, "-m", "p2pdist.cli.main", "runtime", verb, "--engine", "podman"]
    argv += ["--root", str(work / "root"), "--state-dir", str(work / "kept"), *options]
    return await asyncio.to_thread(run, argv, env={"PYTHONPATH": str(REPOSITORY_ROOT)})


async def test_a_container_sees_what_was_pushed_and_can_write(world: World) -> None:
    await indexed(world.lab)
    await world.pull()
    root = await world.stays()

    def looked_at() -> None:
        assert {"new", "old"} & set(os.listdir(root / "etc")) == {"new"}
        assert stat.S_IMODE(os.stat(root / "etc").st_mode) == 0o751, "as a layer below says"
        assert (root / "noise").read_bytes() == NOISE
        assert (root / "words" / "007").read_bytes() == text(40_000, 7)
        (root / "words" / "007").write_bytes(b"written")
        (root / "etc" / "new").unlink()
        assert (root / "words" / "007").read_bytes() == b"written"
        assert not (root / "etc" / "new").exists()

    await asyncio.to_thread(looked_at)


async def test_new_containers_read_plain_files(world: World) -> None:
    await indexed(world.lab)
    await world.pull()
    await until(
        lambda: list(shown_by(world).values()) == [f"layers/{n}/fs" for n in (1, 2, 3)],
        "plain files of all layers",
    )

    world.snapshotter.kill9()
    await asyncio.to_thread(syscalls.unmount, str(world.root / "mnt"))

    assert (await world.run("--rm", IMAGE, "/hello")).strip() == GREETING


@pytest.mark.faults
async def test_daemons_that_end_end_no_container(world: World) -> None:
    """The process that reads is killed, and the snapshotter, which comes back."""
    await indexed(world.lab)
    world.snapshotter_fills(False)
    await world.restart_snapshotter()
    await world.pull()
    root = await world.stays()

    async def read(name: str) -> bytes:
        return await asyncio.to_thread((root / name).read_bytes)

    os.kill(world.worker(), signal.SIGKILL)
    assert await read("words/001") == text(40_000, 1)
    world.snapshotter.kill9()
    assert await read("words/059") == text(40_000, 59)
    assert (await world.run("--rm", IMAGE, "/hello")).strip() == GREETING, "with no snapshotter"
    await world.start_snapshotter()
    assert await read("noise") == NOISE
    assert (await world.run("--rm", IMAGE, "/hello")).strip() == GREETING
    assert await world.pull()
    assert layer_requests(world) == len(LAYERS), "those of the proxy, once each"


async def test_after_a_restart_of_the_host_images_are_there(world: World) -> None:
    await indexed(world.lab)
    world.snapshotter_fills(False)
    await world.restart_snapshotter()
    await world.pull()
    before = shown_by(world)
    await asyncio.to_thread(world.snapshotter.stop)
    await asyncio.to_thread(syscalls.unmount, str(world.root / "mnt"))

    await world.start_snapshotter()

    assert shown_by(world) == before
    assert (await world.run("--rm", IMAGE, "/hello")).strip() == GREETING


async def test_an_image_that_nobody_has_seen_is_pulled_as_ever(world: World) -> None:
    await world.pull()

    assert (await world.run("--rm", IMAGE, "/hello")).strip() == GREETING
    assert shown_by(world) == {}
    assert layer_requests(world) == len(LAYERS)


async def test_without_a_snapshotter_images_are_pulled_as_ever(world: World) -> None:
    await indexed(world.lab)
    world.snapshotter.kill9()

    began_s = time.monotonic()
    await world.pull()

    assert time.monotonic() - began_s < HOLD_S, "nobody waits for it"
    assert (await world.run("--rm", IMAGE, "/hello")).strip() == GREETING


async def test_what_is_used_stays_and_the_rest_goes_in_time(world: World) -> None:
    await indexed(world.lab)
    await world.pull()
    await world.stays()
    await world.a_day_later()
    assert len(shown_by(world)) == len(LAYERS), "Podman has an image and a container of it"

    world.podman("rm", "--force", "--time", "0", "stays")
    world.podman("rmi", IMAGE)
    await world.a_day_later()
    told = world.snapshotter.log
    await until(lambda: shown_by(world) == {}, "end of the layers", told)
    await until(lambda: os.listdir(world.root / "layers") == [], "end of their files", told)

    await world.pull()
    assert (await world.run("--rm", IMAGE, "/hello")).strip() == GREETING
    assert world.podman("image", "ls", "--quiet").split()


async def test_what_is_made_of_an_image_lies_upon_it(world: World) -> None:
    await indexed(world.lab)
    await world.pull()
    world.podman("create", "--name", "made", IMAGE, "/hello")
    world.podman("commit", "--quiet", "made", "localhost/own:1")

    assert (await world.run("--rm", "localhost/own:1", "/hello")).strip() == GREETING


async def test_an_image_is_saved_when_it_is_all_here(world: World, work: Path) -> None:
    await indexed(world.lab)
    world.snapshotter_fills(False)
    await world.restart_snapshotter()
    await world.pull()
    saved, loads = work / "saved.tar", ["load", "--input", str(work / "saved.tar")]
    with pytest.raises(LabError, match="is not all here yet"):
        world.podman("save", "--output", str(saved), IMAGE)
    with pytest.raises(LabError):
        world.podman(*loads)  # nobody takes what is left of it for an image
    saved.unlink(missing_ok=True)

    world.snapshotter_fills(True)
    await world.restart_snapshotter()
    await until(
        lambda: list(shown_by(world).values()) == [f"layers/{n}/fs" for n in (1, 2, 3)],
        "plain files of all layers",
    )
    world.podman("save", "--output", str(saved), IMAGE)

    with tarfile.open(saved) as archive:
        names = archive.getnames()
        for plain in ARCHIVES:
            name = next(name for name in names if name == f"{digest(plain)[7:]}.tar")
            member = archive.extractfile(name)
            assert member is not None
            assert member.read() == plain, "to the last byte"
