"""Mounts an image, read-only: its layers by FUSE, and overlayfs over them.

STATE/<id>/plan.json, indexes       what the worker of the mount reads
STATE/<id>/layers/0 … n             the layers, one FUSE mount
TARGET                              overlayfs of them, or the only one of them
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.process.files import state_directory
from p2pdist.streaming.fuse import mounting, syscalls
from p2pdist.streaming.fuse.mounting import CannotMount, FuseMount, MountOptions
from p2pdist.streaming.mount_plan import LAYERS_DIRECTORY, MountPlan, read_plan

LOG_NAME: Final = "log"
OPTION_BYTES_MAX: Final = 4095
"""Of mount(2)'s data, a page with its end."""
# What overlayfs looks for in layers of its own making; in others it asks for each name in vain.
_OVERLAY_OPTIONS: Final = b",metacopy=off,redirect_dir=nofollow,index=off,xino=off"
_MS_BIND: Final = 4096
_BUSY: Final = 16

_libc: Final = ctypes.CDLL(None, use_errno=True)


def new_state(state_dir: Path) -> Path:
    """Make a directory for one mount. Raises OSError, ConfigError."""
    directory = state_directory(state_dir) / secrets.token_hex(4)
    directory.mkdir(mode=0o700)
    return directory


def mount_image(directory: Path, options: MountOptions) -> FuseMount:
    """Mount what is planned in `directory`; raise CannotMount, and leave nothing mounted then."""
    plan = read_plan(directory)
    target, layers = Path(plan.target), directory / LAYERS_DIRECTORY
    _check(target)
    layers.mkdir()
    worker = [sys.executable, "-P", "-m", "p2pdist.streaming.mount_worker", str(directory)]
    mounted = mounting.mount(worker, layers, replace(options, log=directory / LOG_NAME))
    try:
        _overlay([layers / str(n) for n in reversed(range(len(plan.layers)))], target, options)
    except BaseException:
        mounted.stop()
        raise
    return mounted


def mounts(state_dir: Path) -> Iterator[tuple[Path, MountPlan]]:
    """Those that were made with this state directory, mounted or not."""
    if not state_dir.is_dir():
        return
    for directory in sorted(state_dir.iterdir()):
        try:
            yield directory, read_plan(directory)
        except ConfigError:
            continue  # being made, or no mount at all


def unmount_image(directory: Path, target: Path, *, lazy: bool = False) -> None:
    """Take a mount away, and what belongs to it. Raises CannotMount where it is in use, unless
    `lazy`: then it goes when nobody uses it any more."""
    if os.path.ismount(target):
        flags = syscalls.UMOUNT_NOFOLLOW | (syscalls.MNT_DETACH if lazy else 0)
        if _libc.umount2(os.fsencode(target), flags) != 0:
            raise CannotMount(f"{target}: {os.strerror(ctypes.get_errno())}")
    layers = directory / LAYERS_DIRECTORY
    mounting.unmount(layers)
    if not os.path.ismount(layers):
        shutil.rmtree(directory, ignore_errors=True)


def mount_writable(image: Path, target: Path, place: Path) -> None:
    """Show `image` at a new directory `target` so that it can be written to; what is written lies
    in `place`. Raises CannotMount, OSError."""
    upper, work = place / "upper", place / "work"
    for directory in (target, upper, work):
        directory.mkdir(mode=0o755)
    status = os.stat(image)
    os.chown(upper, status.st_uid, status.st_gid)
    os.chmod(upper, stat.S_IMODE(status.st_mode))
    data = b"lowerdir=%s,upperdir=%s,workdir=%s" % tuple(map(os.fsencode, (image, upper, work)))
    data += _OVERLAY_OPTIONS
    if _libc.mount(b"p2pdist", os.fsencode(target), b"overlay", 0, data) != 0:
        raise CannotMount(f"{target}: overlayfs: {os.strerror(ctypes.get_errno())}")


def unmount_writable(target: Path) -> None:
    """Take that away, whoever uses it."""
    syscalls.unmount(str(target))


def _check(target: Path) -> None:
    if not target.is_dir():
        raise CannotMount(f"{target} is not a directory")
    if os.path.ismount(target):
        raise CannotMount(f"something is mounted at {target} already")
    if os.listdir(target):
        raise CannotMount(f"{target} is not empty")


def _overlay(layers: Sequence[Path], target: Path, options: MountOptions) -> None:
    """`layers` from the top one down. Raises CannotMount."""
    flags = syscalls.MS_RDONLY
    flags |= syscalls.MS_NOSUID if options.nosuid else 0
    flags |= syscalls.MS_NODEV if options.nodev else 0
    if len(layers) == 1:  # overlayfs wants two
        code = _libc.mount(os.fsencode(layers[0]), os.fsencode(target), None, _MS_BIND, None)
    else:
        data = b"lowerdir=" + b":".join(os.fsencode(layer) for layer in layers)
        data += _OVERLAY_OPTIONS
        if len(data) > OPTION_BYTES_MAX:
            raise CannotMount(f"{len(layers)} layers are more than mount(2) can be told of")
        code = _libc.mount(b"p2pdist", os.fsencode(target), b"overlay", flags, data)
    if code != 0:
        raise CannotMount(f"{target}: overlayfs: {os.strerror(ctypes.get_errno())}")
