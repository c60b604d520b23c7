"""When a daemon asks for its next certificate."""

from __future__ import annotations

from random import Random
from typing import Final

FROM_SHARE: Final = 0.6
UNTIL_SHARE: Final = 2 / 3
"""Of its life. Hosts that were set up within an hour would ask within one a month later; this is
two days of 30. From `UNTIL_SHARE` on `doctor` warns."""
FIRST_PAUSE_S: Final = 60.0
PAUSE_S_MAX: Final = 6 * 3600.0
RUSH_S: Final = 300.0
"""Over which those ask that are late when a tracker comes back."""
LEFT_SHARE: Final = 0.1
"""No pause is longer than that share of what is left: one of an hour has its tries, too."""
PAUSE_S_MIN: Final = 1.0


class RenewalPlan:
    """Of one certificate after the other. Pure: moments are Unix seconds, as its dates are."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._at_s = 0.0
        self._ends_s = 0.0
        self._failures = 0
        self._able = True

    @property
    def at_s(self) -> float:
        """When to ask."""
        return self._at_s

    def follow(self, begins_s: float, ends_s: float) -> None:
        """Go by another certificate from here on."""
        share = self._rng.uniform(FROM_SHARE, UNTIL_SHARE)
        self._at_s, self._ends_s = begins_s + (ends_s - begins_s) * share, ends_s
        self._failures = 0

    def due(self, now_s: float, *, able: bool) -> bool:
        """Whether to ask now; `able`: there is somebody to ask."""
        was_able, self._able = self._able, able
        if not able:
            return False
        if not was_able and self._at_s <= now_s:
            self._at_s = now_s + self._rng.random() * self._bounded_s(RUSH_S, now_s)
        return self._at_s <= now_s

    def failed(self, now_s: float, *, retry_s: float = 0.0) -> None:
        """Nobody answered, or who did refused, and named the earliest moment for the next try."""
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 16), PAUSE_S_MAX)
        self._failures += 1
        pause_s = self._bounded_s(pause_s, now_s) * self._rng.uniform(0.5, 1.0)
        self._at_s = now_s + max(pause_s, retry_s * self._rng.uniform(1.0, 2.0))

    def _bounded_s(self, pause_s: float, now_s: float) -> float:
        return max(PAUSE_S_MIN, min(pause_s, LEFT_SHARE * (self._ends_s - now_s)))
