"""Which caller may read which repository, as its registry said last."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

from cachetools import LRUCache

from p2pdist.oci.names import ImageName

# A right that was taken back at the registry ends here a minute later at the latest.
YES_S: Final = 60.0
# Who just got the right is not kept waiting; who has none cannot have the registry asked at will.
NO_S: Final = 5.0
GRACE_S: Final = 600.0
# A registry that is down costs each question its deadline: callers in their grace wait for one of
# them at most this often.
RETRY_S: Final = 5.0
# Each bearer token is a caller of its own, and lives for minutes: 100 pulls a second.
CALLERS_MAX: Final = 32_768


class CallerKey(NamedTuple):
    """A caller at a repository; `caller` is a keyed hash of its credentials."""

    name: ImageName
    caller: bytes


class Standing(enum.Enum):
    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"
    """The registry is to be asked."""


@dataclass(slots=True)
class _Verdict:
    yes_s: float | None = None
    """When the question was asked that brought the last yes."""
    no_s: float | None = None
    """When the last no came; then there is no yes."""
    retry_s: float = 0.0
    """In the grace: not before this is the registry asked again."""
    probe: str = ""
    final: bool = False


class CallerBook:
    """Pure: time enters as `now_s` (monotonic seconds). The least recently used callers go."""

    def __init__(
        self,
        *,
        yes_s: float = YES_S,
        no_s: float = NO_S,
        grace_s: float = GRACE_S,
        callers_max: int = CALLERS_MAX,
    ) -> None:
        """`grace_s`: how long a yes that ran out still counts while the registry says nothing."""
        self._yes_s = yes_s
        self._no_s = no_s
        self._grace_s = grace_s
        self._verdicts: LRUCache[CallerKey, _Verdict] = LRUCache(callers_max)

    def __len__(self) -> int:
        return len(self._verdicts)

    def standing(self, key: CallerKey, now_s: float) -> Standing:
        verdict = self._verdicts.get(key)
        if verdict is None:
            return Standing.UNKNOWN
        if verdict.no_s is not None:
            return Standing.DENIED if now_s < verdict.no_s + self._no_s else Standing.UNKNOWN
        assert verdict.yes_s is not None
        if now_s < verdict.yes_s + self._yes_s or self.in_grace(key, now_s):
            return Standing.ALLOWED
        return Standing.UNKNOWN

    def in_grace(self, key: CallerKey, now_s: float) -> bool:
        """It is allowed by a yes that ran out, as the registry gave no answer just now."""
        verdict = self._verdicts.get(key)
        return (
            verdict is not None
            and verdict.yes_s is not None
            and now_s >= verdict.yes_s + self._yes_s
            and now_s < min(verdict.retry_s, self._grace_ends_s(verdict.yes_s))
        )

    def probe(self, key: CallerKey) -> str:
        """The manifest that the last yes was for: it answers for the repository. Empty: none."""
        verdict = self._verdicts.get(key)
        return "" if verdict is None else verdict.probe

    def allowed(self, key: CallerKey, *, asked_s: float, probe: str = "") -> None:
        """The registry said yes to a question of `asked_s`.

        A no that came since then stands: it is the later word.
        """
        old = self._verdicts.get(key)
        if old is not None and old.no_s is not None and old.no_s >= asked_s:
            return
        if old is not None and old.yes_s is not None and old.yes_s > asked_s:
            return
        probe = probe or (old.probe if old is not None else "")
        self._verdicts[key] = _Verdict(yes_s=asked_s, probe=probe)

    def refused(self, key: CallerKey, now_s: float, *, final: bool = False) -> None:
        """The registry said no, to whatever it was asked; no grace is left. `final`: it knows who
        asks, and another token of the same account would not help."""
        self._verdicts[key] = _Verdict(no_s=now_s, final=final)

    def is_final(self, key: CallerKey) -> bool:
        """Whether the last no was."""
        verdict = self._verdicts.get(key)
        return verdict is not None and verdict.final

    def unanswered(self, key: CallerKey, now_s: float) -> bool:
        """The registry said nothing; tell whether the caller keeps access all the same."""
        verdict = self._verdicts.get(key)
        if verdict is None or verdict.yes_s is None:
            return False
        if now_s >= self._grace_ends_s(verdict.yes_s):
            del self._verdicts[key]
            return False
        verdict.retry_s = now_s + RETRY_S
        return True

    def _grace_ends_s(self, yes_s: float) -> float:
        return yes_s + self._yes_s + self._grace_s

    def validate(self) -> None:
        """Assert what must hold after every event; for tests."""
        assert len(self._verdicts) <= self._verdicts.maxsize
        for verdict in self._verdicts.values():
            assert (verdict.yes_s is None) != (verdict.no_s is None), "one word, yes or no"
            assert verdict.no_s is None or not verdict.probe, "a no takes the probe with it"
