"""Writes files of an image below a target, all of them or nothing.

They are made beside the target, under a name of chance, and take its place when they are complete.
Names come from the image: none has a slash, and a directory that was made here is never replaced by
a link, so nothing is written through one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2pdist.cli.copying.image import RemoteImage
from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.process.opening import opened
from p2pdist.streaming.core.image_tree import Found
from p2pdist.streaming.core.tree import Node

PREFIX: Final = ".p2pdist-cp-"
DEPTH_MAX: Final = 512
_IN_THE_WAY: Final = frozenset((errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY))


@dataclass(frozen=True, slots=True)
class _File:
    """A regular file with content, and where it goes."""

    found: Found
    path: bytes


@dataclass(slots=True)
class Copied:
    """What was made."""

    files: int = 0
    directories: int = 0
    links: int = 0
    left_out: int = 0
    """Devices, pipes and sockets: not for an ordinary user, and not without `archive`."""
    nbytes: int = 0


@dataclass(slots=True)
class Copying:
    """`archive`: owners, set-id bits and devices as well, as only root may make them."""

    image: RemoteImage
    archive: bool
    advanced: Callable[[int], None] = lambda _: None
    copied: Copied = field(default_factory=Copied)

    async def to(self, found: Found, target: Path) -> None:
        """Copy a file, or a directory with all below it. Raises CommandError, OSError."""
        made = target.parent / f"{PREFIX}{secrets.token_hex(8)}"
        try:
            await self._make(found, made)
            await asyncio.to_thread(_take_place, made, target)
        except BaseException:
            await asyncio.to_thread(_remove, made)
            raise

    async def _make(self, found: Found, path: Path) -> None:
        plan = _Plan(self.image, self.archive, self.copied)
        await asyncio.to_thread(plan.walk, found, os.fsencode(path))
        for layer, files in sorted(plan.files.items()):
            files.sort(key=lambda file: file.found.node.offset)
            reader = self.image.layers[layer]
            reader.expect((f.found.node.offset, f.found.node.size_bytes) for f in files)
            for file in files:
                node = file.found.node
                await self._content(file, reader.pieces(node.offset, node.size_bytes))
        await asyncio.to_thread(plan.finish)

    async def _content(self, file: _File, pieces: AsyncIterator[memoryview]) -> None:
        async with opened(file.path, "xb") as out:
            async for piece in pieces:
                await asyncio.to_thread(out.write, piece)
                self.advanced(len(piece))
                self.copied.nbytes += len(piece)


class _Plan:
    """Makes directories and links; gathers the files with content, and what is to be set last."""

    def __init__(self, image: RemoteImage, archive: bool, copied: Copied) -> None:
        self.files: dict[int, list[_File]] = {}
        self._image = image
        self._archive = archive
        self._copied = copied
        self._set: list[tuple[bytes, Node]] = []
        self._names: dict[Node, bytes] = {}
        """The first name of each file that has several."""
        self._hard: list[tuple[bytes, bytes]] = []

    def walk(self, top: Found, target: bytes) -> None:
        """Blocking. Raises OSError, CommandError."""
        waiting = [(top, target, 0)]
        while waiting:
            found, path, depth = waiting.pop()
            if depth > DEPTH_MAX:
                raise CommandError(f"{os.fsdecode(found.path)} lies too deep", Exit.INTEGRITY)
            node = found.node
            if node.is_directory:
                os.mkdir(path, 0o700)
                self._copied.directories += 1
                self._set.append((path, node))
                children = self._image.tree.children(found)
                waiting += [(child, path + b"/" + n, depth + 1) for n, child in children.items()]
            elif node.is_link:
                os.symlink(node.target, path)
                self._copied.links += 1
                self._set.append((path, node))
            else:
                self._file(found, path)

    def _file(self, found: Found, path: bytes) -> None:
        node = found.node
        if (first := self._names.setdefault(node, path)) is not path:
            self._hard.append((first, path))
            self._copied.links += 1
        elif stat.S_ISREG(node.mode):
            self.files.setdefault(found.layer, []).append(_File(found, path))
            self._copied.files += 1
            self._set.append((path, node))
        elif self._archive:
            os.mknod(path, node.mode, node.attributes().device)
            self._copied.files += 1
            self._set.append((path, node))
        else:
            self._copied.left_out += 1

    def finish(self) -> None:
        """Other names, then modes and times, the deepest first: what is added changes those of a
        directory. Blocking. Raises OSError."""
        for first, other in self._hard:
            with contextlib.suppress(FileNotFoundError):  # a device that was left out
                os.link(first, other)
        for path, node in reversed(self._set):
            found = node.attributes()
            if self._archive:
                os.chown(path, found.uid, found.gid, follow_symlinks=False)
            if not node.is_link:
                os.chmod(path, stat.S_IMODE(node.mode) & (0o7777 if self._archive else 0o777))
            times = (found.mtime_ns, found.mtime_ns)
            os.utime(path, ns=times, follow_symlinks=False)


def _take_place(made: Path, target: Path) -> None:
    try:
        os.replace(made, target)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        hint = "name a place where nothing is yet, or a directory to copy it into"
        raise CommandError(f"{target} exists", Exit.USAGE, hint) from None


def _remove(path: Path) -> None:
    for directory, _, _ in _directories(path):
        with contextlib.suppress(OSError):
            os.chmod(directory, 0o700)
    with contextlib.suppress(OSError):
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _directories(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    return os.walk(path) if path.is_dir() and not path.is_symlink() else iter(())
