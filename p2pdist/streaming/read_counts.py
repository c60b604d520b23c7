"""What was read of a mount, and what was fetched for that: counted by the process that reads, in a
file that others may look at.

The counts outlive the process, and `kill -9` loses none: they lie in the page cache, mapped. Those
of a host that went down with its power are gone, as all counters are.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from p2pdist.model.durations import DURATION_BOUNDS_S, bucket_of
from p2pdist.process import logs
from p2pdist.process.files import OPEN_FLAGS, pread_all
from p2pdist.streaming.core.policy import Why

log = logging.getLogger(__name__)

FILE_NAME: Final = "reads"
_MAGIC: Final = int.from_bytes(b"p2prds\0\x01", "little")
"""The last byte is the version of the layout."""


class Outcome(enum.IntEnum):
    """Of a read that a container asked the kernel for, and that the kernel had not cached."""

    KEPT = 0
    """All of it was in memory here, or in a small layer's file."""
    WAITED = 1
    """It waited for bytes from the mirror: a demand miss."""
    FAILED = 2
    """It ended with an error."""


# Unsigned 64-bit numbers of this machine's order, one after the other.
_READ: Final = 1
_FETCHED: Final = _READ + 1
_OUTCOMES: Final = _FETCHED + len(Why)
_WAITED_US: Final = _OUTCOMES + len(Outcome)
_BUCKETS: Final = _WAITED_US + 1
_WAITING: Final = _BUCKETS + len(DURATION_BOUNDS_S) + 1
_OLDEST_MS: Final = _WAITING + 1
_SLOTS: Final = _OLDEST_MS + 1
_BYTES: Final = 8 * _SLOTS


@dataclass(frozen=True, slots=True)
class Reads:
    """The counts at one moment."""

    read_bytes: int
    """Of files, as they were handed out."""
    fetched_bytes: tuple[int, ...]
    """Of blobs, by `Why`."""
    outcomes: tuple[int, ...]
    """Reads, by `Outcome`."""
    waited_s: float
    """Of all that waited, together."""
    waits: tuple[int, ...]
    """How many waited, by `bucket_of` their time."""
    waiting: int
    """Reads that wait now."""
    oldest_s: float
    """How long the oldest of them has, a second ago at most."""


class ReadCounts:
    """For any thread of one process. Without a file nobody else sees them."""

    def __init__(
        self, memory: mmap.mmap | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`memory`: of `_BYTES` bytes. `clock`: monotonic, in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._slots = memoryview(memory or bytearray(_BYTES)).cast("Q")
        self._begun: dict[int, float] = {}
        """When those that wait began, by their thread."""
        if self._slots[0] != _MAGIC:
            self._slots[:] = memoryview(bytearray(_BYTES)).cast("Q")
            self._slots[0] = _MAGIC
        self._slots[_WAITING] = self._slots[_OLDEST_MS] = 0  # of a process that is no more

    @classmethod
    def in_file(cls, path: Path) -> Self:
        """Go on with what a file holds; make it, and one of another layout, anew. Raises
        OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | OPEN_FLAGS, 0o600)
        try:
            if os.fstat(fd).st_size != _BYTES:
                os.ftruncate(fd, 0)
                os.posix_fallocate(fd, 0, _BYTES)  # a full disk says so here, not by SIGBUS
            return cls(mmap.mmap(fd, _BYTES))
        finally:
            os.close(fd)

    # --- what happens ---------------------------------------------------------------------------

    def fetched(self, why: Why, nbytes: int) -> None:
        with self._lock:
            self._slots[_FETCHED + why] += nbytes

    def read(self, nbytes: int, outcome: Outcome) -> None:
        with self._lock:
            self._slots[_READ] += nbytes
            self._slots[_OUTCOMES + outcome] += 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """This thread waits for as long as the block lasts."""
        me, begun_s = threading.get_ident(), self._clock()
        with self._lock:
            self._begun[me] = begun_s
            self._slots[_WAITING] = len(self._begun)
        try:
            yield
        finally:
            took_s = self._clock() - begun_s
            with self._lock:
                del self._begun[me]
                self._slots[_WAITING] = len(self._begun)
                self._slots[_WAITED_US] += round(took_s * 1e6)
                self._slots[_BUCKETS + bucket_of(took_s)] += 1

    def age(self) -> None:
        """Write down how long the oldest wait has lasted; called each second."""
        with self._lock:
            oldest_s = min(self._begun.values(), default=None)
            age_s = 0.0 if oldest_s is None else self._clock() - oldest_s
            self._slots[_OLDEST_MS] = round(age_s * 1000)

    def reads(self) -> Reads:
        with self._lock:
            return _reads(self._slots.tolist())


def counts_in(directory: Path) -> ReadCounts:
    """Those of a mount, in its directory; others that nobody sees where the disk refuses. A mount
    does not fail for its counts."""
    try:
        return ReadCounts.in_file(directory / FILE_NAME)
    except OSError as error:
        logs.event(log, logging.WARNING, "reads.uncounted", error=str(error))
        return ReadCounts()


def read_counts(path: Path) -> Reads | None:
    """Return what a file holds now; None where it is not there, or of another layout. Blocking;
    raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(fd).st_size != _BYTES:
            return None
        slots = list(struct.unpack(f"={_SLOTS}Q", pread_all(fd, _BYTES, 0)))
    finally:
        os.close(fd)
    return _reads(slots) if slots[0] == _MAGIC else None


def _reads(slots: list[int]) -> Reads:
    return Reads(
        read_bytes=slots[_READ],
        fetched_bytes=tuple(slots[_FETCHED:_OUTCOMES]),
        outcomes=tuple(slots[_OUTCOMES:_WAITED_US]),
        waited_s=slots[_WAITED_US] / 1e6,
        waits=tuple(slots[_BUCKETS:_WAITING]),
        waiting=slots[_WAITING],
        oldest_s=slots[_OLDEST_MS] / 1000,
    )
