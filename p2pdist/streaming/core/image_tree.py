"""The files of an image: its layers over each other, as overlayfs would show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pdist.streaming.core.tree import LayerTree, Node

LINKS_MAX: Final = 40
"""Symbolic links on one way, as Linux allows."""


class NoSuchFile(LookupError):
    """A path that leads nowhere in the image; the message says where it ends."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the image: the layers that have it, from the top one down; more than one only for
    a directory."""

    path: bytes
    """From the root, without links."""
    parts: tuple[tuple[int, Node], ...]
    """Number of the layer, counted from the lowest, and its node."""

    @property
    def layer(self) -> int:
        return self.parts[0][0]

    @property
    def node(self) -> Node:
        """What its attributes and its content come from."""
        return self.parts[0][1]


def inherit(layers: Sequence[LayerTree]) -> None:
    """Do `inherit_from` for all layers of an image, from the lowest up."""
    for number, layer in enumerate(layers):
        inherit_from(layers[:number], layer)


def inherit_from(layers: Sequence[LayerTree], layer: LayerTree) -> None:
    """Give directories that no entry of their own layer names what the `layers` below it say of
    them.

    Whoever unpacks has them by then, and makes them only where they are not: a layer that removes
    `/etc/x` must not change the mode of `/etc`. `layers` from the lowest up, which have inherited.
    """
    below = ImageTree(layers)
    waiting = [(layer.root, below.root if layers else None)]
    while waiting:
        node, under = waiting.pop()
        if under is not None and node.member is None:
            node.mode, node.member = under.node.mode, under.node.member
        for name, child in node.children.items():
            if child.is_directory:
                there = below.child(under, name) if under and not node.opaque else None
                is_directory = there is not None and there.node.is_directory
                waiting.append((child, there if is_directory else None))


class ImageTree:
    """`layers` from the lowest up."""

    def __init__(self, layers: Sequence[LayerTree]) -> None:
        tops = [(number, layer.root) for number, layer in enumerate(layers)]
        self.root = Found(b"/", _visible(tops[::-1]))

    def child(self, directory: Found, name: bytes) -> Found | None:
        below = [
            (number, node.children[name])
            for number, node in directory.parts
            if node.is_directory and name in node.children
        ]
        parts = _visible(below)
        path = directory.path.rstrip(b"/") + b"/" + name
        return Found(path, parts) if parts else None

    def children(self, directory: Found) -> dict[bytes, Found]:
        """By name, sorted."""
        names = {name for _, node in directory.parts for name in node.children}
        found = {name: self.child(directory, name) for name in sorted(names)}
        return {name: child for name, child in found.items() if child is not None}

    def find(self, path: bytes, *, follow: bool = True) -> Found:
        """Return what `path` leads to; a symbolic link at its end is `follow`ed or returned.

        Raises NoSuchFile. No link leads out of the image: its root is where `..` ends.
        """
        ways, waiting, links = [self.root], _parts(path)[::-1], 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                ways = ways[:-1] or ways
                continue
            if not ways[-1].node.is_directory:
                raise NoSuchFile(f"{_text(ways[-1].path)} is not a directory")
            below = self.child(ways[-1], part)
            if below is None:
                at = _text(ways[-1].path.rstrip(b"/") + b"/" + part)
                raise NoSuchFile(f"there is no {at} in the image")
            if below.node.is_link and (waiting or follow):
                links += 1
                if links > LINKS_MAX:
                    raise NoSuchFile(f"too many symbolic links at {_text(below.path)}")
                target = below.node.target
                ways = [self.root] if target.startswith(b"/") else ways
                waiting += _parts(target)[::-1]
                continue
            ways = [*ways, below]
        return ways[-1]


def _visible(parts: Sequence[tuple[int, Node]]) -> tuple[tuple[int, Node], ...]:
    """What of `parts`, from the top layer down, is not hidden by what lies above it."""
    seen: list[tuple[int, Node]] = []
    for number, node in parts:
        if node.is_whiteout or (seen and not node.is_directory):
            break
        seen.append((number, node))
        if not node.is_directory or node.opaque:
            break
    return tuple(seen)


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
