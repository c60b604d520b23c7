"""Layers of images as directories of one tree, for whoever mounts it."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn, Protocol

from cachetools import LRUCache

from p2pdist.streaming.core.tree import LayerTree, Node
from p2pdist.streaming.ports import ROOT_NODE, Attributes
from p2pdist.streaming.span_reads import LayerSpans

NODE_BITS: Final = 40
"""Of a node's number within its layer; the rest says which layer. Both stay when a worker that
reads the same list of layers takes over."""
DIGITS_MAX: Final = 7
"""Of a number of a layer: 64 bits hold no more beside those of its nodes."""
LISTINGS_KEPT: Final = 1024
"""A long directory is asked for in pieces."""


Layer = tuple[LayerTree, LayerSpans]


class Layers(Protocol):
    """Layers by number, from 0 on. For any thread."""

    def numbers(self) -> Sequence[int]: ...

    def find(self, number: int) -> Layer | None:
        """Raise OSError for one that is there and cannot be read."""
        ...


class ListedLayers:
    """Implements `Layers`: all there will ever be."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers

    @property
    def has_xattrs(self) -> bool:
        """Of any file of any layer."""
        return any(tree.has_xattrs for tree, _ in self._layers)

    def numbers(self) -> Sequence[int]:
        return range(len(self._layers))

    def find(self, number: int) -> Layer | None:
        return self._layers[number] if 0 <= number < len(self._layers) else None


class LayersTree:
    """Implements `FileTree`. The directory of a layer is called by its number."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._lock = threading.Lock()
        self._listings: LRUCache[int, list[tuple[bytes, int]]] = LRUCache(LISTINGS_KEPT)

    def attributes(self, node: int) -> Attributes:
        if node == ROOT_NODE:
            links = 2 + len(self._layers.numbers())
            return Attributes(ROOT_NODE, stat.S_IFDIR | 0o755, 0, 0, 0, 0, links)
        return self._node(node).attributes(node >> NODE_BITS << NODE_BITS)

    def child(self, node: int, name: bytes) -> int | None:
        if node == ROOT_NODE:
            number = _number(name)
            there = number is not None and self._layers.find(number) is not None
            return _first(number) + ROOT_NODE if number is not None and there else None
        below = self._node(node).children.get(name)
        return None if below is None else (node >> NODE_BITS << NODE_BITS) + below.number

    def children(self, node: int) -> Sequence[tuple[bytes, int]]:
        if node == ROOT_NODE:
            return [(b"%d" % n, _first(n) + ROOT_NODE) for n in self._layers.numbers()]
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
        found, spans = self._node(node), self._layer(node)[1]
        stop = min(offset + size, found.size_bytes)
        if not stat.S_ISREG(found.mode) or offset >= stop:
            return b""
        end = found.offset + found.size_bytes
        return spans.read(found.offset + offset, stop - offset, file_end=end)

    def _node(self, node: int) -> Node:
        found = self._layer(node)[0].node(node & ((1 << NODE_BITS) - 1))
        return found if found is not None else _gone()

    def _layer(self, node: int) -> Layer:
        slot = node >> NODE_BITS
        found = self._layers.find(slot - 1) if slot > 0 else None
        return found if found is not None else _gone()


def _gone() -> NoReturn:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def _first(layer: int) -> int:
    """Where the numbers of a layer's nodes begin."""
    return (layer + 1) << NODE_BITS


def _number(name: bytes) -> int | None:
    """Only as we write it: a name such as `007` would be a second one for a directory."""
    if not name.isdigit() or len(name) > DIGITS_MAX:
        return None
    number = int(name)
    return number if name == b"%d" % number else None
