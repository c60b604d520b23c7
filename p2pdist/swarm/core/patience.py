"""How long to wait for a thing that happens again and again, learnt from how long it took.

RFC 6298, section 2, as TCP waits for an acknowledgement: mean and mean deviation of what was seen,
doubled each time that the wait was in vain. So a wait fits 50 Mbit/s and 10 Gbit/s, idle hosts and
starved ones, without a constant that is right for one of them.
"""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 1.0  # RFC 6298, 2.1, before anything was seen
LEAST_S: Final = 0.25  # a few scheduling turns of a busy host; TCP itself uses 0.2 to 1 s
MOST_S: Final = 60.0  # RFC 6298, 2.5


class Patience:
    """Pure. `wait_s` is what to wait now."""

    __slots__ = ("_factor", "_mean_s", "_spread_s", "_wait_s", "wait_s")

    def __init__(self) -> None:
        self._mean_s: float | None = None
        self._spread_s = 0.0
        self._factor = 1
        self._wait_s = self.wait_s = FIRST_S

    def took(self, seconds: float) -> None:
        """It happened, after `seconds`."""
        if self._mean_s is None:
            self._mean_s, self._spread_s = seconds, seconds / 2
        else:
            self._spread_s += (abs(self._mean_s - seconds) - self._spread_s) / 4
            self._mean_s += (seconds - self._mean_s) / 8
        self._factor = 1
        self._wait_s = max(LEAST_S, self._mean_s + 4 * self._spread_s)
        self.wait_s = min(MOST_S, self._wait_s)

    def in_vain(self) -> None:
        """It did not happen in `wait_s`."""
        if self._wait_s * self._factor < MOST_S:
            self._factor *= 2
        self.wait_s = min(MOST_S, self._wait_s * self._factor)
