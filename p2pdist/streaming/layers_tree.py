"""Layers of images as directories of one tree, for whoever mounts it."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from cachetools import LRUCache

from p2pdist.streaming.core.tree import LayerTree, Node
from p2pdist.streaming.ports import ROOT_NODE, Attributes
from p2pdist.streaming.span_reads import LayerSpans

NODE_BITS: Final = 40
"""Of a node's number within its layer; the rest says which layer. Both stay when a worker that
reads the same list of layers takes over."""
LISTINGS_KEPT: Final = 1024
"""A long directory is asked for in pieces."""


class LayersTree:
    """Implements `FileTree`. The directory of a layer has its number in the list, from 0 on."""

    def __init__(self, layers: Sequence[tuple[LayerTree, LayerSpans]]) -> None:
        self._layers = layers
        self._lock = threading.Lock()
        self._listings: LRUCache[int, list[tuple[bytes, int]]] = LRUCache(LISTINGS_KEPT)

    @property
    def has_xattrs(self) -> bool:
        """Of any file of any layer."""
        return any(tree.has_xattrs for tree, _ in self._layers)

    def attributes(self, node: int) -> Attributes:
        if node == ROOT_NODE:
            return Attributes(ROOT_NODE, stat.S_IFDIR | 0o755, 0, 0, 0, 0, 2 + len(self._layers))
        return self._node(node).attributes(node >> NODE_BITS << NODE_BITS)

    def child(self, node: int, name: bytes) -> int | None:
        if node == ROOT_NODE:
            number = int(name) if name.isdigit() and len(name) < 10 else len(self._layers)
            return _first(number) + ROOT_NODE if number < len(self._layers) else None
        below = self._node(node).children.get(name)
        return None if below is None else (node >> NODE_BITS << NODE_BITS) + below.number

    def children(self, node: int) -> Sequence[tuple[bytes, int]]:
        if node == ROOT_NODE:
            return [(b"%d" % n, _first(n) + ROOT_NODE) for n in range(len(self._layers))]
        with self._lock:
            if (kept := self._listings.get(node)) is not None:
                return kept
        first = node >> NODE_BITS << NODE_BITS
        made = [(name, first + child.number) for name, child in self._node(node).children.items()]
        with self._lock:
            self._listings[node] = made
        return made

    def target(self, node: int) -> bytes:
        return self._node(node).target

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        return {} if node == ROOT_NODE else self._node(node).xattrs()

    def read(self, node: int, offset: int, size: int) -> bytes:
        found, (_, spans) = self._node(node), self._layers[(node >> NODE_BITS) - 1]
        stop = min(offset + size, found.size_bytes)
        if not stat.S_ISREG(found.mode) or offset >= stop:
            return b""
        end = found.offset + found.size_bytes
        return spans.read(found.offset + offset, stop - offset, file_end=end)

    def _node(self, node: int) -> Node:
        slot, number = node >> NODE_BITS, node & ((1 << NODE_BITS) - 1)
        if 0 < slot <= len(self._layers):
            found = self._layers[slot - 1][0].node(number)
            if found is not None:
                return found
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def _first(layer: int) -> int:
    """Where the numbers of a layer's nodes begin."""
    return (layer + 1) << NODE_BITS
