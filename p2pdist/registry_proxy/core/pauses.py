"""How long a registry whose bytes were wrong is left alone with a blob."""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from p2pdist.model.ids import Digest

FIRST_S: Final = 2.0
MAX_S: Final = 60.0
DIGESTS_MAX: Final = 4096


class Pauses:
    """Pure. Hosts that wait for a blob say so twice a second: each time all of it would be read
    again, to be thrown away again. Who asks by name is not held up."""

    def __init__(self) -> None:
        self._until_s: LRUCache[Digest, tuple[float, float]] = LRUCache(DIGESTS_MAX)
        """By digest: how long the last pause is, and when it ends."""

    def disproved(self, digest: Digest, now_s: float) -> None:
        """All of it was read and had another digest: twice as long each time."""
        last_s, _ = self._until_s.get(digest, (FIRST_S / 2, 0.0))
        pause_s = min(2 * last_s, MAX_S)
        self._until_s[digest] = pause_s, now_s + pause_s

    def proved(self, digest: Digest) -> None:
        """It had its digest."""
        self._until_s.pop(digest, None)

    def over(self, digest: Digest, now_s: float) -> bool:
        """It may be read for whoever wants it."""
        return now_s >= self._until_s.get(digest, (0.0, 0.0))[1]
