"""What looks at a blob's bytes while they arrive, each of them once and in order."""

from __future__ import annotations

import hashlib
from typing import Protocol

from p2pdist.model.ids import Digest, digest_algorithm


class IngestObserver(Protocol):
    """Called in a worker thread, one call at a time, in the order of the bytes."""

    def see(self, data: bytes | bytearray | memoryview) -> None: ...


class DigestObserver:
    """The running hash of the whole blob."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._hash = hashlib.new(digest_algorithm(digest))

    def see(self, data: bytes | bytearray | memoryview) -> None:
        self._hash.update(data)

    def matches(self) -> bool:
        return self._hash.hexdigest() == self._digest.partition(":")[2]

    def actual(self) -> str:
        return f"{digest_algorithm(self._digest)}:{self._hash.hexdigest()}"
