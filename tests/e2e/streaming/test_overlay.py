"""Overlayfs over a mounted tree shows what it would show over an unpacked layer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.streaming import trees
from tests.e2e.streaming.conftest import MountTree

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def merged(mount_tree: MountTree, tmp_path: Path) -> Iterator[Path]:
    """A writable overlay: an empty upper, the tree `overlay_lower`, a directory below it."""
    lower = mount_tree("overlay_lower").path
    base, merged, scratch = (tmp_path / name for name in ("base", "merged", "scratch"))
    for path in (base / "opaque", base / "merged", merged, scratch):
        path.mkdir(parents=True)
    for hidden in ("gone", "opaque/old", "merged/below"):
        (base / hidden).write_bytes(b"below")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", scratch], check=True)
    try:
        for path in (scratch / "upper", scratch / "work"):
            path.mkdir()
        options = f"lowerdir={lower}:{base},upperdir={scratch}/upper,workdir={scratch}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", merged], check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", "--lazy", merged], check=True)
    finally:
        subprocess.run(["umount", "--lazy", scratch], check=True)


def test_whiteouts_and_opaque_directories_hide_what_is_below(merged: Path) -> None:
    assert sorted(os.listdir(merged)) == ["capable", "merged", "null", "opaque"]
    assert not (merged / "gone").exists()
    assert os.listdir(merged / "opaque") == ["new"]
    assert not (merged / "opaque" / "old").exists()
    assert sorted(os.listdir(merged / "merged")) == ["above", "below"]


def test_capabilities_and_devices_come_through(merged: Path) -> None:
    assert os.getxattr(merged / "capable", "security.capability") == trees.CAPABILITY
    assert (merged / "null").write_bytes(b"swallowed") == 9


def test_a_file_is_copied_up_when_it_is_written(merged: Path) -> None:
    with open(merged / "merged" / "above", "ab") as file:
        file.write(b" and more")
    (merged / "opaque" / "new").rename(merged / "opaque" / "renamed")

    assert (merged / "merged" / "above").read_bytes() == b"above and more"
    assert os.listdir(merged / "opaque") == ["renamed"]
    os.chmod(merged / "capable", 0o700)
    assert os.getxattr(merged / "capable", "security.capability") == trees.CAPABILITY
