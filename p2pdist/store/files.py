"""Files of the store: names from digests, and those that stay open."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from p2pdist.model.ids import Digest
from p2pdist.runtime.files import OPEN_FLAGS


def blob_path(root: Path, digest: Digest) -> Path:
    """Where a digest lies; digests are validated, so no name of the path is anybody's choice."""
    algorithm, _, encoded = digest.partition(":")
    return root / algorithm / encoded[:2] / encoded


class KeptOpen:
    """A file that is written over and over: opened at the first write, so that a process without
    free descriptors can go on with what it has begun. For one writer at a time."""

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._flags = flags | os.O_WRONLY | os.O_CREAT | OPEN_FLAGS
        self._fd = -1
        self._ended = False

    def fileno(self) -> int:
        """Raises OSError; FileNotFoundError after `end`."""
        if self._ended:
            raise FileNotFoundError(errno.ENOENT, "the blob is gone")
        if self._fd < 0:
            self._fd = os.open(self._path, self._flags, 0o600)
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def end(self) -> None:
        """Close it for good."""
        self._ended = True
        self.close()
