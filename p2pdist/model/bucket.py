"""A token bucket: so many bytes a second, a short burst above it, time from outside."""

from __future__ import annotations


class TokenBucket:
    """Lets `rate_per_s` through on average and at most `burst` (in the same unit) at once.

    What was granted may exceed what is there: the debt delays the next one, so that pieces of any
    size get through and the mean holds.
    """

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        assert rate_per_s > 0
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._at_s = now_s

    @property
    def rate_per_s(self) -> float:
        return self._rate_per_s

    def set_rate(self, rate_per_s: float, now_s: float) -> None:
        """Go on at another rate; the burst stays as long in time, and what is owed is owed."""
        assert rate_per_s > 0
        self._refill(now_s)
        factor = rate_per_s / self._rate_per_s
        self._rate_per_s, self._burst = rate_per_s, self._burst * factor
        if self._tokens > 0:
            self._tokens *= factor

    def take(self, amount: float, now_s: float) -> float:
        """Take `amount` and return 0, or take nothing and return the seconds to wait."""
        self._refill(now_s)
        if self._tokens <= 0:
            return -self._tokens / self._rate_per_s + 1e-4
        self._tokens -= amount
        return 0.0

    def owe(self, amount: float, now_s: float) -> None:
        """Take `amount`, whatever is there."""
        self._refill(now_s)
        self._tokens -= amount

    def give_back(self, amount: float, now_s: float) -> None:
        """What was taken turned out to be free."""
        self._refill(now_s)
        self._tokens = min(self._burst, self._tokens + amount)

    def _refill(self, now_s: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate_per_s)
        self._at_s = now_s
