"""Delays between tries: exponential, capped, with full jitter."""

from __future__ import annotations

from random import Random


class Backoff:
    """Yields the next delay; `reset` after a success.

    Full jitter spreads 30,000 hosts over the whole delay after a tracker restart, where equal
    delays would bring them back as one wave.
    """

    def __init__(self, *, first_s: float, max_s: float, rng: Random) -> None:
        assert 0 < first_s <= max_s
        self._first_s, self._max_s, self._rng = first_s, max_s, rng
        self._tries = 0

    def next_delay_s(self) -> float:
        ceiling_s = min(self._max_s, self._first_s * 2.0 ** min(self._tries, 32))
        self._tries += 1
        return ceiling_s * (0.5 + self._rng.random() / 2)

    def reset(self) -> None:
        self._tries = 0
