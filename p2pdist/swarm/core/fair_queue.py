"""What many senders say and one worker takes in, in its order: who says too much leaves.

A queue that turns away whoever comes when it is full lets a few who fill it shut out all others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
T = TypeVar("T")


class FairQueue(Generic[S, T]):
    """Pure. `None` as a sender is this node itself, which is never turned out and takes no room."""

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._items: deque[tuple[S | None, T]] = deque()
        self._waiting: Counter[S] = Counter()
        self._total = 0  # of `_waiting`
        self._sheltered: set[S] = set()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, sender: S | None, item: T, *, sheltered: bool = False) -> S | None:
        """Queue `item`; return who is turned out for it, if there was no room: whoever has most
        waiting here, with all of that.

        `sheltered`: only others of that kind make it leave, while anyone else has items here.
        """
        self._items.append((sender, item))
        if sender is None:
            return None
        self._waiting[sender] += 1
        self._total += 1
        if sheltered:
            self._sheltered.add(sender)
        if self._total <= self._items_max:
            return None
        return self._turn_out()

    def pop(self) -> tuple[S | None, T]:
        """Take out the oldest item. Raises IndexError when there is none."""
        sender, item = self._items.popleft()
        if sender is not None:
            self._waiting[sender] -= 1
            self._total -= 1
            if not self._waiting[sender]:
                self._forget(sender)
        return sender, item

    def _turn_out(self) -> S:
        def claim(sender: S) -> tuple[bool, int]:
            return sender not in self._sheltered, self._waiting[sender]

        loudest = max(self._waiting, key=claim)
        self._items = deque(entry for entry in self._items if entry[0] != loudest)
        self._forget(loudest)
        return loudest

    def _forget(self, sender: S) -> None:
        self._total -= self._waiting.pop(sender)
        self._sheltered.discard(sender)
