"""When the tracker is to name others for a blob of which nothing is known yet.

Without a map there is no `BlobFetch` that would starve and ask for more neighbours. A host that was
named only those that are dead, or have all the neighbours they can have, waited tens of seconds in
simulations until somebody asked it.
"""

from __future__ import annotations

from random import Random
from typing import Final

PATIENCE_S: Final = 0.5
"""A handout, a link and the first statements take some round trips: 0.1 s between continents."""
PAUSE_S: Final = 1.0
PAUSE_MAX_S: Final = 16.0
"""Where nobody has anything, a fleet that asks must not be what the tracker is busy with."""


class Lookout:
    """Pure: time enters as `now_s`, chance through `rng`. One blob's."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._pause_s = PAUSE_S
        self._not_before_s = 0.0

    def began(self, now_s: float) -> None:
        """It is wanted from now on."""
        self._pause_s = PAUSE_S
        self._not_before_s = now_s + self._jittered(PATIENCE_S)

    def due_s(self, heard_s: float) -> float:
        """`heard_s`: when somebody last said that something of it comes, or it came."""
        return max(self._not_before_s, heard_s + PATIENCE_S)

    def looked(self, now_s: float) -> None:
        """Others were asked for; each time it is longer until they are again."""
        self._not_before_s = now_s + self._jittered(self._pause_s)
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + self._rng.random())
