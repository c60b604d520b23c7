"""The tree of files that the entries of one layer make, as the lower layer of an overlay.

Node numbers follow from the order of the entries alone, so that whoever reads the same index later
gives every file the number that it had. What the layer removes from those below shows as overlayfs
writes it: a device 0/0 of that name, and `trusted.overlay.opaque` at a directory that hides all.
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from p2pdist.streaming.core.tar import Member, UnfitLayer
from p2pdist.streaming.ports import ROOT_NODE, Attributes

DIRECTORY_BYTES: Final = 4096
OPAQUE: Final = b"trusted.overlay.opaque"
DEPTH_MAX: Final = 1024

_WHITEOUT: Final = b".wh."
_OPAQUE_MARK: Final = b".wh..wh..opq"
_AUFS: Final = b".wh..wh."
# What containerd sets, and Linux keeps. Not `trusted.`: overlayfs reads its own there, and a
# redirect would lead anywhere. Of other names no file system knows, and copying a file up fails.
_KEPT_XATTRS: Final = (b"user.", b"security.", b"system.posix_acl_")

_CAPABILITY: Final = b"security.capability"

Xattrs = tuple[tuple[bytes, bytes], ...]

_TYPES: Final = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


@dataclass(slots=True, eq=False)
class Node:
    """A file of any type; `number` is known once the tree is complete."""

    mode: int
    """With the type."""
    member: Member | None = None
    """What the archive says of it; None: a directory that no entry names, or a whiteout."""
    children: dict[bytes, Node] = field(default_factory=dict)
    opaque: bool = False
    links: int = 1
    number: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_whiteout(self) -> bool:
        """The name is gone, whatever the layers below have there."""
        return stat.S_ISCHR(self.mode) and (self.member is None or self.member.device == (0, 0))

    @property
    def target(self) -> bytes:
        return self.member.target if self.member is not None else b""

    @property
    def size_bytes(self) -> int:
        if self.is_directory:
            return DIRECTORY_BYTES
        if self.member is None:
            return 0
        return len(self.member.target) if self.is_link else self.member.size_bytes

    @property
    def offset(self) -> int:
        """Where its content begins in the archive."""
        return self.member.offset if self.member is not None else 0

    def xattrs(self) -> dict[bytes, bytes]:
        found = dict(self.member.xattrs) if self.member is not None else {}
        found = {key: value for key, value in found.items() if key.startswith(_KEPT_XATTRS)}
        if self.opaque:
            found[OPAQUE] = b"y"
        return found

    def attributes(self, first: int = 0) -> Attributes:
        """`first`: where the numbers of its layer begin, if it is one of several."""
        member, number, mode = self.member, first + self.number, self.mode
        if member is None:
            return Attributes(number, mode, 0, 0, self.size_bytes, 0, self.links)
        # Asked for each name of a listing: of most, a plain file, the archive says the size.
        size_bytes = member.size_bytes if stat.S_ISREG(mode) else self.size_bytes
        device = 0 if member.device == (0, 0) else _device(*member.device)
        return Attributes(
            number, mode, member.uid, member.gid, size_bytes, member.mtime_ns, self.links, device
        )


class LayerTree:
    """All of one layer: `root`, and `nodes` by number from `ROOT_NODE` on."""

    def __init__(self, entries: Iterable[Member]) -> None:
        """Raise UnfitLayer for entries that different readers understand differently: a path that
        climbs, one through a link, a link to what is not there."""
        self.root = Node(stat.S_IFDIR | 0o755)
        self._paths: dict[bytes, Node] = {}
        """Directories as entries write them: most lie where the one before them does."""
        for member in entries:
            self._add(member)
        self._paths.clear()
        self.nodes: list[Node] = [self.root]  # 0 is no node
        self.has_xattrs = False
        """Of any file, those included that overlayfs reads."""
        self.has_unnamed = False
        """Directories below the root that no entry names: what they are, the layers below say."""
        self._number()

    def node(self, number: int) -> Node | None:
        return self.nodes[number] if 0 < number < len(self.nodes) else None

    def _add(self, member: Member) -> None:
        path, _, name = member.name.rpartition(b"/")
        directory = self._paths.get(path)
        if directory is None or name in (b"", b".", b".."):
            parts = [part for part in member.name.split(b"/") if part not in (b"", b".")]
            if b".." in parts or len(parts) > DEPTH_MAX:
                raise UnfitLayer(f"a path that climbs: {member.name[:80]!r}")
            if not parts:
                if member.kind == tarfile.DIRTYPE:
                    self.root.mode, self.root.member = stat.S_IFDIR | member.mode, member
                return
            directory = self._directory(parts[:-1])
            if name == parts[-1]:
                self._paths[path] = directory
            name = parts[-1]
        self._add_in(directory, name, member)

    def _add_in(self, directory: Node, name: bytes, member: Member) -> None:
        if name == _OPAQUE_MARK:
            directory.opaque = True
        elif name.startswith(_AUFS):
            pass  # what aufs noted for itself
        elif name.startswith(_WHITEOUT):
            self._remove(directory, name[len(_WHITEOUT) :])
        elif member.kind == tarfile.LNKTYPE:
            self._put(directory, name, self._linked(member))
        else:
            self._put(directory, name, Node(_TYPES[member.kind] | member.mode, member))

    def _put(self, directory: Node, name: bytes, node: Node) -> None:
        """A later entry stands for an earlier one of its name; directories keep what is in them."""
        before = directory.children.get(name)
        if before is not None:
            if node.is_directory and before.is_directory:
                before.mode, before.member = node.mode, _with_xattrs(node.member, before.member)
                return
            if node.is_directory:
                node.opaque = before.is_whiteout
            self._paths.clear()  # it may have been a directory
        directory.children[name] = node

    def _directory(self, parts: list[bytes]) -> Node:
        """That of these names; those that no entry named are made, as whoever unpacks does."""
        node = self.root
        for part in parts:
            if part.startswith(_WHITEOUT):
                raise UnfitLayer(f"a path through a whiteout: {part[:80]!r}")
            below = node.children.get(part)
            if below is None or below.is_whiteout:
                made = Node(stat.S_IFDIR | 0o755, opaque=below is not None)
                below = node.children[part] = made
            elif not below.is_directory:
                raise UnfitLayer(f"a path through what is no directory: {part[:80]!r}")
            node = below
        return node

    @staticmethod
    def _remove(directory: Node, name: bytes) -> None:
        """A whiteout hides what lower layers have; what this one has of that name stays."""
        if name in (b"", b".", b".."):
            raise UnfitLayer("a whiteout of nothing")
        there = directory.children.get(name)
        if there is None:
            directory.children[name] = Node(stat.S_IFCHR)
        elif there.is_directory:
            there.opaque = True

    def _linked(self, member: Member) -> Node:
        node: Node | None = self.root
        for part in member.target.split(b"/"):
            if part not in (b"", b".") and node is not None:
                node = node.children.get(part)
        if node is None or node.is_directory or node.is_whiteout:
            raise UnfitLayer(f"a hard link to what is not there: {member.target[:80]!r}")
        _say_again(node, member)
        return node

    def _number(self) -> None:
        """In the order of a walk; a file with several names has one number."""
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            if node.number:
                node.links += 1  # one more name of it
                continue
            node.number = len(self.nodes)
            self.nodes.append(node)
            if stat.S_ISDIR(node.mode):
                self._number_directory(node)
                waiting.extend(reversed(node.children.values()))
            if node.opaque or (node.member is not None and node.member.xattrs):
                self.has_xattrs = True
        assert self.root.number == ROOT_NODE

    def _number_directory(self, node: Node) -> None:
        modes = [child.mode for child in node.children.values()]
        node.links = 2 + sum(map(stat.S_ISDIR, modes))
        if node.member is None and node is not self.root:
            self.has_unnamed = True


def _say_again(node: Node, link: Member) -> None:
    """What each name says of a file is done to it, in their order, as by containerd and Docker:
    the last one stands. Its owner is set first, and that takes a capability away."""
    assert node.member is not None, "only directories and whiteouts have none"
    kept = tuple(pair for pair in node.member.xattrs if pair[0] != _CAPABILITY)
    if not node.is_link:
        node.mode = stat.S_IFMT(node.mode) | link.mode
    node.member = msgspec.structs.replace(
        node.member,
        mode=link.mode,
        uid=link.uid,
        gid=link.gid,
        mtime_ns=link.mtime_ns,
        xattrs=_merged(kept, link.xattrs),
    )


def _with_xattrs(member: Member | None, before: Member | None) -> Member | None:
    """A directory that is named again keeps those that it has."""
    if member is None or before is None or not before.xattrs:
        return member
    return msgspec.structs.replace(member, xattrs=_merged(before.xattrs, member.xattrs))


def _merged(before: Xattrs, after: Xattrs) -> Xattrs:
    return tuple(sorted((dict(before) | dict(after)).items()))


def _device(major: int, minor: int) -> int:
    """As the kernel packs it for user space (`new_encode_dev`)."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
