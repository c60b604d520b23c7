"""When the hashes of chunks are signed: gathered into batches, the very first one at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pdist.model.statements import BATCH_HASHES_MAX, CHUNK_HASH_BYTES

# Design decision 2: a batch is closed after 64 chunks or 50 ms.
BATCH_WAIT_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Batch:
    """To be signed and published."""

    first: int
    hashes: bytes
    """Of the chunks from `first` on, one behind the other."""


class HashBatches:
    """Of one map. Pure: time enters as monotonic `now_s`."""

    def __init__(self) -> None:
        self._first = 0
        self._hashes = bytearray()
        self._due_s: float | None = None

    def add(self, chunk: int, chunk_hash: bytes, now_s: float) -> list[Batch]:
        """Take the hash of `chunk`; return the batches that are closed by it, in their order."""
        assert len(chunk_hash) == CHUNK_HASH_BYTES
        closed = [] if chunk == self._next else self.flush()
        if not self._hashes:
            self._first, self._due_s = chunk, now_s + BATCH_WAIT_S
        self._hashes += chunk_hash
        if chunk == 0 or len(self._hashes) == BATCH_HASHES_MAX * CHUNK_HASH_BYTES:
            closed += self.flush()  # with the first one whoever waits can begin
        return closed

    def flush(self) -> list[Batch]:
        """Close the batch that is open."""
        closed = [Batch(self._first, bytes(self._hashes))] if self._hashes else []
        self.drop()
        return closed

    def drop(self) -> None:
        """Forget what was gathered and not closed."""
        self._hashes.clear()
        self._due_s = None

    def next_deadline_s(self) -> float | None:
        """When to `flush` at the latest."""
        return self._due_s

    @property
    def _next(self) -> int:
        return self._first + len(self._hashes) // CHUNK_HASH_BYTES

    def validate(self) -> None:
        assert len(self._hashes) % CHUNK_HASH_BYTES == 0
        assert len(self._hashes) < BATCH_HASHES_MAX * CHUNK_HASH_BYTES
        assert (self._due_s is not None) == bool(self._hashes), "what is gathered is signed in time"
        assert not self._hashes or self._first > 0
