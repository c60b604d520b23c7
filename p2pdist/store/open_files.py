"""The files of the store that are open: few of them, however many blobs there are.

Who uses a file borrows it, and nobody closes it meanwhile. What nobody uses stays open as long as
there is room. The files of a blob in motion are kept: closed to make room for another one, they
could not be opened again where descriptors have run out, and its readers would end short.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final

from p2pdist.process.files import OPEN_FLAGS

# Of the descriptors of this process, beside links and HTTP connections (`swarm/refusing.py`).
SHARE: Final = 8
OPEN_MIN: Final = 32
# Opening a file again takes some 10 us; more of them would only keep memory of the kernel.
OPEN_MAX: Final = 1024
NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


def open_files_allowed() -> int:
    """How many files a store keeps open while nobody uses them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return OPEN_MAX
    return min(OPEN_MAX, max(OPEN_MIN, soft // SHARE))


class StoredFile:
    """One file of a blob. Its state is for `OpenFiles` to change."""

    __slots__ = (
        "dirty", "ended", "fd", "flags", "inode", "kept", "opening", "path", "read_only",
        "sync_failed", "users",
    )  # fmt: skip

    def __init__(
        self, path: Path, flags: int, sync_failed: Callable[[], None] = lambda: None
    ) -> None:
        """`sync_failed` hears when bytes that were written may not have reached the disk; it must
        take no lock under which files are borrowed."""
        self.path = path
        self.flags = flags | OPEN_FLAGS
        self.sync_failed = sync_failed
        self.dirty = False
        """Written since it was last synced; set by who wrote, afterwards."""
        self.inode: int | None = None
        """Of the file that was opened first; None: none was yet."""
        self.fd = -1
        self.kept = False
        """Stays open once it is, whatever needs room."""
        self.read_only = False
        """The disk would not let it be opened for writing."""
        self.users = 0
        self.ended = False
        self.opening = threading.Lock()


class Borrowed:
    """An open file that stays open until `close`, or the end of a block."""

    __slots__ = ("_file", "_files", "fileno")

    def __init__(self, files: OpenFiles, file: StoredFile) -> None:
        self.fileno = file.fd
        self._files = files
        self._file: StoredFile | None = file

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            self._files.give_back(file)

    def __enter__(self) -> int:
        return self.fileno

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class OpenFiles:
    """Those of one store; for any thread."""

    def __init__(self, open_max: int) -> None:
        """Above `open_max` those are closed that nobody uses, the one used longest ago first."""
        self.open_max = open_max
        self.opened_total = 0
        self._open = 0
        self._idle: OrderedDict[StoredFile, None] = OrderedDict()
        self._lock = threading.Lock()  # of all this and of the files; nothing blocks under it

    @property
    def open_count(self) -> int:
        return self._open

    def borrow(self, file: StoredFile, *, may_flush: bool = True) -> Borrowed:
        """Without `may_flush` nothing is synced to make room: for the event loop.

        Raises OSError: FileNotFoundError after `end`, and where another file has taken the name.
        """
        with self._lock:
            if file.fd >= 0 and not file.ended:
                return self._taken(file)
        with file.opening:
            return self._open_and_take(file, may_flush=may_flush)

    def give_back(self, file: StoredFile) -> None:
        """See `Borrowed.close`."""
        with self._lock:
            file.users -= 1
            if file.users:
                return
            keep = not file.ended and not file.read_only  # a disk may be writable again
            fd = -1 if keep else self._fd_of(file)
            if keep and not file.kept:
                self._idle[file] = None
            doomed = self._surplus(self.open_max, flush=False)
        _close(fd)
        self._retire(doomed)

    def sync(self, file: StoredFile) -> None:
        """Flush what was written to the disk itself. Blocking; raises OSError.

        A file that was closed and opened again is synced as a whole all the same: fsync is of the
        file, whichever descriptor wrote. But a failure of the kernel to write back is told once,
        to who has the file open then; so a dirty file is synced before it is closed.
        """
        with self.borrow(file) as fd:
            _sync(file, fd)

    def keep(self, files: Iterable[StoredFile], *, kept: bool) -> None:
        """Close none of these from now on but by `close` and `end`; or, not `kept`, as others."""
        with self._lock:
            for file in files:
                file.kept = kept
                if kept:
                    self._idle.pop(file, None)
                elif file.fd >= 0 and not file.users:
                    self._idle[file] = None
            doomed = self._surplus(self.open_max, flush=False)
        self._retire(doomed)

    def close(self, file: StoredFile) -> None:
        """Nothing more is to be expected of it: closed, unless somebody uses it."""
        with self._lock:
            fd = self._fd_of(file) if not file.users else -1
        _close(fd)

    def end(self, file: StoredFile) -> None:
        """Closed for good, once those who use it have given it back."""
        with self._lock:
            file.ended = True
            fd = self._fd_of(file) if not file.users else -1
        _close(fd)

    def let_go(self) -> None:
        """Somebody needs descriptors: close what nobody uses and needs no flush."""
        with self._lock:
            doomed = self._surplus(0, flush=False)
        self._retire(doomed)

    # --- opening and closing --------------------------------------------------------------------

    def _taken(self, file: StoredFile) -> Borrowed:
        """Under the lock, of an open file."""
        self._idle.pop(file, None)
        file.users += 1
        return Borrowed(self, file)

    def _open_and_take(self, file: StoredFile, *, may_flush: bool) -> Borrowed:
        with self._lock:
            if file.ended:
                raise FileNotFoundError(errno.ENOENT, "the blob is gone")
            if file.fd >= 0:  # by another thread meanwhile
                return self._taken(file)
        fd = self._open_by_name(file)
        with self._lock:
            file.fd = fd
            self._open += 1
            self.opened_total += 1
            borrowed = self._taken(file)
            doomed = self._surplus(self.open_max, flush=may_flush)
        self._retire(doomed)
        return borrowed

    def _open_by_name(self, file: StoredFile) -> int:
        try:
            fd = _open(file)
        except OSError as error:
            if error.errno not in NO_DESCRIPTORS:
                raise
            self.let_go()
            fd = _open(file)
        inode = os.fstat(fd).st_ino
        if file.inode not in (None, inode) and not file.flags & os.O_CREAT:
            os.close(fd)  # what is known of its bytes was learnt from another file
            raise FileNotFoundError(errno.ENOENT, "another file has taken its place")
        file.inode = inode
        return fd

    def _surplus(self, open_max: int, *, flush: bool) -> list[StoredFile]:
        """Under the lock: idle files above `open_max`, now used by the caller, to be retired."""
        number = self._open - open_max
        if number <= 0:
            return []
        doomed = list(islice((file for file in self._idle if flush or not file.dirty), number))
        for file in doomed:
            self._taken(file)
        return doomed

    def _retire(self, doomed: Iterable[StoredFile]) -> None:
        """Close files that `_surplus` chose, unless they are wanted again by now."""
        for file in doomed:
            if file.dirty:
                with contextlib.suppress(OSError):  # it was told
                    _sync(file, file.fd)
            with self._lock:
                file.users -= 1
                fd = self._fd_of(file) if not file.users else -1
            _close(fd)

    def _fd_of(self, file: StoredFile) -> int:
        """Under the lock: the descriptor, for the caller to close; -1: it is closed."""
        fd, file.fd = file.fd, -1
        if fd >= 0:
            self._open -= 1
            self._idle.pop(file, None)
        return fd


def _open(file: StoredFile) -> int:
    file.read_only = False
    try:
        return os.open(file.path, file.flags, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS or file.flags & os.O_CREAT:
            raise
        fd = os.open(file.path, os.O_RDONLY | OPEN_FLAGS)
        file.read_only = True
        return fd


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _sync(file: StoredFile, fd: int) -> None:
    file.dirty = False  # before the call: what is written from now on is not covered by it
    try:
        os.fsync(fd)
    except OSError:
        file.sync_failed()
        raise
