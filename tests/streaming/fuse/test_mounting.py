"""What is in the way of a mount is said before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.streaming.fuse import mounting
from p2pdist.streaming.fuse.mounting import CannotMount, MountOptions, mount

WORKER = ["/nonexistent/worker"]


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if this were root, on a machine with FUSE; starting something fails."""
    device = tmp_path / "fuse"
    device.touch()
    monkeypatch.setattr(mounting, "DEVICE", device)
    monkeypatch.setattr("os.geteuid", lambda: 0)

    def start(*_args: object, **_more: object) -> None:
        raise NotImplementedError("a holder was started")

    monkeypatch.setattr("subprocess.Popen", start)


@pytest.fixture
def mount_point(tmp_path: Path) -> Path:
    path = tmp_path / "mount"
    path.mkdir()
    return path


def test_an_empty_directory_is_mounted_at(mount_point: Path) -> None:
    with pytest.raises(NotImplementedError):
        mount(WORKER, mount_point)


def test_not_root(mount_point: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(CannotMount, match="only root"):
        mount(WORKER, mount_point)


def test_no_fuse(mount_point: Path) -> None:
    mounting.DEVICE.unlink()

    with pytest.raises(CannotMount, match="modprobe fuse"):
        mount(WORKER, mount_point)


def test_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CannotMount, match="not a directory"):
        mount(WORKER, tmp_path / "file")
    with pytest.raises(CannotMount, match="not a directory"):
        mount(WORKER, tmp_path / "nothing")


def test_files_are_hidden_only_when_that_is_allowed(mount_point: Path) -> None:
    (mount_point / "file").touch()

    with pytest.raises(CannotMount, match="not empty"):
        mount(WORKER, mount_point)
    with pytest.raises(NotImplementedError):
        mount(WORKER, mount_point, MountOptions(over_files=True))


def test_a_place_that_is_taken() -> None:
    with pytest.raises(CannotMount, match="mounted at /proc already"):
        mount(WORKER, Path("/proc"))
