"""Threads that read the requests of the kernel from one descriptor, and answer from a tree."""

from __future__ import annotations

import collections
import errno
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from p2pdist.process.logs import event
from p2pdist.streaming.fuse import wire
from p2pdist.streaming.ports import ROOT_NODE, Attributes, FileTree

_log = logging.getLogger(__name__)

# What a worker that took over cannot do on Linux before 6.9.
_NO_RESEND: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
# The file system was unmounted, or its connection aborted.
_ENDED: Final = (errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED, errno.EPIPE, errno.ECONNRESET)
# A request went away before it was read, or its reader before it was answered.
_GONE: Final = (errno.ENOENT, errno.EINTR, errno.EAGAIN)


ERRNO_END: Final = 512
"""ERESTARTSYS of the kernel, the first of those that only it may use."""
LEAVING_S: Final = 5.0
"""How long the end waits for names and attributes that a tree is still looking for."""
CHANGING_NAME_VALID_S: Final = 1
"""How long a name that went away may still be found by the kernel; its files are ESTALE at once."""


class CannotTakeOver(Exception):
    """This kernel does not send again what the worker before this one had taken: it would hang."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    reads_max: int = 64
    """Reads of content that may wait for it at a time, a thread each; more wait in a line."""
    line_max: int = 1024
    """Reads in the line; when it is full, nothing more is taken from the kernel."""
    spare_threads: int = 3
    """That listen at least: for names and attributes, whatever the reads wait for."""
    max_readahead_bytes: int = 1 << 20
    request_pages_max: int = 256
    """Of one READ, in pages: 1 MiB, the most that kernels allow as they come."""

    root_changes: bool = False
    """Whether the root's children come and go, as layers of a host do; nothing below them does.

    The kernel then asks again for their names, and for directories when they are opened."""
    no_xattrs: bool = False
    """No file of the tree has any, nor ever will: the kernel asks once.

    Else overlayfs asks for each name that it looks up: that halves what a scan gets through."""

    @property
    def threads_max(self) -> int:
        return self.reads_max + self.spare_threads


class Session:
    """Answers one connection until it ends.

    Whoever gets a READ serves it itself, and another thread takes its place at the descriptor: no
    request changes threads, and there is always one that listens. Nodes are the numbers of the
    tree, so a worker knows as much as the one before it, and nothing has to be handed over.
    """

    def __init__(self, fd: int, tree: FileTree, options: SessionOptions | None = None) -> None:
        self._fd = fd
        self._tree = tree
        self._options = options or SessionOptions()
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._reads = 0
        self._line: collections.deque[wire.Read] = collections.deque()
        self._threads = 0
        self._listening = 0
        self._ended = threading.Event()
        self._broken: BaseException | None = None
        self._answers: dict[type[Any], Callable[[Any], bytes]] = {
            wire.Init: self._init,
            wire.Lookup: self._lookup,
            wire.GetAttributes: lambda r: wire.attributes(tree.attributes(r.node)),
            wire.ReadLink: lambda r: tree.target(r.node),
            wire.Read: self._read,
            wire.OpenDirectory: self._open_directory,
            wire.ReadDirectory: self._read_directory,
            wire.GetXattr: self._get_xattr,
            wire.ListXattrs: lambda r: wire.xattr_names(tree.xattrs(r.node), r.size),
            wire.StatFs: lambda _: wire.stat_fs(),
        }

    def serve(self, *, takeover: bool = False) -> None:
        """Return when the file system is unmounted; raise CannotTakeOver, or what broke it.

        `takeover`: another worker answered on this descriptor before, and may have died with
        requests that it had taken. Nobody listens on the descriptor any more then, but reads whose
        content still does not come end on it: leave it open until the process ends.
        """
        if takeover:
            self._ask_to_send_again()
        for _ in range(self._options.spare_threads):
            self._add_thread()
        self._ended.wait()
        if self._broken is not None:
            raise self._broken
        with self._lock:
            self._left.wait_for(lambda: self._listening == 0, LEAVING_S)

    def _ask_to_send_again(self) -> None:
        try:
            os.write(self._fd, wire.resend())
        except OSError as error:
            if error.errno in _NO_RESEND:
                raise CannotTakeOver("Linux 6.9 or later is needed") from error
            if error.errno not in _ENDED:
                raise

    # --- threads ---------------------------------------------------------------------------------

    def _add_thread(self) -> None:
        with self._lock:
            if self._threads >= self._options.threads_max:
                return
            self._threads += 1
            self._listening += 1
            number = self._threads
        threading.Thread(target=self._listen, name=f"fuse-{number}", daemon=True).start()

    def _listen(self) -> None:
        try:
            while not self._ended.is_set():
                self._serve_one()
        except BaseException as error:  # noqa: BLE001 - raised again by `serve`
            self._broken = error
        self._ended.set()
        with self._lock:
            self._listening -= 1
            self._left.notify()

    def _serve_one(self) -> None:
        message = self._take()
        if message is None:
            return
        try:
            request = wire.decode(message)
        except wire.MalformedRequest as fault:
            event(_log, logging.WARNING, "fuse.request_malformed", why=str(fault))
            if fault.unique:
                self._send(wire.status(fault.unique, errno.EINVAL))
            return
        if isinstance(request, wire.Read):
            self._serve_read(request)
        else:
            self._answer(request)

    def _take(self) -> bytes | None:
        try:
            message = os.read(self._fd, wire.REQUEST_BYTES_MAX)
        except OSError as error:
            if error.errno in _GONE:
                return None
            if error.errno not in _ENDED:
                raise
            self._ended.set()
            return None
        if not message:
            self._ended.set()
            return None
        return message

    def _serve_read(self, request: wire.Read) -> None:
        with self._lock:
            if self._reads >= self._options.reads_max and len(self._line) < self._options.line_max:
                self._line.append(request)
                return
            self._reads += 1
            self._listening -= 1
            short = self._listening < self._options.spare_threads
        if short:
            self._add_thread()
        following: wire.Read | None = request
        while following is not None:
            self._answer(following)
            with self._lock:
                following = self._line.popleft() if self._line else None
                if following is None:
                    self._reads -= 1
                    self._listening += 1

    # --- answers ---------------------------------------------------------------------------------

    def _answer(self, request: wire.Request) -> None:
        if isinstance(request, wire.Unanswered):
            return
        if isinstance(request, wire.Settled):
            self._send(wire.status(request.unique, request.error))
            return
        if isinstance(request, wire.OpenDirectory) and not self._options.root_changes:
            # Every directory is kept, and the kernel need never ask: as if CACHE_DIR were said.
            self._send(wire.status(request.unique, errno.ENOSYS))
            return
        if isinstance(request, wire.GetXattr | wire.ListXattrs) and self._options.no_xattrs:
            self._send(wire.status(request.unique, errno.ENOSYS))
            return
        try:
            payload = self._answers[type(request)](request)
        except OSError as error:
            self._send(wire.status(request.unique, _told(error)))
        except Exception as error:  # noqa: BLE001 - whatever is wrong here, the reader must not hang
            event(_log, logging.ERROR, "fuse.answer_failed", exc_info=error)
            self._send(wire.status(request.unique, errno.EIO))
        else:
            self._send(wire.head(request.unique, len(payload)), payload)

    def _send(self, *parts: bytes) -> None:
        try:
            os.writev(self._fd, parts)
        except OSError as error:
            if error.errno in _ENDED:
                self._ended.set()
            elif error.errno not in _GONE:
                # Refused as it stands: the kernel has ended the request with EIO.
                event(_log, logging.ERROR, "fuse.answer_refused", exc_info=error)

    def _init(self, asked: wire.Init) -> bytes:
        if (asked.major, asked.minor) < (wire.MAJOR, wire.MINOR_MIN):
            raise OSError(errno.EPROTO, "Linux 5.4 or later is needed")
        return wire.init(
            asked,
            max_readahead=self._options.max_readahead_bytes,
            max_pages=self._options.request_pages_max,
            background_max=self._options.reads_max,
        )

    def _lookup(self, asked: wire.Lookup) -> bytes:
        child = self._tree.child(asked.node, asked.name)
        if child is not None:
            return wire.entry(self._tree.attributes(child), self._name_valid_s(asked.node))
        if self._changes(asked.node):
            raise OSError(errno.ENOENT, "not yet")  # which the kernel does not keep
        return wire.no_entry()

    def _changes(self, node: int) -> bool:
        return node == ROOT_NODE and self._options.root_changes

    def _name_valid_s(self, directory: int) -> int:
        return CHANGING_NAME_VALID_S if self._changes(directory) else wire.FOREVER_S

    def _read(self, asked: wire.Read) -> bytes:
        """All of it or an error: the kernel takes fewer bytes for the end of the file, and shows
        zeros behind them."""
        data = self._tree.read(asked.node, asked.offset, asked.size)
        if len(data) != asked.size:
            size = self._tree.attributes(asked.node).size_bytes
            if len(data) != min(asked.size, max(0, size - asked.offset)):
                raise OSError(errno.EIO, "fewer bytes than the file has")
        return data

    def _read_directory(self, asked: wire.ReadDirectory) -> bytes:
        children = self._tree.children(asked.node)
        return wire.directory(asked, children, self._tell, self._name_valid_s(asked.node))

    def _open_directory(self, asked: wire.OpenDirectory) -> bytes:
        kept = wire.KEEP_CACHE | wire.CACHE_DIR
        return wire.directory_opened(0 if self._changes(asked.node) else kept)

    def _tell(self, node: int) -> Attributes | None:
        try:
            return self._tree.attributes(node)
        except OSError:
            return None

    def _get_xattr(self, asked: wire.GetXattr) -> bytes:
        value = self._tree.xattrs(asked.node).get(asked.name)
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return wire.xattr(value, asked.size)


def _told(error: OSError) -> int:
    """What a reader is told: EIO for what says something else to the kernel, or nothing.

    An answer with no errno of Linux is none, and its reader would hang (those of a name that does
    not resolve are negative); after ENOSYS the kernel would never ask again.
    """
    number = error.errno or 0
    if number in (errno.ENOSYS, errno.EINTR) or not 0 < number < ERRNO_END:
        return errno.EIO
    return number
