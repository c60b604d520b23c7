"""Files below a directory whose content somebody else may have chosen: no name leads out of it.

Each directory on the way is opened from the one before it, without following links. A link that
stays below the top is followed by hand; any other is refused by its name. Linux has this as
`openat2(RESOLVE_IN_ROOT)`, which Python cannot call.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from p2pdist.errors import ConfigError
from p2pdist.process.files import OPEN_FLAGS, pread_all

# As many as the kernel follows (path_resolution(7)).
LINKS_MAX: Final = 40
FILE_BYTES_MAX: Final = 16 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | OPEN_FLAGS

Check = Callable[[Path, os.stat_result], None]
"""Looks at a file that was opened, or its directory; raises ConfigError for one to leave alone."""


def _any(path: Path, status: os.stat_result) -> None: ...


@dataclass(slots=True)
class _Way:
    """The directories that are open, from the top to where the walk stands."""

    top: Path
    opened: list[int]
    names: list[str] = field(default_factory=list)

    def path(self, name: str) -> Path:
        return self.top.joinpath(*self.names, name)

    def down(self, name: str, *, make: bool) -> None:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=self.opened[-1])
        self.opened.append(os.open(name, _DIRECTORY, dir_fd=self.opened[-1]))
        self.names.append(name)

    def up(self) -> None:
        os.close(self.opened.pop())
        self.names.pop()

    def link(self, name: str) -> str | None:
        """What the link `name` says; None for anything that is no link."""
        try:
            return os.readlink(name, dir_fd=self.opened[-1])
        except OSError:
            return None

    def close(self) -> None:
        for fd in self.opened:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Tree:
    """What lies below `top`. Paths are absolute and begin with `top`.

    Blocking. All methods raise OSError, and ConfigError for a path that leads out.
    """

    top: Path

    def read(
        self,
        path: Path,
        *,
        size_max: int = FILE_BYTES_MAX,
        follow: bool = True,
        check: Check = _any,
    ) -> bytes | None:
        """Return the bytes of a plain file; None where there is none."""
        try:
            with self._place(path, follow=follow) as (directory, name):
                # A pipe that waits there would keep us for ever.
                fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | OPEN_FLAGS, dir_fd=directory)
                try:
                    check(path.parent, os.fstat(directory))
                    check(path, _plain(path, os.fstat(fd)))
                    data = pread_all(fd, size_max + 1, 0)
                finally:
                    os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ConfigError(f"{path} is a link, or one of very many") from None
            raise
        if len(data) > size_max:
            raise ConfigError(f"{path} is larger than {size_max} bytes")
        return data

    def status(self, path: Path) -> os.stat_result | None:
        """What is there; None where nothing is."""
        try:
            with self._place(path) as (directory, name):
                return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_dir(self, path: Path) -> bool:
        status = self.status(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def listed(self, path: Path) -> list[Path]:
        """What is in a directory, sorted; nothing where it is not there."""
        try:
            with self._place(path / "x") as (directory, _):
                return sorted(path / name for name in os.listdir(directory))
        except FileNotFoundError:
            return []

    def write(
        self,
        path: Path,
        data: bytes,
        new_mode: int = 0o644,
        *,
        follow: bool = True,
        check: Check = _any,
    ) -> None:
        """Replace a file in one step, with the mode and owner that it had; a link stays a link.

        The directories on the way are made; `check` sees the last of them.
        """
        with self._place(path, make=True, follow=follow) as (directory, name):
            check(path.parent, os.fstat(directory))
            try:
                had = _plain(path, os.stat(name, dir_fd=directory, follow_symlinks=False))
            except FileNotFoundError:
                had = None
            with _replacing(directory, name, 0o600) as file:
                file.write(data)
                if had is not None and (had.st_uid, had.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), had.st_uid, had.st_gid)
                os.fchmod(file.fileno(), had.st_mode & 0o7777 if had else new_mode)
                file.flush()
                os.fsync(file.fileno())
            os.fsync(directory)

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[IO[bytes]]:
        """A file that takes the name `path` from what has it when the block ends well."""
        with (
            self._place(path, make=True, follow=False) as (directory, name),
            _replacing(directory, name, 0o666) as file,
        ):
            yield file

    def adopt(self, source: Path, path: Path) -> None:
        """Give a file from elsewhere the name `path`, in the place of what has it."""
        with self._place(path, make=True, follow=False) as (directory, name):
            try:
                os.rename(source, name, dst_dir_fd=directory)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with source.open("rb") as old, _replacing(directory, name, 0o666) as new:
                    shutil.copyfileobj(old, new)
                source.unlink()

    def unlink(self, path: Path, *, follow: bool = True) -> None:
        with (
            contextlib.suppress(FileNotFoundError),
            self._place(path, follow=follow) as (directory, name),
        ):
            os.unlink(name, dir_fd=directory)

    def rmdir(self, path: Path) -> None:
        with self._place(path, follow=False) as (directory, name):
            os.rmdir(name, dir_fd=directory)

    @contextlib.contextmanager
    def _place(
        self, path: Path, *, make: bool = False, follow: bool = True
    ) -> Iterator[tuple[int, str]]:
        """The open directory of `path` and the name in it: of a link only with `follow` off."""
        todo = self._parts(path)
        if make:
            self.top.mkdir(parents=True, exist_ok=True)
        way = _Way(self.top, [os.open(self.top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)])
        try:
            name = self._walk(way, todo, make=make, follow=follow)
            yield way.opened[-1], name
        except OSError as error:
            if not isinstance(error.filename, str) or not error.filename.startswith("/"):
                error.filename = str(path)  # the last name alone, or one of chance, or none
            raise
        finally:
            way.close()

    def _walk(self, way: _Way, todo: list[str], *, make: bool, follow: bool) -> str:
        """Go down to the last of the names `todo`, which are in reverse, and return it."""
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                self._up(way)
                continue
            target = way.link(name) if todo or follow else None
            if target is not None:
                links += 1
                if links > LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(way.path(name)))
                todo += self._target(way, name, target)
            elif todo:
                way.down(name, make=make)
            else:
                return name
        return "."

    def _target(self, way: _Way, name: str, target: str) -> list[str]:
        """The names that a link stands for, in reverse."""
        parts = [part for part in target.split("/") if part not in ("", ".")]
        depth = len(way.names)
        if target.startswith("/"):
            if self.top != Path("/"):
                raise _leads_out(way.path(name), target, self.top)
            while way.names:
                way.up()
            depth = 0
        for part in parts:
            depth += -1 if part == ".." else 1
            if depth < 0 and self.top != Path("/"):
                raise _leads_out(way.path(name), target, self.top)
        return parts[::-1]

    def _up(self, way: _Way) -> None:
        if way.names:  # above / there is / again
            way.up()

    def _parts(self, path: Path) -> list[str]:
        try:
            parts = path.relative_to(self.top).parts
        except ValueError:
            raise ConfigError(f"{path} does not lie below {self.top}") from None
        if ".." in parts:
            raise ConfigError(f"{path} leads out of {self.top}")
        return list(parts[::-1])


def absolute(path: Path) -> Path:
    """A path that the caller typed, as a `Tree` takes it: without `..`."""
    return Path(os.path.abspath(path))  # resolve() would follow links


def own_place(path: Path) -> Path:
    """Where a file that the caller named will lie: a link is written through, as by `curl -o`.

    Raise ConfigError for a link that another user put there, as in /tmp.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return path.absolute()
    if not stat.S_ISLNK(status.st_mode):
        return path.absolute()
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path} is a link of another user; remove it, or choose another name")
    return Path(os.path.realpath(path))


def write_named(path: Path, data: bytes) -> None:
    """Write a file that the caller named. Blocking; raises ConfigError, OSError."""
    place = own_place(path)
    if place.exists() and not place.is_file():  # /dev/stdout
        place.write_bytes(data)
        return
    with Tree(place.parent).replacing(place) as file:
        file.write(data)


def _leads_out(link: Path, target: str, top: Path) -> ConfigError:
    return ConfigError(
        f"{link} is a link to {target}, which may lead out of {top}; make it a relative link "
        "to a place below that, or a file or directory of its own"
    )


def _plain(path: Path, status: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is no plain file")
    return status


@contextlib.contextmanager
def _replacing(directory: int, name: str, mode: int) -> Iterator[IO[bytes]]:
    # A name of chance that must be new: nobody can have put a link in its place.
    scratch = f".{name[:200]}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FLAGS
    fd = os.open(scratch, flags, mode, dir_fd=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
        os.rename(scratch, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch, dir_fd=directory)
        raise
