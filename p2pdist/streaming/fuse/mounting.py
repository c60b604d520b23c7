"""Mounts a tree: starts a holder with its worker, waits until it answers, ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from p2pdist.errors import P2pdistError
from p2pdist.streaming.fuse import holder, syscalls

DEVICE: Final = Path("/dev/fuse")
END_S: Final = 10.0
_POLL_S: Final = 0.01


class CannotMount(P2pdistError):
    """The text says what is in the way."""


class Mounted(Protocol):
    """A tree of files that can be read at `path`, whatever brings them there."""

    @property
    def path(self) -> Path: ...

    def alive(self) -> bool: ...

    def stop(self) -> None:
        """Return when nothing is mounted there; who still has files open gets errors."""
        ...


@dataclass(frozen=True, slots=True)
class MountOptions:
    """As they are: for a lower layer of overlayfs, where programs need their bits and devices."""

    nosuid: bool = False
    nodev: bool = False
    over_files: bool = False
    """Whether the directory may hold files, which are hidden meanwhile."""
    answer_s: float = 30.0
    readahead_kib: int = 1024
    """Of a reader in sequence: Linux gives every FUSE mount 128, whatever is negotiated."""
    log: Path | None = None
    """Where holder and worker write what they have to say; None: where this process does. They
    outlive it, and whoever reads its output to the end would wait for theirs."""


class FuseMount:
    """A `Mounted` by FUSE. It outlives this process; `unmount` ends one of an earlier process."""

    def __init__(self, path: Path, keeper: subprocess.Popen[bytes]) -> None:
        self._path = path
        self._keeper = keeper

    @property
    def path(self) -> Path:
        return self._path

    @property
    def holder_pid(self) -> int:
        return self._keeper.pid

    def alive(self) -> bool:
        return self._keeper.poll() is None

    def wait(self, timeout_s: float) -> None:
        """Return when it has ended, or after that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(timeout_s)

    def stop(self) -> None:
        if self.alive():
            self._keeper.send_signal(signal.SIGTERM)
            self.wait(END_S)
        if self.alive():
            self._keeper.kill()
            self._keeper.wait()
            syscalls.unmount(str(self._path))
        syscalls.clear_stale(str(self._path))


def mount(
    worker: Sequence[str], mount_point: Path, options: MountOptions | None = None
) -> FuseMount:
    """Return when the root of the tree answers; raise CannotMount.

    `worker` is a command that calls `worker.serve`. The holder belongs to a session of its own: it
    goes on when this process ends.
    """
    options = options or MountOptions()
    mount_point = mount_point.absolute()
    _check(mount_point, options)
    keeper, refused = _start(worker, mount_point, options)
    mounted = FuseMount(mount_point, keeper)
    if refused or not _answers(mounted, options.answer_s):
        mounted.stop()
        raise CannotMount(
            f"cannot mount at {mount_point}: "
            + (refused or f"nothing answered within {options.answer_s:g} s; its log says why")
        )
    _set_readahead(mount_point, options.readahead_kib)
    return mounted


def _start(
    worker: Sequence[str], mount_point: Path, options: MountOptions
) -> tuple[subprocess.Popen[bytes], str]:
    """Return a holder, and why it could not mount, if so."""
    told, tell = os.pipe()
    flags = ["--nosuid"] * options.nosuid + ["--nodev"] * options.nodev
    # -P and the directory: nothing that lies where the command was given is imported by root.
    argv = [sys.executable, "-P", "-m", holder.__spec__.name, f"--told-fd={tell}", *flags]
    with open(told, "rb") as words, ExitStack() as stack:
        said = stack.enter_context(options.log.open("ab")) if options.log is not None else None
        try:
            keeper = subprocess.Popen(  # noqa: S603 - our own module, and the worker of our caller
                [*argv, str(mount_point), *worker],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd="/",
                pass_fds=(tell,),
                start_new_session=True,
            )
        finally:
            os.close(tell)
        return keeper, words.read().decode().strip()


def unmount(mount_point: Path) -> None:
    """End whatever is mounted there; its worker and its holder end with it."""
    syscalls.unmount(str(mount_point))


def _check(mount_point: Path, options: MountOptions) -> None:
    if os.geteuid() != 0:
        raise CannotMount("only root can mount")
    if not DEVICE.exists():
        raise CannotMount(f"{DEVICE} is not there: load the kernel module fuse (modprobe fuse)")
    try:
        syscalls.clear_stale(str(mount_point))
        if not mount_point.is_dir():
            raise CannotMount(f"{mount_point} is not a directory")
        if os.path.ismount(mount_point):
            raise CannotMount(f"something is mounted at {mount_point} already")
        if not options.over_files and os.listdir(mount_point):
            raise CannotMount(f"{mount_point} is not empty")
    except OSError as error:
        raise CannotMount(f"{mount_point}: {error.strerror}") from error


def _answers(mounted: FuseMount, timeout_s: float) -> bool:
    """Whether the root can be looked at; who asks may hang, so a thread does."""
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            os.stat(mounted.path)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    for _ in range(round(timeout_s / _POLL_S)):
        asking.join(_POLL_S)
        if not (asking.is_alive() and mounted.alive()):
            break
    return answered.is_set() and mounted.alive()


def _set_readahead(mount_point: Path, kib: int) -> None:
    device = os.stat(mount_point).st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    with contextlib.suppress(OSError):  # /sys is read-only in most containers
        setting.write_text(f"{kib}\n")
