"""Writes a layer as plain files, as overlayfs wants a lower one, in one pass over its archive."""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from p2pdist.model.ids import Digest, digest_algorithm
from p2pdist.streaming.core.tar import UnfitLayer
from p2pdist.streaming.core.tar_split import Lines, crc64
from p2pdist.streaming.core.tree import LayerTree, Node

_FLAGS: Final = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_libc: Final = ctypes.CDLL(None, use_errno=True)


def checked(archive: Iterable[bytes], diff_id: Digest) -> Iterator[bytes]:
    """Pass on the bytes of an archive; raise UnfitLayer at their end if they are of another one."""
    hashed = hashlib.new(digest_algorithm(diff_id))
    for piece in archive:
        hashed.update(piece)
        yield piece
    if diff_id.partition(":")[2] != hashed.hexdigest():
        raise UnfitLayer(f"its bytes are not {diff_id}")


def unpack(
    tree: LayerTree,
    archive: Iterable[bytes],
    target: bytes,
    recipe: Callable[[bytes], object] | None = None,
) -> None:
    """Write all files of `tree` below `target`, an empty directory; `archive`: all bytes of it.
    `recipe` is given how the archive is made of the files again (`core.tar_split`).

    All of it is on the disk then. The tree has no path that climbs, and every directory on a path
    is one of ours: nothing is followed. Blocking; raises OSError (an attribute that this file
    system does not keep is one), and whatever `archive` raises.
    """
    made = _Made(target)
    made.make(tree)
    _write(made.contents, archive, None if recipe is None else _Recipe(recipe, len(target) + 1))
    for node, path in reversed(made.order):  # a directory after what is in it: its times stay
        _describe(node, path)
    _sync(target)


@dataclass(frozen=True, slots=True)
class _Content:
    offset: int
    stop: int
    path: bytes


class _Made:
    def __init__(self, target: bytes) -> None:
        self._target = target
        self.order: list[tuple[Node, bytes]] = []
        """A directory before what is in it; a file with several names once."""
        self.contents: list[_Content] = []
        """In the order of the archive, once all is made."""

    def make(self, tree: LayerTree) -> None:
        first: dict[Node, bytes] = {}
        waiting = [(tree.root, self._target)]
        self.order.append(waiting[0])
        while waiting:
            directory, path = waiting.pop()
            for name, node in directory.children.items():
                below = path + b"/" + name
                if node in first:
                    os.link(first[node], below, follow_symlinks=False)
                    continue
                first[node] = below
                self.order.append((node, below))
                self._make_one(node, below)
                if node.is_directory:
                    waiting.append((node, below))
        self.contents.sort(key=lambda content: content.offset)

    def _make_one(self, node: Node, path: bytes) -> None:
        kind = stat.S_IFMT(node.mode)
        if kind == stat.S_IFDIR:
            os.mkdir(path, 0o700)
        elif kind == stat.S_IFLNK:
            os.symlink(node.target, path)
        elif kind == stat.S_IFREG:
            os.close(os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600))
            if node.size_bytes:
                self.contents.append(_Content(node.offset, node.offset + node.size_bytes, path))
        else:  # a device, a pipe, or what overlayfs takes for a whiteout
            os.mknod(path, kind | 0o600, node.attributes().device)


class _Recipe:
    def __init__(self, write: Callable[[bytes], object], path_at: int) -> None:
        """`path_at`: where in a path that of its layer begins."""
        self._write = write
        self._path_at = path_at
        self._lines = Lines()
        self._crc = 0

    def between(self, pieces: Iterable[memoryview]) -> None:
        """What is no content of a file."""
        for piece in pieces:
            self._write(self._lines.segment(piece))

    def written(self, piece: memoryview) -> None:
        """Some of the content of a file."""
        self._crc = crc64(piece, self._crc)

    def end(self, content: _Content) -> None:
        """All of it."""
        path, size = content.path[self._path_at :], content.stop - content.offset
        self._write(self._lines.file(path, size, self._crc))
        self._crc = 0


def _write(contents: Iterable[_Content], archive: Iterable[bytes], recipe: _Recipe | None) -> None:
    """Raises UnfitLayer where the archive ends before a content does."""
    pieces, at = _Pieces(archive), 0
    for content in contents:
        if recipe is not None:
            recipe.between(pieces.between(at, content.offset))
        fd = os.open(content.path, _FLAGS)
        try:
            for piece in pieces.between(content.offset, content.stop):
                _write_all(fd, piece)
                if recipe is not None:
                    recipe.written(piece)
        finally:
            os.close(fd)
        if recipe is not None:
            recipe.end(content)
        at = content.stop
    rest = pieces.rest(at)
    if recipe is not None:
        recipe.between(rest)
    for _ in rest:
        pass


class _Pieces:
    """The bytes of an archive, from front to end."""

    def __init__(self, archive: Iterable[bytes]) -> None:
        self._archive = iter(archive)
        self._piece = memoryview(b"")
        self._at = 0
        """Of the first byte of the piece."""

    def between(self, start: int, stop: int) -> Iterator[memoryview]:
        while start < stop:
            while self._at + len(self._piece) <= start:
                if not self._next():
                    raise UnfitLayer(f"its archive ends before byte {stop}")
            assert self._at <= start, "contents are not in the order of the archive"
            piece = self._piece[start - self._at : stop - self._at]
            yield piece
            start += len(piece)

    def rest(self, start: int) -> Iterator[memoryview]:
        """All from there on; it may have ended before."""
        while True:
            if piece := self._piece[max(0, start - self._at) :]:
                yield piece
            if not self._next():
                return

    def _next(self) -> bool:
        self._at += len(self._piece)
        found = next(self._archive, None)
        self._piece = memoryview(found or b"")
        return found is not None


def _write_all(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]


def _describe(node: Node, path: bytes) -> None:
    """Owner first: changing it takes set-id bits and capabilities away."""
    told = node.attributes()
    os.chown(path, told.uid, told.gid, follow_symlinks=False)
    if not node.is_link:
        os.chmod(path, stat.S_IMODE(node.mode))
    for name, value in node.xattrs().items():
        os.setxattr(path, name, value, follow_symlinks=False)
    os.utime(path, ns=(told.mtime_ns, told.mtime_ns), follow_symlinks=False)


def _sync(path: bytes) -> None:
    """All of its file system: one call, where there may be 100,000 files."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
