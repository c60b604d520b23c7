"""mount(2) and umount2(2) for FUSE, of the standard library alone: the holder uses them."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

_libc: Final = ctypes.CDLL(None, use_errno=True)


def mount(mount_point: str, flags: int) -> int:
    """Mount there and return the descriptor of the connection; raise OSError."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    data = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    target = os.fsencode(mount_point)
    if _libc.mount(b"p2pdist", target, b"fuse.p2pdist", flags | MS_RDONLY, data.encode()) != 0:
        os.close(fd)
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), mount_point)
    return fd


def unmount(mount_point: str) -> bool:
    """Take the mount away, whoever uses it; whether there was one."""
    target = os.fsencode(mount_point)
    return bool(_libc.umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)


def clear_stale(mount_point: str) -> None:
    """Unmount what a holder left that was killed; there may be several on top of each other."""
    while True:
        try:
            os.statvfs(mount_point)  # attributes may be known to the kernel; this it always asks
            return
        except OSError as error:
            if error.errno != errno.ENOTCONN or not unmount(mount_point):
                return
