"""File operations of the store: names from digests, no links followed, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.model.ids import Digest
from p2pdist.runtime import failpoints as fail

OPEN_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC


def blob_path(root: Path, digest: Digest) -> Path:
    """Where a digest lies; digests are validated, so no name of the path is anybody's choice."""
    algorithm, _, encoded = digest.partition(":")
    return root / algorithm / encoded[:2] / encoded


def private_directory(path: Path) -> None:
    """Make or check a directory that is ours alone; raise ConfigError for any other."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path} is no directory (symbolic links are refused)")
    if status.st_mode & 0o022:
        raise ConfigError(f"{path} may be written by others; run: chmod go-w {path}")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user; run: chown {os.geteuid()} {path}")


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that it is there whole, after a power cut too, or not at all.

    Raises OSError.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | OPEN_FLAGS, 0o600)
        try:
            pwrite_all(fd, data, 0)
            fail.point("store.before_sync")
            os.fsync(fd)
        finally:
            os.close(fd)
        fail.point("store.before_rename")
        temporary.replace(path)
        fail.point("store.after_rename")
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sweep_unfinished(directory: Path) -> None:
    """Remove what `write_whole` had not finished when the process was killed."""
    for path in directory.glob("*.new"):
        path.unlink(missing_ok=True)


class KeptOpen:
    """A file that is written over and over: opened at the first write, so that a process without
    free descriptors can go on with what it has begun. For one writer at a time."""

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._flags = flags | os.O_WRONLY | os.O_CREAT | OPEN_FLAGS
        self._fd = -1
        self._ended = False

    def fileno(self) -> int:
        """Raises OSError; FileNotFoundError after `end`."""
        if self._ended:
            raise FileNotFoundError(errno.ENOENT, "the blob is gone")
        if self._fd < 0:
            self._fd = os.open(self._path, self._flags, 0o600)
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def end(self) -> None:
        """Close it for good."""
        self._ended = True
        self.close()


def read_file(path: Path, size_max: int) -> bytes | None:
    """The bytes of a file, or None if it cannot be read, is a link, or larger than it may be."""
    try:
        return read_bounded_file(path, size_max)
    except OSError:
        return None


def read_bounded_file(path: Path, size_max: int) -> bytes | None:
    """The bytes of a file, or None if it is larger than it may be; raise OSError otherwise."""
    fd = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    try:
        return pread_all(fd, size_max, 0) if os.fstat(fd).st_size <= size_max else None
    finally:
        os.close(fd)


def pwrite_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def pread_all(fd: int, length: int, offset: int) -> bytes:
    """Up to `length` bytes; fewer only at the end of the file."""
    parts = []
    while length:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return b"".join(parts)
