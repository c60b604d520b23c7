"""Files of our own: private, no links followed, whole after a power cut or not there at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from p2pdist.errors import ConfigError
from p2pdist.process import failpoints as fail

OPEN_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_UNFINISHED: Final = ".new"
_SQLITE_TAILS: Final = ("", "-wal", "-shm", "-journal")


def private_directory(path: Path) -> None:
    """Make or check a directory that is ours alone; raise ConfigError for any other."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
        sync_directory(path.parent)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path} is no directory (symbolic links are refused)")
    if status.st_mode & 0o022:
        raise ConfigError(f"{path} may be written by others; run: chmod go-w {path}")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user; run: chown {os.geteuid()} {path}")


def state_directory(path: Path) -> Path:
    """Do that for the state of a daemon, and clear away what a kill left there unfinished."""
    private_directory(path)
    sweep_unfinished(path)
    return path


class Replacement:
    """What will lie at `path` as a whole, after a power cut too, or not at all.

    A context: what was not committed by its end is gone. Blocking; all methods raise OSError.
    `points`: how the failpoints of its steps begin.
    """

    def __init__(self, path: Path, mode: int = 0o600, *, points: str = "files") -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        # A name of chance: nobody can have put a link in its place.
        self._scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
        self._fd = os.open(self._scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FLAGS, 0o600)
        self._mode = mode
        self._points = points

    def write(self, data: bytes) -> None:
        write_all(self._fd, data)

    def commit(self, *, durable: bool = True, replace: bool = True) -> None:
        """Give it its name. `durable`: return once a power cut cannot bring the old file back.
        Without `replace`, FileExistsError is raised where something has the name."""
        os.fchmod(self._fd, self._mode)
        fail.point(f"{self._points}.before_sync")
        os.fsync(self._fd)
        fail.point(f"{self._points}.before_rename")
        if replace:
            self._scratch.replace(self._path)
        else:
            os.link(self._scratch, self._path)
        fail.point(f"{self._points}.after_rename")
        if durable:
            sync_directory(self._path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        with contextlib.suppress(OSError):  # it has its own name by now
            self._scratch.unlink()


def write_whole(
    path: Path,
    data: bytes,
    *,
    mode: int = 0o600,
    durable: bool = True,
    replace: bool = True,
    points: str = "files",
) -> None:
    """Put `data` at `path` (see `Replacement`). `durable` may be left out for what comes again when
    it is lacking: it costs one flush more. Blocking; raises OSError."""
    with Replacement(path, mode, points=points) as scratch:
        scratch.write(data)
        scratch.commit(durable=durable, replace=replace)


def own_database(path: Path) -> None:
    """Make the file of an SQLite database readable by us alone, and refuse links in its place and
    beside it: SQLite would follow them. Blocking; raises OSError."""
    for tail in _SQLITE_TAILS:
        beside = path.with_name(path.name + tail)
        if beside.is_symlink():
            raise OSError(errno.ELOOP, "a link is no place for a database", str(beside))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | OPEN_FLAGS, 0o600)
    try:
        os.fchmod(fd, 0o600)  # SQLite gives its other files the same mode
    finally:
        os.close(fd)


Mark = tuple[int, int, int, int]


def mark_of(path: Path) -> Mark | None:
    """Tell apart what lies at `path` at two moments, without reading it; None: nothing. Of what a
    link leads to, as Kubernetes makes them. Blocking."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sync_directory(path: Path) -> None:
    """Let names given and taken in a directory outlive a power cut. Blocking; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot, and need not
            raise
    finally:
        os.close(fd)


def sweep_unfinished(directory: Path) -> None:
    """Remove what `write_whole` had not finished when the process was killed."""
    for path in directory.glob(f"*{_UNFINISHED}"):
        with contextlib.suppress(OSError):  # a disk that does not even let go of a file says so
            path.unlink()


def no_follow(path: str, flags: int) -> int:
    """Opener for `open` that follows no link."""
    return os.open(path, flags | OPEN_FLAGS)


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
