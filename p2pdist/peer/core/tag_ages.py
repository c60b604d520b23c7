"""How long ago a proxy last vouched for each tag, on this host's own monotonic clock."""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from p2pdist.model.ids import TagKey

TAGS_MAX: Final = 100_000


class TagAges:
    """Pure; the tags that were not asked for in the longest time are forgotten first."""

    def __init__(self, *, tags_max: int = TAGS_MAX) -> None:
        self._since_s: LRUCache[TagKey, float] = LRUCache(tags_max)

    def heard(self, key: TagKey, age_s: float, now_s: float) -> None:
        """A proxy's word came, `age_s` (not negative) after that proxy had looked."""
        assert age_s >= 0
        self._since_s[key] = now_s - age_s

    def age_s(self, key: TagKey, now_s: float) -> float | None:
        """Seconds since the proxy looked; None: nothing was heard since this process began."""
        since_s = self._since_s.get(key)
        return None if since_s is None else now_s - since_s
