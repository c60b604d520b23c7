"""Row 6 on a real file system: nothing at all can be kept any more, not even a directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from p2pdist.model.ids import parse_digest
from p2pdist.store.files import blob_path
from p2pdist.store.ports import RESERVE_FREE_BYTES
from tests.e2e.faults.scene import Scene, assert_served, read
from tests.e2e.harness.image import REFERENCE, REPOSITORY, Blob, Image, build_image
from tests.e2e.harness.lab import Lab, open_lab
from tests.e2e.harness.mirror import get
from tests.e2e.harness.p2p import LOOPBACK, PEER_PORT, Daemon
from tests.e2e.harness.processes import wait_until
from tests.faults.records import FaultRecord, recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

# A layer of one chunk, kept as a small thing; one for while it is full, one for afterwards.
SMALL, LARGE, LATER = 0, 1, 2
LAYER_BYTES: Final = (90_000, 6_000_000, 5_000_000)
DISK_BYTES: Final = RESERVE_FREE_BYTES + (64 << 20)
INODES: Final = 1024

Fill = Callable[[Path], list[Path]]


@pytest.fixture(scope="module")
def small_image(image_dir: Path) -> Image:
    return build_image(image_dir / "full-disk", layer_bytes=LAYER_BYTES)


@pytest.fixture(scope="module")
def small_storage(image_dir: Path, small_image: Image) -> Path:
    path = image_dir / "full-disk-storage"
    with open_lab() as lab:
        lab.registry(lab.host("registry"), path).push(small_image, REFERENCE)
    return path


def fill_blocks(disk: Path) -> list[Path]:
    """Take the last block."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        status = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - (4 << 20))
        file.seek(0, os.SEEK_END)
        _until_full(lambda: file.write(bytes(4096)))
        os.fsync(file.fileno())
    return [filler]


def fill_inodes(disk: Path) -> list[Path]:
    """Take the last inode."""
    fillers: list[Path] = []

    def one_more() -> None:
        path = disk / f"filler-{len(fillers)}"
        path.touch()
        fillers.append(path)

    _until_full(one_more)
    return fillers


def _until_full(work: Callable[[], object]) -> None:
    def again_and_again() -> None:
        while True:
            work()

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        again_and_again()


@pytest.mark.parametrize("fill", [fill_blocks, fill_inodes])
def test_a_peer_that_can_keep_nothing_serves_everything(
    lab: Lab, small_image: Image, small_storage: Path, fill: Fill
) -> None:
    scene = Scene(lab, small_image, small_storage)
    variant = f"peer on ext4, no {fill.__name__.removeprefix('fill_')} left"
    with recorded(6, "disk really full", variant) as record:
        disk = _disk(lab)
        peer = scene.cluster.start_peer(scene.host("a"), state_dir=disk)
        fillers = fill(disk)

        _assert_small_things_served(scene, peer)
        assert peer.readiness()["degraded"] == ["store_full"]
        assert not _kept(peer, small_image.config)
        _assert_layer_served(record, scene, peer, LARGE)
        assert peer.readiness()["degraded"] == ["store_full"]

        _free(fillers)
        _assert_small_things_served(scene, peer)
        _assert_layer_served(record, scene, peer, LARGE)

        assert peer.readiness()["degraded"] == []
        assert _kept(peer, small_image.manifest)
        assert _kept(peer, small_image.config)
        peer.stop()
        assert scene.layer(LARGE).digest in scene.inspect(peer).whole_blobs
        record.outcome = "everything served unstored; stored once there was room"


@pytest.mark.parametrize("fill", [fill_blocks, fill_inodes])
def test_hosts_behind_a_proxy_that_can_keep_nothing_get_everything(
    lab: Lab, small_image: Image, small_storage: Path, fill: Fill
) -> None:
    disk = _disk(lab)
    scene = Scene(lab, small_image, small_storage, proxy_state_dir=disk)
    variant = f"proxy on ext4, no {fill.__name__.removeprefix('fill_')} left"
    with recorded(6, "disk really full", variant) as record:
        peer = scene.peer("a")
        fillers = fill(disk)

        _assert_small_things_served(scene, peer)
        assert scene.proxy.readiness()["degraded"] == ["store_full"]
        _assert_layer_served(record, scene, peer, LARGE)
        assert not _kept(scene.proxy, small_image.config)

        _free(fillers)
        other = scene.peer("b")
        _assert_small_things_served(scene, other)
        _assert_layer_served(record, scene, other, LATER)

        wait_until(
            lambda: _kept(scene.proxy, small_image.index), "the index at the proxy",
            log=scene.proxy.process.log,
        )  # fmt: skip
        scene.proxy.stop()
        assert scene.layer(LATER).digest in scene.inspect(scene.proxy).whole_blobs
        record.outcome = "everything served through it; stored once there was room"


def _disk(lab: Lab) -> Path:
    return lab.real_disk("full", DISK_BYTES, inodes=INODES)


def _free(fillers: list[Path]) -> None:
    for filler in fillers:
        filler.unlink()


def _assert_small_things_served(scene: Scene, peer: Daemon) -> None:
    for reference in ("1", scene.image.manifest.digest):
        path = f"/v2/{REPOSITORY}/manifests/{reference}"
        status, body = get(peer.host, LOOPBACK, PEER_PORT, path)
        assert status == 200, (reference, body)
    for blob in (scene.image.config, scene.layer(SMALL)):
        assert read(peer, blob).blob == blob


def _assert_layer_served(record: FaultRecord, scene: Scene, peer: Daemon, layer: int) -> None:
    assert_served(record, [read(peer, scene.layer(layer))], scene.layer(layer))


def _kept(daemon: Daemon, blob: Blob) -> bool:
    """A manifest or a small blob lies in its store."""
    return blob_path(daemon.state_dir / "store" / "small", parse_digest(blob.digest)).exists()
