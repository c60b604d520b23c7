"""One image, laid out by everybody: ours in three ways, containerd's overlayfs, umoci.

shown      the layers by FUSE, overlayfs over them, as a container of containerd gets them
mounted    the same by `p2pdist mount`
unpacked   our plain files, overlayfs over them
containerd what its own overlayfs snapshotter unpacks
umoci      one directory, into which each layer is unpacked in its turn
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tarfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from p2pdist.model.ids import digest_of
from p2pdist.oci.chains import chain_ids
from p2pdist.streaming.fuse import syscalls
from p2pdist.streaming.image_mount import mounts
from tests.cluster.test_layer_indexes import index_at
from tests.e2e.harness.cri import CriContainerd
from tests.e2e.harness.p2p import REPOSITORY_ROOT
from tests.e2e.harness.processes import Process, run, wait_until
from tests.e2e.streaming.listing import Listing, listing
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import pull
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_images import build_image

IMAGE: Final = "docker.io/library/app:1"
INDEXED_BYTES_MIN: Final = 1 << 20
"""Of layers: smaller ones are read whole, and no proxy makes an index of them."""
UNPACKED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Layer:
    archive: bytes
    blob: bytes


class Unpackers:
    """Each method lists the image as one of them shows it; `shown` before `unpacked`."""

    def __init__(self, work: Path, layers: Sequence[Layer], mirror_url: str) -> None:
        self._work = work
        self._layers = layers
        self._mirror_url = mirror_url
        self.root = work / "state" / "snapshotter"
        self._socket = work / "s.sock"
        self.snapshotter = self._snapshotter(fills=False)
        self.containerd = CriContainerd(work, self._socket, self.root, mirror_url)

    async def shown(self) -> Listing:
        return await self._as_container("shown")

    async def unpacked(self) -> Listing:
        """Waits until all layers are plain files; containers that start then read those."""
        await asyncio.to_thread(self.snapshotter.stop)
        self.snapshotter = self._snapshotter(fills=True)
        await self.start_snapshotter()
        files = self.root / "layers"

        def whole() -> bool:
            return len(list(files.glob("*/fs"))) == len(self._layers)

        await asyncio.to_thread(wait_until, whole, "plain files", timeout_s=UNPACKED_S)
        return await self._as_container("unpacked")

    async def mounted(self) -> Listing:
        target, state = self._work / "mounted", self._work / "mounts"
        target.mkdir()
        mount = ["mount", IMAGE, str(target), "--endpoint", self._mirror_url, "--suid", "--dev"]
        await self._p2pdist(*mount, "--state-dir", str(state))
        found = await asyncio.to_thread(listing, target)
        await self._p2pdist("unmount", str(target), "--state-dir", str(state))
        return found

    async def by_containerd(self) -> Listing:
        hosts = ["--hosts-dir", str(self.containerd.hosts)]
        pulls = ["images", "pull", *hosts, "--snapshotter", "overlayfs", IMAGE]
        await asyncio.to_thread(self.containerd.ctr, *pulls)
        return await self._as_container("containerd", "overlayfs")

    async def by_umoci(self) -> Listing:
        layout, target = self._work / "layout", self._work / "umoci"
        _write_layout(layout, self._layers)
        unpacks = ["umoci", "raw", "unpack", "--image", f"{layout}:1", str(target)]
        await asyncio.to_thread(run, unpacks, timeout_s=UNPACKED_S)
        return await asyncio.to_thread(listing, target)

    async def start_snapshotter(self) -> None:
        self._socket.unlink(missing_ok=True)
        self.snapshotter.start()
        await asyncio.to_thread(self.snapshotter.wait_ready, self._socket.exists)

    def clear(self) -> None:
        """Unmount what a failure left."""
        for place, plan in mounts(self._work / "mounts"):
            syscalls.unmount(plan.target)
            syscalls.unmount(str(place / "layers"))
        for name in ("shown", "unpacked", "containerd"):
            syscalls.unmount(str(self._work / name))
        syscalls.unmount(str(self.root / "mnt"))

    async def _as_container(self, name: str, snapshotter: str = "p2pdist") -> Listing:
        target = self._work / name
        target.mkdir()
        snapshots = ["snapshots", "--snapshotter", snapshotter]
        *_, chain = chain_ids([digest_of(layer.archive) for layer in self._layers])

        def listed() -> Listing:
            # The view is nobody's, and goes by itself, perhaps at once; what it shows stays.
            mount = self.containerd.ctr(*snapshots, "view", "--target", str(target), name, chain)
            run(["sh", "-c", mount])
            try:
                return listing(target)
            finally:
                run(["umount", str(target)])

        return await asyncio.to_thread(listed)

    def _snapshotter(self, *, fills: bool) -> Process:
        argv = [sys.executable, "-m", "p2pdist.cli.main", "snapshotter"]
        argv += ["--host-state-dir", str(self.root.parent)]
        argv += ["--snapshotter-admin-listen", "127.0.0.1:0"]
        argv += ["--snapshotter-socket", str(self._socket), "--snapshotter-mirror"]
        argv += [self._mirror_url]
        for behind in ("fill", "unpack"):
            argv += [f"--snapshotter-{behind}", "true" if fills else "false"]
        env = {"PYTHONPATH": str(REPOSITORY_ROOT), "PYTHONUNBUFFERED": "1"}
        return Process("snapshotter", argv, self._work / "snapshotter.log", env)

    async def _p2pdist(self, *words: str) -> None:
        argv = [sys.executable, "-m", "p2pdist.cli.main", *words]
        env = {"PYTHONPATH": str(REPOSITORY_ROOT)}
        await asyncio.to_thread(run, argv, env=env)


@asynccontextmanager
async def unpackers(work: Path, layers: Sequence[Layer]) -> AsyncIterator[Unpackers]:
    """A registry, a proxy that has indexed the image, a peer with nothing of it; containerd has
    pulled it through our snapshotter."""
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(FakeRegistry())
        lab = await stack.enter_async_context(open_lab(work / "lab", {"docker.io": registry.url}))
        lab.layer_index = True
        blobs, archives = [layer.blob for layer in layers], [layer.archive for layer in layers]
        registry.add_image("library/app", "1", blobs, archives=archives)
        await lab.proxy()
        await _indexed(lab, blobs)
        peer = await lab.peer("peer")
        made = Unpackers(work, layers, url_of(peer.mirror))
        stack.callback(made.clear)
        stack.push_async_callback(lambda: asyncio.to_thread(made.snapshotter.stop))
        stack.push_async_callback(asyncio.to_thread, made.containerd.stop)
        await made.start_snapshotter()
        made.containerd.start()
        await asyncio.to_thread(made.containerd.pull, IMAGE)
        yield made


def unnamed_directories(layers: Sequence[Layer]) -> frozenset[bytes]:
    """The directories that the topmost layer which has something in them does not name."""
    named: dict[bytes, bool] = {}
    for layer in layers:
        here: dict[bytes, bool] = {b"/": False}
        with tarfile.open(fileobj=io.BytesIO(layer.archive), errors="surrogateescape") as tar:
            for info in tar:
                raw = info.name.encode("utf-8", "surrogateescape")
                *above, last = [b"/"] + [
                    part for part in raw.split(b"/") if part not in (b"", b".")
                ]
                path = b""
                for part in above[1:]:
                    path += b"/" + part
                    here.setdefault(path, False)
                if info.isdir():
                    here[path + b"/" + last] = True
        named |= here
    return frozenset(path for path, is_named in named.items() if not is_named)


async def _indexed(lab: Lab, blobs: Sequence[bytes]) -> None:
    async with lab.peer_context("other") as other, aiohttp.ClientSession() as client:
        await pull(client, url_of(other.mirror))
        for blob in blobs:
            if len(blob) >= INDEXED_BYTES_MIN:
                await index_at(client, url_of(other.mirror), digest_of(blob))


def _write_layout(layout: Path, layers: Sequence[Layer]) -> None:
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    built = build_image(
        [layer.blob for layer in layers], archives=[layer.archive for layer in layers]
    )
    for body in (*built.layers, built.config, built.manifest):
        (blobs / digest_of(body).partition(":")[2]).write_bytes(body)
    described = {
        "mediaType": built.media_type,
        "digest": digest_of(built.manifest),
        "size": len(built.manifest),
        "annotations": {"org.opencontainers.image.ref.name": "1"},
    }
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
