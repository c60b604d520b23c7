"""Which repositories miss something that they named: what was heard of their tags may be over."""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from p2pdist.model.ids import TagKey
from p2pdist.oci.names import ImageName

NAMES_MAX: Final = 10_000
TAGS_MAX: Final = 100_000
# What is broken for good must not cost more than one question per tag and second.
PAUSE_S: Final = 1.0


class Doubts:
    """An image that was deleted when its tag moved shows by what its registry has no more.

    Of a repository, not of a tag: which tags lead to a layer nobody keeps account of, and a look-up
    too many is one HEAD. Pure: time enters as `now_s` (monotonic seconds).
    """

    def __init__(self, *, names_max: int = NAMES_MAX, tags_max: int = TAGS_MAX) -> None:
        self._missed_s: LRUCache[ImageName, float] = LRUCache(names_max)
        self._looked_s: LRUCache[TagKey, float] = LRUCache(tags_max)

    def missing(self, name: ImageName, now_s: float) -> None:
        """The registry answered that it has not what `name` itself had named."""
        self._missed_s[name] = now_s

    def looked(self, key: TagKey, now_s: float) -> None:
        """The tag was asked for; the answer may be as old as ours, as others pause as well."""
        self._looked_s[key] = now_s

    def doubtful(self, name: ImageName, key: TagKey, checked_s: float, now_s: float) -> bool:
        """Whether a tag of `name`, as it was told at `checked_s`, has to be looked up anew."""
        missed_s = self._missed_s.get(name)
        if missed_s is None or missed_s <= checked_s:
            return False
        return now_s - max(checked_s, self._looked_s.get(key, checked_s)) >= PAUSE_S
