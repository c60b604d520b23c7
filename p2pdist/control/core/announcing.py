"""What the tracker hears of a host's blobs, and when: changes at the tracker's pace, and everything
once in each connection. Without a connection nothing is kept here: the next one begins with it all.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Final

from p2pdist.model.control import DELTAS_MAX, Announce, Delta

# A complete blob or a retraction goes out after it, with those that happen at the same time.
PROMPT_S: Final = 0.05
# A fleet whose tracker restarted spreads its inventories over this many announce intervals.
INVENTORY_SPREAD_INTERVALS: Final = 5.0


class Announcing:
    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._interval_s: float | None = None
        """None without a connection; then all that follows is empty or None, too."""
        self._changed: dict[str, Delta] = {}
        """The newest of each key that changed since the last announcement."""
        self._next_s: float | None = None
        """When the changes go out; never None with a connection."""
        self._prompted = False
        self._inventory_s: float | None = None
        """When the inventory is asked for; None once it was."""
        self._batches: deque[Announce] = deque()
        """The rest of the inventory; one goes out when the tracker took most of those before."""

    # --- the connection -------------------------------------------------------------------------

    def up(self, interval_s: float, now_s: float, *, returning: bool) -> None:
        """`returning`: the host had a connection before, as a fleet has whose tracker restarted."""
        assert self._interval_s is None
        self._interval_s = interval_s
        self._next_s = now_s + self._pause_s(interval_s)
        spread_s = INVENTORY_SPREAD_INTERVALS * interval_s * self._rng.random()
        self._inventory_s = now_s + spread_s if returning else now_s

    def down(self) -> None:
        self._interval_s = self._next_s = self._inventory_s = None
        self._prompted = False
        self._changed.clear()
        self._batches.clear()

    # --- the host -------------------------------------------------------------------------------

    def note(self, delta: Delta, now_s: float) -> None:
        """At the pace of the tracker, but complete blobs and retractions at once."""
        if self._interval_s is None:
            return
        self._changed[delta.key] = delta
        if (delta.complete or not delta.held_chunks) and not self._prompted:
            self._prompted, self._next_s = True, now_s + PROMPT_S

    def inventory(self, deltas: list[Delta]) -> Announce:
        """Return what replaces all that the tracker knows of this host; the rest is to follow."""
        assert self._inventory_s is None
        self._batches.extend(announcements(deltas[DELTAS_MAX:]))
        return Announce(deltas[:DELTAS_MAX], full=True)

    @property
    def has_batch(self) -> bool:
        return bool(self._batches)

    def next_batch(self) -> Announce | None:
        return self._batches.popleft() if self._batches else None

    # --- time -----------------------------------------------------------------------------------

    def next_deadline_s(self) -> float | None:
        ends = (self._next_s, self._inventory_s)
        return min((end for end in ends if end is not None), default=None)

    def changes(self, now_s: float) -> list[Announce]:
        """Return what is due of what changed."""
        if self._interval_s is None or self._next_s is None or now_s < self._next_s:
            return []
        self._prompted = False
        self._next_s = now_s + self._pause_s(self._interval_s)
        deltas = list(self._changed.values())
        self._changed.clear()
        return announcements(deltas)

    def inventory_due(self, now_s: float) -> bool:
        """Return whether to ask for the inventory now; True once in a connection."""
        if self._inventory_s is None or now_s < self._inventory_s:
            return False
        self._inventory_s = None
        return True

    def _pause_s(self, interval_s: float) -> float:
        return interval_s * (0.9 + 0.2 * self._rng.random())

    def validate(self) -> None:
        if self._interval_s is None:
            assert self._next_s is None
            assert self._inventory_s is None
            assert not self._prompted
            assert not self._changed
            assert not self._batches
        else:
            assert self._next_s is not None
        assert all(key == delta.key for key, delta in self._changed.items())
        # An inventory that was not asked for cannot be under way.
        assert self._inventory_s is None or not self._batches


def announcements(deltas: list[Delta]) -> list[Announce]:
    """Cut `deltas` into what one message may carry; none of nothing."""
    return [
        Announce(deltas[start : start + DELTAS_MAX]) for start in range(0, len(deltas), DELTAS_MAX)
    ]
