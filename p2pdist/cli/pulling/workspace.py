"""Where the blobs of a pull lie until they are whole: a directory of chance beside the target."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from p2pdist.process.files import OPEN_FLAGS

PREFIX: Final = ".p2pdist-pull-"
PLAIN_LAYER: Final = "plain.tar"
TRIES_MAX: Final = 16
# What a pull puts there. A directory with anything else in it was not made by one.
_OURS: Final = re.compile(rf"[0-9a-f]{{64,128}}(\.tar)?|{re.escape(PLAIN_LAYER)}")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | OPEN_FLAGS


@contextlib.contextmanager
def workspace(place: Path | None) -> Iterator[Path]:
    """A directory in `place` (None: that for temporary files), which is gone in the end.

    A lock on it says that its process lives: the next pull there takes away what a kill left.
    Blocking. Raises OSError.
    """
    place = place or Path(tempfile.gettempdir())
    sweep(place)
    with naming(place):
        directory, lock = _make(place)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def naming(place: Path) -> Iterator[None]:
    """Let an error of the disk name `place`: names of chance in it tell nobody anything."""
    try:
        yield
    except OSError as error:
        error.filename = str(place)
        raise


def sweep(place: Path) -> None:
    """Remove the directories of pulls that are dead. Blocking."""
    try:
        names = [name for name in os.listdir(place) if name.startswith(PREFIX)]
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            _remove_if_left(place / name)


def _make(place: Path) -> tuple[Path, int]:
    """A new directory and the descriptor that holds its lock."""
    for _ in range(TRIES_MAX):
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with contextlib.suppress(FileNotFoundError):  # swept before it had its lock
            lock = os.open(directory, _DIRECTORY)
            try:
                if _locked(lock) is not False and os.path.samestat(
                    directory.stat(), os.fstat(lock)
                ):
                    return directory, lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
    raise OSError(errno.EAGAIN, "others take away every directory that is made here")


def _locked(fd: int) -> bool | None:
    """Whether the lock is ours now; None on a file system that has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_if_left(directory: Path) -> None:
    """Others may have put a directory of that name there: only what a pull makes is touched."""
    fd = os.open(directory, _DIRECTORY)
    try:
        if os.fstat(fd).st_uid != os.geteuid() or not _locked(fd):
            return
        names = os.listdir(fd)
        if not all(map(_OURS.fullmatch, names)):
            return
        for name in names:
            os.unlink(name, dir_fd=fd)
        directory.rmdir()
    finally:
        os.close(fd)
