"""Keys that fall due a fixed time after they were last touched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """All keys wait equally long, so the order of touching is the order of falling due.

    Every operation is O(1), where a heap would keep a dead record for each of the thousands of
    messages a second that push a deadline back.
    """

    def __init__(self, after_s: float) -> None:
        assert after_s > 0
        self._after_s = after_s
        self._due_at_s: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due_at_s)

    def __contains__(self, key: K) -> bool:
        return key in self._due_at_s

    def __iter__(self) -> Iterator[K]:
        """The first that falls due first."""
        return iter(self._due_at_s)

    def touch(self, key: K, now_s: float) -> None:
        """Let `key` fall due `after_s` from now; `now_s` never runs backwards."""
        self._due_at_s[key] = now_s + self._after_s
        self._due_at_s.move_to_end(key)

    def drop(self, key: K) -> None:
        self._due_at_s.pop(key, None)

    def oldest(self) -> K | None:
        return next(iter(self), None)

    def next_s(self) -> float | None:
        """When the first key falls due."""
        return next(iter(self._due_at_s.values()), None)

    def validate(self) -> None:
        """Assert that the order is that of falling due; for tests and simulations."""
        moments = list(self._due_at_s.values())
        assert moments == sorted(moments)

    def pop_due(self, now_s: float) -> list[K]:
        """Take out and return the keys that are due, oldest first."""
        due = []
        while (at_s := self.next_s()) is not None and at_s <= now_s:
            due.append(self._due_at_s.popitem(last=False)[0])
        return due
