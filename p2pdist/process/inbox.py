"""Work that has come in, done in order and a few milliseconds at a time.

A loop that works off everything that came in one turn is late for all else: a thousand heartbeats
in the same moment are 50 ms, and one inventory of 4,096 blobs as much.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# A fifth of what the event loop may be late at most; the rest is for what comes meanwhile.
TURN_S: Final = 0.002


class Inbox(Generic[T]):
    """`work` deals with one item; True: it has more to do with the same one, in another step."""

    def __init__(self, work: Callable[[T], bool]) -> None:
        self._work = work
        self._items: deque[T] = deque()
        self._turn: asyncio.Handle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        if self._closed:
            return
        self._items.append(item)
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._take_turn)

    def close(self) -> None:
        """Forget what has not been dealt with."""
        self._items.clear()
        self._closed = True
        if self._turn is not None:
            self._turn.cancel()

    def _take_turn(self) -> None:
        # Not the loop's time: uvloop's stands still within a turn.
        until_s = time.monotonic() + TURN_S
        try:
            while self._items and time.monotonic() < until_s:
                item = self._items.popleft()
                if self._work(item) and not self._closed:
                    self._items.appendleft(item)
        finally:
            more = self._items and not self._closed
            self._turn = asyncio.get_running_loop().call_soon(self._take_turn) if more else None
