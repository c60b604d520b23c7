"""Chunk buffers used again: fresh memory costs a page fault every 4 KiB."""

from __future__ import annotations

from typing import Final

# Two runs of 1 MiB from each of 16 neighbours; beyond it buffers are simply freed.
POOL_BYTES_MAX: Final = 32 << 20


class BufferPool:
    """Buffers by length. What is taken may hold old bytes: write all of it before it is read."""

    def __init__(self, bytes_max: int = POOL_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._free: dict[int, list[bytearray]] = {}
        self.free_bytes = 0

    def take(self, length: int) -> bytearray:
        free = self._free.get(length)
        if not free:
            return bytearray(length)
        self.free_bytes -= length
        return free.pop()

    def give(self, buffer: bytearray) -> None:
        """Hand back a buffer that nobody looks at any more; a full pool lets it go."""
        if self.free_bytes + len(buffer) <= self._bytes_max:
            self._free.setdefault(len(buffer), []).append(buffer)
            self.free_bytes += len(buffer)
