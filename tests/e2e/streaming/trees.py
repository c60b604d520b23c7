"""The trees that the tests mount, and the worker that serves one of them.

    python -m tests.e2e.streaming.trees NAME

Both ends make a tree up from its name, so the tests know what has to be read. Workers start as fast
as they import little: a reader waits for that when one was killed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from p2pdist.streaming.fuse.holder import TAKEOVER_VARIABLE
from p2pdist.streaming.fuse.session import SessionOptions
from p2pdist.streaming.fuse.worker import serve
from p2pdist.streaming.ports import ROOT_NODE
from tests.fakes.memory_tree import MemoryTree

ODD_NAMES: Final = (b"latin-\xe9", b"new\nline", b"-rf", b"\xff\xfe", b"n" * 255, b"a b\tc")
NOT_UTF8: Final = b"latin-\xe9"
LARGE_BYTES: Final = 5 * 2**30
LARGE_END: Final = b"the end of it"
MANY_ENTRIES: Final = 10_000
MTIME_NS: Final = 1_234_567_890_123_456_789
BEFORE_1970_NS: Final = -1_500_000_001
HUGE_XATTR: Final = b"x" * 60_000
CAPABILITY: Final = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""VFS_CAP_REVISION_2, effective, CAP_NET_BIND_SERVICE."""

GROWN_VARIABLE: Final = "P2PDIST_TEST_GROWN"
"""Names the file whose being there makes the tree `growing` grow."""
LATE: Final = b"late, but right"
SMALL_FILES: Final = 7_000
SEQUENTIAL_BYTES: Final = 512 * 2**20
_PATTERN: Final = Random(7).randbytes(1_000_003)  # a prime: no two pages of the file are alike
_PATTERN_REPEATED: Final = _PATTERN * 3


def small_file(number: int) -> bytes:
    """As a Python library has them: 4 kB in the middle."""
    seed = hashlib.sha256(str(number).encode()).digest()
    return (seed * 512)[: 200 + number % 8_000]


def block(offset: int, size: int) -> bytes:
    """Content that is no other at the next place of a page, and costs a copy."""
    start = offset % len(_PATTERN)
    return _PATTERN_REPEATED[start : start + size]


def fidelity() -> MemoryTree:
    tree = MemoryTree()
    names = tree.directory(ROOT_NODE, b"names")
    for name in ODD_NAMES:
        tree.file(names, name, b"content of " + name)
    linked = tree.file(ROOT_NODE, b"one", b"two names")
    tree.link(names, b"other", linked)
    tree.file(ROOT_NODE, b"empty", b"")
    tree.file(ROOT_NODE, b"secret", b"for root", 0o600)
    tree.add(ROOT_NODE, b"link", stat.S_IFLNK | 0o777, target=b"names/latin-\xe9")
    tree.add(ROOT_NODE, b"null", stat.S_IFCHR | 0o666, device=os.makedev(1, 3))
    tree.add(ROOT_NODE, b"disk", stat.S_IFBLK | 0o660, device=os.makedev(259, 70_000))
    tree.add(ROOT_NODE, b"pipe", stat.S_IFIFO | 0o600, uid=4_000_000_000, gid=65_534)
    tree.add(ROOT_NODE, b"fine", stat.S_IFREG | 0o4755, mtime_ns=MTIME_NS)
    tree.add(ROOT_NODE, b"old", stat.S_IFREG | 0o644, mtime_ns=BEFORE_1970_NS)
    tree.add(
        ROOT_NODE,
        b"capable",
        stat.S_IFREG | 0o755,
        xattrs={b"security.capability": CAPABILITY, b"user.huge": HUGE_XATTR, b"user.empty": b""},
    )
    large_end = LARGE_BYTES - len(LARGE_END)

    def large(offset: int, size: int) -> bytes:
        zeros = bytes(max(0, min(size, large_end - offset)))
        return zeros + LARGE_END[max(0, offset - large_end) :][: size - len(zeros)]

    tree.made_up(ROOT_NODE, b"large", LARGE_BYTES, large)
    many = tree.directory(ROOT_NODE, b"many")
    for number in range(MANY_ENTRIES):
        tree.file(many, b"%05d" % number, b"")
    return tree


