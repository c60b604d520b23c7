"""A session against the kernel's end of its connection: no root, no /dev/fuse."""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from p2pdist.streaming.fuse import wire
from p2pdist.streaming.fuse.session import (
    CHANGING_NAME_VALID_S,
    CannotTakeOver,
    Session,
    SessionOptions,
)
from p2pdist.streaming.ports import ROOT_NODE
from tests.fakes import fuse_kernel as kernel
from tests.fakes.fuse_kernel import FuseKernel, attr, entries, read_payload
from tests.fakes.memory_tree import MemoryTree

WAIT_S = 20.0
Connect = Callable[..., FuseKernel]


@pytest.fixture
def tree() -> MemoryTree:
    return MemoryTree()


@pytest.fixture
def connect(tree: MemoryTree) -> Iterator[Connect]:
    with ExitStack() as stack:

        def open_(options: SessionOptions | None = None, *, takeover: bool = False) -> FuseKernel:
            opened = FuseKernel(tree, options, takeover=takeover)
            stack.callback(opened.close)
            return opened

        yield open_


class Gate:
    """Content that comes when it is let through."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._waiting = threading.Semaphore(0)
        self.at_once = 0
        self.at_once_max = 0

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self.at_once += 1
            self.at_once_max = max(self.at_once, self.at_once_max)
        self._waiting.release()
        assert self._open.wait(WAIT_S)
        with self._lock:
            self.at_once -= 1
        return b"g" * size

    def wait_reader(self) -> None:
        assert self._waiting.acquire(timeout=WAIT_S), "nobody reads"

    def open(self) -> None:
        self._open.set()


def test_a_file_is_found_and_read(tree: MemoryTree, connect: Connect) -> None:
    file = tree.file(ROOT_NODE, b"\xff name", b"0123456789")
    linux = connect()

    found = linux.ask(kernel.LOOKUP, ROOT_NODE, b"\xff name\0")
    content = linux.ask(kernel.READ, file, read_payload(4, 100))

    assert attr(found.payload[40:]).node == file
    assert content.payload == b"456789"
    assert linux.ask(kernel.READ, file, read_payload(11, 5)).payload == b""


def test_a_name_that_is_not_there_is_no_error(connect: Connect) -> None:
    answer = connect().ask(kernel.LOOKUP, ROOT_NODE, b"nothing\0")

    assert (answer.error, answer.payload[:8]) == (0, bytes(8))


def test_directories_that_never_change_are_opened_without_a_message(connect: Connect) -> None:
    assert connect().ask(kernel.OPENDIR).error == errno.ENOSYS


def test_of_a_tree_without_attributes_the_kernel_asks_once(
    tree: MemoryTree, connect: Connect
) -> None:
    file = tree.file(ROOT_NODE, b"file", b"")
    questions = ((kernel.GETXATTR, b"user.a\0"), (kernel.LISTXATTR, b""))

    def told(linux: FuseKernel) -> list[int]:
        sizes = struct.pack("=II", 100, 0)
        return [linux.ask(opcode, file, sizes + name).error for opcode, name in questions]

    assert told(connect()) == [errno.ENODATA, 0]
    assert told(connect(SessionOptions(no_xattrs=True))) == [errno.ENOSYS] * 2


def test_of_a_root_that_changes_nothing_is_kept(tree: MemoryTree, connect: Connect) -> None:
    layer = tree.directory(ROOT_NODE, b"layer")
    file = tree.file(layer, b"file", b"")
    linux = connect(SessionOptions(root_changes=True))

    def valid_s(node: int, name: bytes) -> int:
        found: tuple[int, ...] = struct.unpack_from(
            "=QQQ", linux.ask(kernel.LOOKUP, node, name + b"\0").payload
        )
        return found[2]

    def kept(node: int) -> bool:
        _handle, flags, _ = struct.unpack("=QII", linux.ask(kernel.OPENDIR, node).payload)
        return bool(flags)

    assert linux.ask(kernel.LOOKUP, ROOT_NODE, b"later\0").error == errno.ENOENT
    assert valid_s(ROOT_NODE, b"layer") == CHANGING_NAME_VALID_S
    assert not kept(ROOT_NODE)
    assert valid_s(layer, b"file") == valid_s(layer, b"nothing") == wire.FOREVER_S
    assert kept(layer)
    assert linux.ask(kernel.GETATTR, file).error == 0


def test_links_and_their_targets(tree: MemoryTree, connect: Connect) -> None:
    link = tree.add(ROOT_NODE, b"link", stat.S_IFLNK | 0o777, target=b"/else/\xfewhere")

    assert connect().ask(kernel.READLINK, link).payload == b"/else/\xfewhere"


def test_xattrs(tree: MemoryTree, connect: Connect) -> None:
    file = tree.add(ROOT_NODE, b"x", stat.S_IFREG, xattrs={b"user.a": b"1", b"user.b": b""})
    linux = connect()

    def get(name: bytes, size: int) -> kernel.Answer:
        return linux.ask(kernel.GETXATTR, file, struct.pack("=II", size, 0) + name + b"\0")

    def names(size: int) -> kernel.Answer:
        return linux.ask(kernel.LISTXATTR, file, struct.pack("=II", size, 0))

    assert get(b"user.a", 100).payload == b"1"
    assert get(b"user.b", 100).payload == b""
    assert struct.unpack("=II", get(b"user.a", 0).payload) == (1, 0)
    assert get(b"user.c", 100).error == errno.ENODATA
    assert names(100).payload == b"user.a\0user.b\0"
    assert struct.unpack("=II", names(0).payload) == (14, 0)
    assert names(13).error == errno.ERANGE


def test_a_directory_with_attributes(tree: MemoryTree, connect: Connect) -> None:
    for number in range(100):
        tree.file(ROOT_NODE, b"%d" % number, bytes(number))
    linux = connect()
    seen: list[kernel.DirectoryEntry] = []

    while piece := linux.ask(kernel.READDIRPLUS, ROOT_NODE, read_payload(len(seen), 4096)).payload:
        seen += entries(piece, plus=True)

    assert [entry.name for entry in seen[2:]] == [b"%d" % number for number in range(100)]
    assert [entry.looked_up.size for entry in seen[2:] if entry.looked_up] == [*range(100)]


def test_a_node_that_nobody_knows(connect: Connect) -> None:
    assert connect().ask(kernel.GETATTR, 12345).error == errno.ESTALE


def test_statfs_and_writes(tree: MemoryTree, connect: Connect) -> None:
    linux = connect()

    assert len(linux.ask(kernel.STATFS).payload) == 80
    assert linux.ask(kernel.SETATTR).error == errno.EROFS


def test_forgetting_is_not_answered(connect: Connect) -> None:
    linux = connect()
    linux.post(kernel.FORGET, payload=bytes(8))
    asked = linux.post(kernel.GETATTR)

    assert linux.receive().unique == asked


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(b"short", id="fewer"),
        pytest.param(b"", id="none"),
        pytest.param(b"l" * 200, id="more"),
    ],
)
def test_what_is_not_as_long_as_asked_is_an_error(
    tree: MemoryTree, connect: Connect, made: bytes
) -> None:
    """The kernel would take it for the end of the file, and show zeros."""
    file = tree.made_up(ROOT_NODE, b"file", 1000, lambda offset, size: made)

    assert connect().ask(kernel.READ, file, read_payload(0, 100)).error == errno.EIO


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (OSError(errno.EIO, "nobody brings it"), errno.EIO),
        (OSError(errno.ETIMEDOUT, "late"), errno.ETIMEDOUT),
        (OSError("no errno"), errno.EIO),
        (OSError(-2, "a name that does not resolve"), errno.EIO),
        (OSError(512, "for the kernel alone"), errno.EIO),
        (OSError(errno.ENOSYS, "never ask again"), errno.EIO),
        (OSError(errno.EINTR, "no read of a file ends so"), errno.EIO),
        (LookupError("a mistake"), errno.EIO),
    ],
)
def test_what_the_tree_raises_is_told(
    tree: MemoryTree, connect: Connect, raised: Exception, seen: int
) -> None:
    def read(offset: int, size: int) -> bytes:
        raise raised

    file = tree.made_up(ROOT_NODE, b"file", 1000, read)
    linux = connect()

    assert linux.ask(kernel.READ, file, read_payload(0, 100)).error == seen
    assert linux.ask(kernel.GETATTR, file).error == 0


def test_malformed_requests_are_refused_and_nothing_else_happens(connect: Connect) -> None:
    linux = connect()
    linux.send(b"not a request")
    linux.send(kernel.request(kernel.READ, 50, payload=b"cut off"))

    assert linux.receive() == kernel.Answer(50, errno.EINVAL, b"")
    assert linux.ask(kernel.GETATTR).error == 0


def test_a_read_that_waits_holds_up_nothing_else(tree: MemoryTree, connect: Connect) -> None:
    gate = Gate()
    slow = tree.made_up(ROOT_NODE, b"slow", 100, gate.read)
    quick = tree.file(ROOT_NODE, b"quick", b"quick")
    linux = connect(SessionOptions(reads_max=4, spare_threads=1))
    waiting = [linux.post(kernel.READ, slow, read_payload(0, 100)) for _ in range(3)]
    for _ in waiting:
        gate.wait_reader()

    assert linux.ask(kernel.GETATTR, slow).error == 0
    assert linux.ask(kernel.LOOKUP, ROOT_NODE, b"quick\0").error == 0
    assert linux.ask(kernel.READ, quick, read_payload(0, 5)).payload == b"quick"

    gate.open()
    assert [linux.answer(unique).payload for unique in waiting] == [b"g" * 100] * 3


def test_more_reads_than_may_wait_stand_in_line(tree: MemoryTree, connect: Connect) -> None:
    gate = Gate()
    slow = tree.made_up(ROOT_NODE, b"slow", 100, gate.read)
    linux = connect(SessionOptions(reads_max=2, spare_threads=1))
    waiting = [linux.post(kernel.READ, slow, read_payload(0, 100)) for _ in range(20)]
    gate.wait_reader()
    gate.wait_reader()

    assert linux.ask(kernel.GETATTR, slow).error == 0

    gate.open()
    assert [linux.answer(unique).payload for unique in waiting] == [b"g" * 100] * 20
    assert gate.at_once_max == 2


def test_with_a_full_line_nothing_more_is_taken(tree: MemoryTree, connect: Connect) -> None:
    gate = Gate()
    slow = tree.made_up(ROOT_NODE, b"slow", 100, gate.read)
    options = SessionOptions(reads_max=1, line_max=2, spare_threads=1)
    linux = connect(options)
    waiting = [linux.post(kernel.READ, slow, read_payload(0, 100)) for _ in range(10)]
    for _ in range(options.threads_max):
        gate.wait_reader()

    gate.open()

    assert [linux.answer(unique).payload for unique in waiting] == [b"g" * 100] * 10
    assert gate.at_once_max == options.threads_max


def test_a_worker_that_takes_over_asks_for_what_is_open(tree: MemoryTree, connect: Connect) -> None:
    file = tree.file(ROOT_NODE, b"file", b"content")
    linux = connect(takeover=True)

    first = linux.receive()
    again = 1 << 63 | 42
    linux.send(kernel.request(kernel.READ, again, file, read_payload(0, 7)))

    assert (first.unique, first.error) == (0, -7)  # a notice: FUSE_NOTIFY_RESEND
    assert linux.answer(again) == kernel.Answer(again, 0, b"content")


def test_a_first_worker_asks_for_nothing(connect: Connect) -> None:
    linux = connect()
    asked = linux.post(kernel.GETATTR)

    assert linux.receive().unique == asked


def test_an_older_kernel_is_not_taken_over(
    tree: MemoryTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, data: bytes) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("p2pdist.streaming.fuse.session.os.write", refuse)

    with pytest.raises(CannotTakeOver):
        Session(-1, tree).serve(takeover=True)


def test_a_connection_that_breaks_is_no_end(tree: MemoryTree) -> None:
    """Else the holder would take it for the wish to end, and no worker would follow."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            Session(write_end, tree).serve()  # an end that cannot be read
    finally:
        os.close(write_end)


def test_an_old_protocol_is_refused(connect: Connect) -> None:
    payload = struct.pack("=IIII48x", 7, 12, 4096, 0)

    assert connect().ask(kernel.INIT, 0, payload).error == errno.EPROTO
