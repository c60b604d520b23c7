"""When bulk bytes may be asked for: at the rate of their job, and after what a runtime waits for.

`BulkGate` knows of one node whether anybody waits; `BulkPace` adds the budget of one job to it.
Both are asked before a request goes out, because what comes in cannot be slowed down any more.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final
from weakref import WeakKeyDictionary

from p2pdist.model.bucket import TokenBucket

# Bulk goes on so long after the last wait: between two chunks of a pull nothing is waited for.
LINGER_S: Final = 0.25
# What bulk may ask for meanwhile; 2 % of 200 Mbit/s.
TRICKLE_BYTES_PER_S: Final = 512 * 1024
# Any second may carry this share more than the rate; the mean is the bucket's.
WINDOW_S: Final = 1.0
WINDOW_EXCESS: Final = 0.03
# What one request may ask of a rate, so that what comes in is smooth.
PIECE_S: Final = 0.01
# A budget that was not used for so long is not made up for.
BURST_S: Final = 0.01
# Bytes are counted here when they were checked, and on the wire some milliseconds before, in other
# seconds: without this distance single seconds carried 1.06 of the rate.
AIM: Final = 0.95
# What a body from outside may send ahead of what was read of it, and its bounds.
WINDOW_AHEAD_S: Final = 0.015
WINDOW_BYTES_MIN: Final = 64 * 1024
WINDOW_BYTES_MAX: Final = 2 << 20
LOOK_AGAIN_S: Final = 0.05
WAIT_MIN_S: Final = 0.002


def bulk_bucket(rate_per_s: float, now_s: float) -> TokenBucket:
    """The budget of one job at this host, in bytes per second."""
    return TokenBucket(rate_per_s * AIM, rate_per_s * BURST_S, now_s)


def set_bulk_rate(budget: TokenBucket, rate_per_s: float, now_s: float) -> None:
    """Change what `bulk_bucket` was made for."""
    budget.set_rate(rate_per_s * AIM, now_s)


class BulkGate:
    """Shut while a reader waits for bytes of any blob of this node, and `LINGER_S` longer."""

    def __init__(self) -> None:
        self.paused_s = 0.0
        """Seconds in which bulk had to wait for readers."""
        self._waiting = 0
        self._until_s = -math.inf
        self._held_at_s = -math.inf
        self._trickle = TokenBucket(TRICKLE_BYTES_PER_S, 1, 0.0)

    def shut(self, now_s: float) -> bool:
        return self._waiting > 0 or now_s < self._until_s

    def wait_began(self, now_s: float) -> bool:
        """A reader waits; True when the gate was open until now."""
        opened = not self.shut(now_s)
        self._waiting += 1
        return opened

    def wait_ended(self, now_s: float) -> None:
        self._waiting -= 1
        self._until_s = now_s + LINGER_S

    def urgent_bytes(self, now_s: float) -> bool:
        """Bytes that somebody waits for came in; True when the gate was open until now."""
        opened = not self.shut(now_s)
        self._until_s = now_s + LINGER_S
        return opened

    def take(self, nbytes: int, now_s: float) -> float:
        """Take a trickle and return 0, or return the seconds until one may be tried again."""
        if not self.shut(now_s):
            return 0.0
        wait_s = self._trickle.take(nbytes, now_s)
        if wait_s:
            since_s = now_s - self._held_at_s
            if since_s <= LINGER_S * 2:  # still the same wait: it is looked at once in a tick
                self.paused_s += since_s
            self._held_at_s = now_s
        return min(wait_s, LINGER_S)


class BulkPace:
    """One budget behind the gate; shared by all blobs that are fetched on it.

    Keeps received and outstanding bytes of any second within the rate: whatever is outstanding may
    come at once, so it counts as if it had come. Cost per call O(1), amortised.
    """

    def __init__(self, gate: BulkGate, budget: TokenBucket | None) -> None:
        self._gate = gate
        self._budget = budget
        self._outstanding = 0
        self._came: deque[tuple[float, int]] = deque()
        self._came_bytes = 0

    @property
    def limited(self) -> bool:
        """There is a rate to keep."""
        return self._budget is not None

    def piece_bytes(self, now_s: float) -> float:
        """The most that one request should be for, if a chunk is not larger."""
        if self._gate.shut(now_s):
            return 0.0
        return math.inf if self._budget is None else self._budget.rate_per_s * PIECE_S

    @property
    def ahead_bytes(self) -> int | None:
        """What a body from outside may send before it is read; None: as the kernel likes."""
        if self._budget is None:
            return None
        ahead = int(self._budget.rate_per_s * WINDOW_AHEAD_S)
        return min(WINDOW_BYTES_MAX, max(WINDOW_BYTES_MIN, ahead))

    def take(self, nbytes: int, now_s: float) -> float:
        """Take `nbytes`, which are outstanding until `settled`, and return 0; else take nothing
        and return the seconds after which to try again.
        """
        if self._budget is not None and (
            wait_s := self._window_wait_s(self._budget, nbytes, now_s)
        ):
            return wait_s
        if wait_s := self._gate.take(nbytes, now_s):
            return wait_s
        if self._budget is not None:
            if wait_s := self._budget.take(nbytes, now_s):
                return max(wait_s, WAIT_MIN_S)
            self._outstanding += nbytes
        return 0.0

    def settled(self, nbytes: int, now_s: float) -> None:
        """`nbytes` that were taken came, or will not come: that counts the same, to be safe."""
        if self._budget is not None:
            self._outstanding -= nbytes
            self._came.append((now_s, nbytes))
            self._came_bytes += nbytes

    def _window_wait_s(self, budget: TokenBucket, nbytes: int, now_s: float) -> float:
        while self._came and self._came[0][0] <= now_s - WINDOW_S:
            self._came_bytes -= self._came.popleft()[1]
        rate = budget.rate_per_s
        # One piece more than the rate must fit, or a low rate would never be reached.
        room = rate * WINDOW_S + max(rate * WINDOW_EXCESS, nbytes)
        if self._came_bytes + self._outstanding + nbytes <= room:
            return 0.0
        if not self._came:
            return LOOK_AGAIN_S
        return max(WAIT_MIN_S, min(LOOK_AGAIN_S, self._came[0][0] + WINDOW_S - now_s))


class BulkTraffic:
    """What is fetched as bulk at one host: its gate, and a pace for each job's budget."""

    def __init__(self) -> None:
        self.gate = BulkGate()
        self.received_bytes = 0
        """Verified payload that came as bulk."""
        self._unlimited = BulkPace(self.gate, None)
        self._paces: WeakKeyDictionary[TokenBucket, BulkPace] = WeakKeyDictionary()

    def pace(self, budget: TokenBucket | None) -> BulkPace:
        """The one pace of all that is fetched on `budget`."""
        if budget is None:
            return self._unlimited
        return self._paces.setdefault(budget, BulkPace(self.gate, budget))