def overlay_lower() -> MemoryTree:
    """The upper of two layers: it hides `gone`, and all that `opaque` had below."""
    tree = MemoryTree()
    tree.add(ROOT_NODE, b"gone", stat.S_IFCHR, device=0)
    opaque = tree.directory(ROOT_NODE, b"opaque", xattrs={b"trusted.overlay.opaque": b"y"})
    tree.file(opaque, b"new", b"new")
    tree.file(tree.directory(ROOT_NODE, b"merged"), b"above", b"above")
    tree.add(ROOT_NODE, b"null", stat.S_IFCHR | 0o666, device=os.makedev(1, 3))
    tree.add(
        ROOT_NODE, b"capable", stat.S_IFREG | 0o755, xattrs={b"security.capability": CAPABILITY}
    )
    return tree


def many_files() -> MemoryTree:
    tree = MemoryTree()
    for number in range(SMALL_FILES):
        if number % 100 == 0:
            directory = tree.directory(ROOT_NODE, b"d%d" % number)
        tree.file(directory, b"f%d" % number, small_file(number))
    tree.made_up(ROOT_NODE, b"sequential", SEQUENTIAL_BYTES, block)
    return tree


def failing() -> MemoryTree:
    """Content that nobody brings, that is cut short, that does not come; and the bug of a tree."""
    tree = MemoryTree()
    never = threading.Event()

    def unavailable(offset: int, size: int) -> bytes:
        raise OSError(errno.EIO, "nobody brings it")

    def cut_short(offset: int, size: int) -> bytes:
        return bytes(size)[: size // 2]

    def not_coming(offset: int, size: int) -> bytes:
        never.wait()
        return b""

    def wrong(offset: int, size: int) -> bytes:
        raise LookupError("a mistake")

    tree.made_up(ROOT_NODE, b"unavailable", 100_000, unavailable)
    tree.made_up(ROOT_NODE, b"cut-short", 100_000, cut_short)
    tree.made_up(ROOT_NODE, b"wrong", 100_000, wrong)
    for number in range(100):
        tree.made_up(ROOT_NODE, b"not-coming-%d" % number, 100_000, not_coming)
    tree.file(ROOT_NODE, b"good", b"good")
    return tree


def late() -> MemoryTree:
    """Content that only the second worker has."""
    tree = MemoryTree()
    takes_over = os.environ[TAKEOVER_VARIABLE] == "1"

    def read(offset: int, size: int) -> bytes:
        if not takes_over:
            threading.Event().wait()
        return LATE[offset:][:size]

    tree.made_up(ROOT_NODE, b"late", len(LATE), read)
    return tree


class _Growing(MemoryTree):
    """Its root has what it has when a file is there, and has nothing before and after."""

    def child(self, node: int, name: bytes) -> int | None:
        return super().child(node, name) if node != ROOT_NODE or self._grown() else None

    def children(self, node: int) -> Sequence[tuple[bytes, int]]:
        return super().children(node) if node != ROOT_NODE or self._grown() else ()

    def _grown(self) -> bool:
        return os.path.exists(os.environ[GROWN_VARIABLE])


def growing() -> MemoryTree:
    tree = _Growing()
    tree.file(tree.directory(ROOT_NODE, b"layer"), b"file", b"came later")
    return tree


TREES: Final[dict[str, Callable[[], MemoryTree]]] = {
    "fidelity": fidelity,
    "overlay_lower": overlay_lower,
    "many_files": many_files,
    "failing": failing,
    "late": late,
    "growing": growing,
}


def worker(name: str) -> list[str]:
    return [sys.executable, "-m", "tests.e2e.streaming.trees", name]


if __name__ == "__main__":
    serve(TREES[sys.argv[1]](), SessionOptions(root_changes=sys.argv[1] == "growing"))
