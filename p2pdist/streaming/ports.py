"""What a mounted tree of files is, to whoever mounts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

ROOT_NODE: Final = 1


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """As `stat(2)` tells them; `node` is the inode number. One is made for every name of a listing:
    frozen dataclasses are slow to make."""

    node: int
    mode: int
    """Type and permission bits."""
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    links: int
    device: int = 0
    """Of a device file, as `os.makedev` packs it."""


class FileTree(Protocol):
    """Read-only; a node is known by its number, which stays the same for good.

    Called from several threads at a time. Names are bytes: the kernel knows no encoding. All raise
    OSError, whose errno the reader sees: ESTALE for a node that is not there, EIO for content that
    nobody brings, or that is not what it was proven to be.
    """

    def attributes(self, node: int) -> Attributes: ...

    def child(self, node: int, name: bytes) -> int | None:
        """The node of `name` in a directory; None where there is none."""
        ...

    def children(self, node: int) -> Sequence[tuple[bytes, int]]:
        """Names and nodes of a directory, in an order that stays; without `.` and `..`."""
        ...

    def target(self, node: int) -> bytes:
        """What a symbolic link points to."""
        ...

    def xattrs(self, node: int) -> Mapping[bytes, bytes]: ...

    def read(self, node: int, offset: int, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end of the file; block until they are there."""
        ...
