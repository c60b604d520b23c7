"""A `FileTree` in memory, of files whose content may be made up as it is read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from p2pdist.streaming.ports import ROOT_NODE, Attributes

Content = Callable[[int, int], bytes]
"""Returns the bytes from an offset on, so many at most."""


@dataclass
class _Node:
    attributes: Attributes
    children: list[tuple[bytes, int]] = field(default_factory=list)
    by_name: dict[bytes, int] = field(default_factory=dict)
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    content: Content = lambda offset, size: b""


class MemoryTree:
    """Build it first, then serve it: nothing here locks."""

    def __init__(self) -> None:
        root = Attributes(ROOT_NODE, stat.S_IFDIR | 0o755, 0, 0, 0, 0, 2)
        self._nodes = {ROOT_NODE: _Node(root)}

    def add(
        self,
        parent: int,
        name: bytes,
        mode: int,
        *,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int = 0,
        device: int = 0,
        target: bytes = b"",
        xattrs: Mapping[bytes, bytes] | None = None,
    ) -> int:
        node = len(self._nodes) + ROOT_NODE
        size, links = len(target), 2 if stat.S_ISDIR(mode) else 1
        told = Attributes(node, mode, uid, gid, size, mtime_ns, links, device)
        self._nodes[node] = _Node(told, target=target, xattrs=dict(xattrs or {}))
        self._enter(parent, name, node)
        return node

    def directory(self, parent: int, name: bytes, **more: object) -> int:
        return self.add(parent, name, stat.S_IFDIR | 0o755, **more)  # type: ignore[arg-type]  # fields of a node

    def file(self, parent: int, name: bytes, data: bytes, mode: int = 0o644) -> int:
        return self.made_up(parent, name, len(data), lambda at, n: data[at : at + n], mode)

    def made_up(
        self, parent: int, name: bytes, size_bytes: int, content: Content, mode: int = 0o644
    ) -> int:
        node = self.add(parent, name, stat.S_IFREG | mode)
        told = self._nodes[node]
        told.attributes = msgspec.structs.replace(told.attributes, size_bytes=size_bytes)
        told.content = content
        return node

    def link(self, parent: int, name: bytes, node: int) -> None:
        told = self._nodes[node]
        told.attributes = msgspec.structs.replace(told.attributes, links=told.attributes.links + 1)
        self._enter(parent, name, node)

    def _enter(self, parent: int, name: bytes, node: int) -> None:
        self._nodes[parent].children.append((name, node))
        self._nodes[parent].by_name[name] = node

    def _node(self, node: int) -> _Node:
        try:
            return self._nodes[node]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    # --- FileTree --------------------------------------------------------------------------------

    def attributes(self, node: int) -> Attributes:
        return self._node(node).attributes

    def child(self, node: int, name: bytes) -> int | None:
        return self._node(node).by_name.get(name)

    def children(self, node: int) -> Sequence[tuple[bytes, int]]:
        return self._node(node).children

    def target(self, node: int) -> bytes:
        return self._node(node).target

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        return self._node(node).xattrs

    def read(self, node: int, offset: int, size: int) -> bytes:
        told = self._node(node)
        return told.content(offset, max(0, min(size, told.attributes.size_bytes - offset)))
