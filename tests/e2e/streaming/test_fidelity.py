"""A mounted tree is what was described, to the last bit that stat(2) and read(2) show."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.e2e.harness.processes import wait_until
from tests.e2e.streaming import trees
from tests.e2e.streaming.conftest import MountTree

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def root(mount_tree: MountTree) -> Path:
    return mount_tree("fidelity").path


def test_names_are_bytes(root: Path) -> None:
    names = os.fsencode(root / "names")

    assert sorted(os.listdir(names)) == sorted([*trees.ODD_NAMES, b"other"])
    for name in trees.ODD_NAMES:
        with open(names + b"/" + name, "rb") as file:
            assert file.read() == b"content of " + name
    assert os.readlink(os.fsencode(root / "link")) == b"names/" + trees.NOT_UTF8
    with open(root / "link", "rb") as file:
        assert file.read() == b"content of " + trees.NOT_UTF8


def test_hard_links_are_one_file(root: Path) -> None:
    one, other = os.stat(root / "one"), os.stat(root / "names" / "other")

    assert (one.st_ino, one.st_nlink) == (other.st_ino, 2)
    assert (root / "names" / "other").read_bytes() == b"two names"


def test_devices_are_what_they_say(root: Path) -> None:
    null, disk, pipe = (os.lstat(root / name) for name in ("null", "disk", "pipe"))

    assert stat.S_ISCHR(null.st_mode)
    assert null.st_rdev == os.makedev(1, 3)
    assert (root / "null").read_bytes() == b"", "a device of a lower layer has to work"
    assert stat.S_ISBLK(disk.st_mode)
    assert disk.st_rdev == os.makedev(259, 70_000)
    assert stat.S_ISFIFO(pipe.st_mode)
    assert (pipe.st_uid, pipe.st_gid) == (4_000_000_000, 65_534)


def test_times_to_the_nanosecond_and_bits(root: Path) -> None:
    assert os.stat(root / "fine").st_mtime_ns == trees.MTIME_NS
    assert os.stat(root / "old").st_mtime_ns == trees.BEFORE_1970_NS
    assert stat.S_IMODE(os.stat(root / "fine").st_mode) == 0o4755


def test_xattrs_of_every_size(root: Path) -> None:
    file = root / "capable"

    assert set(os.listxattr(file)) == {"security.capability", "user.huge", "user.empty"}
    assert os.getxattr(file, "security.capability") == trees.CAPABILITY
    assert os.getxattr(file, "user.huge") == trees.HUGE_XATTR
    assert os.getxattr(file, "user.empty") == b""
    assert os.listxattr(root / "one") == []
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr(file, "user.none")


def test_a_large_file_is_read_at_its_end(root: Path) -> None:
    end = len(trees.LARGE_END)
    with open(root / "large", "rb", buffering=0) as file:
        assert file.seek(-end - 5, os.SEEK_END) == trees.LARGE_BYTES - end - 5
        assert file.read(100) == bytes(5) + trees.LARGE_END
        assert file.read(100) == b""
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == trees.LARGE_BYTES
    assert (root / "empty").read_bytes() == b""


def test_a_directory_of_many(root: Path) -> None:
    names = os.listdir(root / "many")

    assert sorted(names) == [f"{number:05}" for number in range(trees.MANY_ENTRIES)]
    with os.scandir(root / "many") as entries:
        assert all(entry.is_file() for entry in entries)


def test_everybody_reads_what_they_may(root: Path) -> None:
    """The mount is for all users, and the kernel heeds owners and modes."""

    def read_as_nobody(name: str) -> int:
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = subprocess.run([*as_nobody, "cat", name], cwd=root, capture_output=True, check=False)
        return done.returncode

    assert read_as_nobody("one") == 0
    assert read_as_nobody("secret") != 0
    assert (root / "secret").read_bytes() == b"for root"


def test_nothing_can_be_written(root: Path) -> None:
    for write in (
        lambda: (root / "new").touch(),
        lambda: (root / "one").unlink(),
        lambda: os.chmod(root / "one", 0o777),
        lambda: (root / "one").open("r+b"),
        lambda: os.setxattr(root / "one", "user.a", b"1"),
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            write()


def test_a_mount_for_people_may_have_neither_bits_nor_devices(mount_tree: MountTree) -> None:
    root = mount_tree("fidelity", nosuid=True, nodev=True).path

    with pytest.raises(PermissionError):
        (root / "null").read_bytes()
    assert os.statvfs(root).f_flag & (os.ST_NOSUID | os.ST_NODEV) == os.ST_NOSUID | os.ST_NODEV


def test_unmounted_and_mounted_again(mount_tree: MountTree) -> None:
    mounted = mount_tree("fidelity")
    mounted.stop()

    assert os.listdir(mounted.path) == []
    assert not mounted.alive()
    assert os.listdir(mount_tree("fidelity").path)


def test_a_mount_that_is_unmounted_by_hand_ends_its_holder(mount_tree: MountTree) -> None:
    mounted = mount_tree("fidelity")

    subprocess.run(["umount", mounted.path], check=True)

    mounted.wait(20)
    assert not mounted.alive()


def test_directories_that_come_and_go_in_a_root_that_changes(
    mount_tree: MountTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = tmp_path / "grown"
    monkeypatch.setenv(trees.GROWN_VARIABLE, str(grown))
    root = mount_tree("growing").path
    assert os.listdir(root) == []
    assert not (root / "layer").exists()

    grown.touch()

    assert (root / "layer" / "file").read_bytes() == b"came later"
    assert os.listdir(root) == ["layer"]
    assert os.listdir(root / "layer") == ["file"]

    grown.unlink()

    assert os.listdir(root) == []
    wait_until(lambda: not (root / "layer").exists(), "end of a name that went away")
