"""How long a tag may be believed, and what to do when upstream does not answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from p2pdist.errors import RegistryError
from p2pdist.model.ids import Digest, TagKey

# Registry contract 4.3: one HEAD per tag and 30 s; an outage of a day passes unnoticed; a mistyped
# tag costs one question per 5 s, and a tag that was just pushed is seen as soon.
SOFT_TTL_S: Final = 30.0
STALE_IF_ERROR_S: Final = 24 * 3600.0
NEGATIVE_TTL_S: Final = 5.0
TAGS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class TagEntry:
    """What a tag stood for at `checked_s`; `statement` is the signed record of that."""

    digest: Digest
    checked_s: float
    statement: bytes


@dataclass(frozen=True, slots=True)
class Fresh:
    """Serve `entry`; `stale` says why an old one has to do, and is None for a fresh one."""

    entry: TagEntry
    stale: str | None = None


@dataclass(frozen=True, slots=True)
class Revalidate:
    """Ask upstream; `entry` is what may be served if it does not answer."""

    entry: TagEntry | None


@dataclass(frozen=True, slots=True)
class Absent:
    """Upstream said no a moment ago."""

    error: RegistryError


@dataclass(frozen=True, slots=True)
class _Trouble:
    why: str
    until_s: float


@dataclass(frozen=True, slots=True)
class _Refusal:
    error: RegistryError
    until_s: float
    accepted: frozenset[str]


class TagCache:
    """Tags by key, least recently used ones dropped beyond `tags_max`.

    Pure: time enters as `now_s` (monotonic seconds). A `soft_ttl_s` of 0 asks each time.
    """

    def __init__(
        self,
        *,
        soft_ttl_s: float = SOFT_TTL_S,
        stale_if_error_s: float = STALE_IF_ERROR_S,
        negative_ttl_s: float = NEGATIVE_TTL_S,
        tags_max: int = TAGS_MAX,
    ) -> None:
        assert 0 <= negative_ttl_s <= NEGATIVE_TTL_S
        self._soft_ttl_s = soft_ttl_s
        self._stale_if_error_s = stale_if_error_s
        self._negative_ttl_s = negative_ttl_s
        self._entries: LRUCache[TagKey, TagEntry] = LRUCache(tags_max)
        self._refused: LRUCache[TagKey, _Refusal] = LRUCache(tags_max)
        self._troubles: LRUCache[TagKey, _Trouble] = LRUCache(tags_max)

    def __len__(self) -> int:
        return len(self._entries)

    def decide(
        self, key: TagKey, now_s: float, *, accepted: Collection[str] = (), doubtful: bool = False
    ) -> Fresh | Revalidate | Absent:
        """`accepted`: media types beyond ours; a refusal is none for who accepts more.

        `doubtful`: something that the tag led to is not there any more.
        """
        refused = self._refused.get(key)
        if refused is not None and now_s < refused.until_s and refused.accepted >= set(accepted):
            return Absent(refused.error)
        entry = self._entries.get(key)
        if entry is None:
            return Revalidate(None)
        if now_s < entry.checked_s + self._soft_ttl_s and not doubtful:
            return Fresh(entry)
        if not self._usable(entry, now_s):
            return Revalidate(None)
        trouble = self._troubles.get(key)
        if trouble is not None and now_s < trouble.until_s:
            return Fresh(entry, trouble.why)
        return Revalidate(entry)

    def known(self, key: TagKey) -> bool:
        """Whether upstream had this tag when it was last asked."""
        return key in self._entries

    def checked_s(self, key: TagKey) -> float | None:
        """When upstream last said what the tag stands for."""
        entry = self._entries.get(key)
        return None if entry is None else entry.checked_s

    def confirmed(self, key: TagKey, entry: TagEntry) -> None:
        """Upstream said at `entry.checked_s` what the tag stands for."""
        self._entries[key] = entry
        self._refused.pop(key, None)
        self._troubles.pop(key, None)

    def refused(
        self, key: TagKey, error: RegistryError, now_s: float, *, accepted: Collection[str] = ()
    ) -> None:
        """Upstream answered that there is no such tag, or not for us: the old one is over."""
        self._entries.pop(key, None)
        self._troubles.pop(key, None)
        self._refused[key] = _Refusal(error, now_s + self._negative_ttl_s, frozenset(accepted))

    def unanswered(self, key: TagKey, why: str, now_s: float) -> TagEntry | None:
        """Upstream gave no answer: return what may be served in its place.

        It is not asked for the same tag again until the negative time is over.
        """
        entry = self._entries.get(key)
        if entry is None or not self._usable(entry, now_s):
            return None
        self._troubles[key] = _Trouble(why, now_s + self._negative_ttl_s)
        return entry

    def recall(self, key: TagKey, entry: TagEntry) -> None:
        """Take in what was known before a restart, unless upstream has spoken since."""
        if key not in self._entries and key not in self._refused:
            self._entries[key] = entry

    def _usable(self, entry: TagEntry, now_s: float) -> bool:
        return now_s < entry.checked_s + self._stale_if_error_s

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert not self._entries.keys() & self._refused.keys(), "upstream said both"
        assert not self._troubles.keys() & self._refused.keys(), "an answer ends all trouble"
