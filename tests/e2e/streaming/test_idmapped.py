"""A mounted tree with shifted owners, as container runtimes mount it for a user namespace."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from p2pdist.streaming.fuse import syscalls
from tests.e2e.harness.processes import wait_until
from tests.e2e.streaming.conftest import MountTree

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SHIFT: Final = 100_000
AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
MOVE_MOUNT_F_EMPTY_PATH: Final = 4
OPEN_TREE_CLONE: Final = 1
MOUNT_ATTR_IDMAP: Final = 0x00100000
# The same on every architecture of Linux.
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442

_libc: Final = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@contextmanager
def user_namespace() -> Iterator[int]:
    """A descriptor of one whose root is the user SHIFT outside."""
    with subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE) as inside:
        place = Path(f"/proc/{inside.pid}")
        ours = os.readlink("/proc/self/ns/user")
        wait_until(lambda: os.readlink(place / "ns" / "user") != ours, "user namespace")
        for ids in ("uid_map", "gid_map"):
            (place / ids).write_text(f"0 {SHIFT} 65536")
        fd = os.open(place / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


def test_owners_are_shifted(mount_tree: MountTree, tmp_path: Path) -> None:
    mounted = mount_tree("fidelity").path
    shifted = tmp_path / "shifted"
    shifted.mkdir()
    with user_namespace() as namespace:
        attributes = MountAttributes(MOUNT_ATTR_IDMAP, 0, 0, namespace)
        tree = call(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(mounted), OPEN_TREE_CLONE | os.O_CLOEXEC)
        size = ctypes.sizeof(attributes)
        call(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, ctypes.byref(attributes), size)
        call(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(shifted), MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)
    try:
        assert os.stat(mounted / "one").st_uid == 0
        assert os.stat(shifted / "one").st_uid == SHIFT
        assert (shifted / "one").read_bytes() == b"two names"
    finally:
        syscalls.unmount(str(shifted))
