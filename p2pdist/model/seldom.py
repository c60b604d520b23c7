"""What happens again and again is said once a minute, with how often it happened."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)

EVERY_S: Final = 60.0
# Keys may hold what others made up; one that is forgotten is said again.
KEYS_MAX: Final = 1024


class Seldom(Generic[K]):
    """Pure: time enters as `now_s` (monotonic seconds)."""

    def __init__(self) -> None:
        self._said: LRUCache[K, tuple[float, int]] = LRUCache(KEYS_MAX)
        """When it was said last, and how often it happened since then."""

    def happened(self, key: K, now_s: float) -> int:
        """Return how often `key` happened since it was said last, this time included; 0: it is not
        to be said now."""
        said_s, unsaid = self._said.get(key, (now_s - EVERY_S, 0))
        if now_s - said_s < EVERY_S:
            self._said[key] = said_s, unsaid + 1
            return 0
        self._said[key] = now_s, 0
        return unsaid + 1
