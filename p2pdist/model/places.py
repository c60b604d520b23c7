"""A bounded number of places for many who come: a few who take all of them shut nobody out."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Hashable)


class Places(Generic[K, T]):
    """Pure. When all are taken, whoever has most gives one up, the one taken longest ago, to anyone
    who would still have fewer with it.

    Turning away who comes last lets one address with slow connections keep all others out (256
    places held with 3 bytes each: 1 of 20 honest dials got through).
    """

    def __init__(self, most: int, *, eldest_goes: bool = False) -> None:
        """`eldest_goes`: who has most of all gives up its own eldest for a new one, where it is
        what comes last that most likely goes on; else it gets no more."""
        self._most = most
        self._eldest_goes = eldest_goes
        self._whose: dict[T, K] = {}
        self._of: dict[K, dict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._whose)

    def __contains__(self, item: T) -> bool:
        return item in self._whose

    def take(self, who: K, item: T) -> T | None:
        """Give `item` a place. Return the item that loses its place for it, None where one was
        free, or `item` itself where it gets none."""
        loser: T | None = None
        if len(self._whose) >= self._most:
            loudest = max(self._of, key=lambda one: len(self._of[one]), default=who)
            most, own = len(self._of.get(loudest, ())), len(self._of.get(who, ()))
            if self._eldest_goes and own and own == most:
                loudest = who
            elif most <= own + 1:
                return item
            loser = next(iter(self._of[loudest]))
            self.leave(loser)
        self._whose[item] = who
        self._of.setdefault(who, {})[item] = None
        return loser

    def leave(self, item: T) -> None:
        """Give the place of `item` back; nothing where it lost it before."""
        who = self._whose.pop(item, None)
        if who is None:
            return
        held = self._of[who]
        del held[item]
        if not held:
            del self._of[who]
