"""Questions to the tracker that somebody waits for, each until a time of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Generic, TypeVar

A = TypeVar("A")


class Questions(Generic[A]):
    """By number: what goes with each, and until when it is waited for.

    Each ends once: by `pop`, by `pop_due` or by `pop_all`.
    """

    def __init__(self) -> None:
        self._asked: dict[int, tuple[float, A]] = {}
        self._earliest_s = math.inf
        """At or before the first end; looked up anew only when it is reached, so that an event
        costs the same however many wait."""

    def __len__(self) -> int:
        return len(self._asked)

    def __contains__(self, seq: int) -> bool:
        return seq in self._asked

    def __iter__(self) -> Iterator[int]:
        return iter(self._asked)

    def ask(self, seq: int, about: A, until_s: float) -> None:
        assert seq not in self._asked
        self._asked[seq] = (until_s, about)
        self._earliest_s = min(self._earliest_s, until_s)

    def pop(self, seq: int) -> tuple[A] | None:
        """End a question; None where nobody waits for it (any more)."""
        asked = self._asked.pop(seq, None)
        return None if asked is None else (asked[1],)

    def pop_due(self, now_s: float) -> list[int]:
        """End those whose time is over, in the order in which they were asked."""
        if now_s < self._earliest_s:
            return []
        due = [seq for seq, (until_s, _) in self._asked.items() if until_s <= now_s]
        for seq in due:
            del self._asked[seq]
        self._earliest_s = min((until_s for until_s, _ in self._asked.values()), default=math.inf)
        return due

    def pop_all(self) -> list[int]:
        asked = list(self._asked)
        self._asked.clear()
        self._earliest_s = math.inf
        return asked

    def next_deadline_s(self) -> float | None:
        return self._earliest_s if self._asked else None

    def validate(self) -> None:
        for until_s, _ in self._asked.values():
            assert self._earliest_s <= until_s
