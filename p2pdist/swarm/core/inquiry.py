"""When to ask a proxy who else reads a blob: only where no tracker names anybody.

Hosts that come while every tracker is away know the owning proxy alone, and each takes the whole
blob from it. The proxy has links to all of them and can name them (`acquaintances`).
"""

from __future__ import annotations

from random import Random
from typing import Final

from p2pdist.model.backoff import Backoff
from p2pdist.swarm.core.link_state import LinkState

TRACKER_ANSWERS_S: Final = 1.0
"""As long as a lookup of something small waits for it (`swarm/finding.py`)."""
SPREAD_S: Final = 1.0
"""A tracker that dies is missed by all at once; the proxy is not to be asked by all at once."""
AGAIN_FIRST_S: Final = 0.1
"""Whoever comes first hears of nobody, and so do all while the proxy has just begun with the blob.
At 100 Mbit/s half a second of that is 6 MB from the proxy for each host."""
AGAIN_MAX_S: Final = 16.0
ENOUGH: Final = 12
"""Peers; as many as a tracker names. Who knows them asks for no more."""


class Inquiry:
    """Pure: time enters as `now_s`, chance through `rng`. One blob's."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._backoff = Backoff(first_s=AGAIN_FIRST_S, max_s=AGAIN_MAX_S, rng=rng)
        self._answer_by_s: float | None = None
        """Until when the tracker may take to name somebody; None: it did, or was never asked."""
        self._not_before_s = 0.0
        self._asked: LinkState | None = None
        """The proxy that has not answered yet."""

    def sought(self, now_s: float) -> None:
        """The tracker is being asked to name somebody."""
        if self._answer_by_s is None:
            self._answer_by_s = now_s + TRACKER_ANSWERS_S

    def named(self) -> None:
        """It did, or said that there is nobody."""
        self._answer_by_s = None
        self._backoff.reset()

    def tracker_moved(self, now_s: float, *, up: bool) -> None:
        """The tracker can be asked, and is at once; or it is away from now on."""
        if up:
            self._answer_by_s = now_s + TRACKER_ANSWERS_S
        else:
            spread_s = now_s + SPREAD_S * self._rng.random()
            self._not_before_s = max(self._not_before_s, spread_s)

    def due_s(self, *, tracker_up: bool) -> float | None:
        """When a proxy is to be asked, if there is one; None: the tracker sees to it."""
        if not tracker_up:
            return self._not_before_s
        if self._answer_by_s is None:
            return None
        return max(self._answer_by_s, self._not_before_s)

    def looked(self, now_s: float, asked: LinkState | None) -> None:
        """A proxy was asked; or none, as enough are known or there is none."""
        self._not_before_s = now_s + self._backoff.next_delay_s()
        self._asked = asked

    def linked(self, now_s: float) -> None:
        """There is a proxy that was not there before."""
        self._not_before_s = min(self._not_before_s, now_s)

    def answered(self, link: LinkState) -> bool:
        """A proxy names others; False: it was not asked, or not this one."""
        if self._asked is not link:
            return False
        self._asked = None
        return True
