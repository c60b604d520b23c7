"""Futures of those who wait for a chunk: each chunk wakes only its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class ChunkWaiters:
    def __init__(self) -> None:
        self._futures: dict[int, set[asyncio.Future[None]]] = {}

    async def wait(self, chunk: int, timeout_s: float) -> None:
        """Return when `chunk` is woken or the time is over; the caller looks again either way."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._futures.setdefault(chunk, set())
        waiting.add(future)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return
        finally:
            waiting.discard(future)
            if not waiting and self._futures.get(chunk) is waiting:
                del self._futures[chunk]

    def wake(self, chunks: Iterable[int]) -> None:
        for chunk in chunks:
            for future in self._futures.pop(chunk, ()):
                if not future.done():
                    future.set_result(None)

    def wake_all(self) -> None:
        self.wake(list(self._futures))
