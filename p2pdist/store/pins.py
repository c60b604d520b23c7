"""Pins: blobs that nothing evicts before a moment, job by job."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from p2pdist.model.ids import Digest
from p2pdist.process.files import read_file, write_whole

# A job has 64 images of 4,096 blobs at most, and a tracker 250 jobs; 90 bytes each on disk.
PINS_MAX: Final = 100_000
FILE_BYTES_MAX: Final = 16 << 20


class _JobPins(msgspec.Struct):
    until_unix_s: float
    digests: list[str]


class Pins:
    """Several jobs may pin one blob: it is pinned until the last of them is over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # one writer of the file at a time
        self._jobs: dict[str, _JobPins] = {}
        self._until: dict[Digest, float] = {}

    def pinned(self, digest: Digest, now_unix_s: float) -> bool:
        return self._until.get(digest, 0.0) > now_unix_s

    def put(self, job: str, digests: Iterable[Digest], until_unix_s: float) -> None:
        """Pin for a job, in place of what it pinned before; further jobs are not taken once there
        are `PINS_MAX` pins."""
        fresh = _JobPins(until_unix_s, list(digests))
        known = sum(len(pins.digests) for name, pins in self._jobs.items() if name != job)
        if known + len(fresh.digests) <= PINS_MAX:
            self._jobs[job] = fresh
            self._count()

    def drop(self, job: str) -> None:
        if self._jobs.pop(job, None) is not None:
            self._count()

    def digests(self, now_unix_s: float) -> list[Digest]:
        return [digest for digest, until in self._until.items() if until > now_unix_s]

    def expire(self, now_unix_s: float) -> None:
        over = [name for name, pins in self._jobs.items() if pins.until_unix_s <= now_unix_s]
        for name in over:
            del self._jobs[name]
        if over:
            self._count()

    def save(self) -> None:
        """Blocking. Raises OSError."""
        with self._lock:
            write_whole(self._path, msgspec.msgpack.encode(dict(self._jobs)), points="store")

    def load(self) -> None:
        """Blocking. A file that makes no sense is as none: pins spare an eviction, no more."""
        raw = read_file(self._path, FILE_BYTES_MAX)
        try:
            self._jobs = msgspec.msgpack.decode(raw or b"\x80", type=dict[str, _JobPins])
        except msgspec.DecodeError:
            self._jobs = {}
        self._count()

    def _count(self) -> None:
        self._until = {}
        for pins in self._jobs.values():
            for text in pins.digests:
                digest = Digest(text)
                self._until[digest] = max(self._until.get(digest, 0.0), pins.until_unix_s)
