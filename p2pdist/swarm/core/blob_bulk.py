"""Whether one blob is bulk, and at which pace it comes while it is."""

from __future__ import annotations

from p2pdist.model.bucket import TokenBucket
from p2pdist.swarm.core.bulk import BulkPace, BulkTraffic


class BlobBulk:
    """Pure."""

    def __init__(self, traffic: BulkTraffic) -> None:
        self.ordered = False
        """It is fetched also where nobody waits for it; as bulk then."""
        self.pace: BulkPace | None = None
        """While it is bulk."""
        self._traffic = traffic
        self._budget: TokenBucket | None = None

    def __bool__(self) -> bool:
        return self.pace is not None

    @property
    def ahead_bytes(self) -> int | None:
        """What a body from outside may send before it is read; None: as the kernel likes."""
        return self.pace.ahead_bytes if self.pace is not None else None

    def order(self, budget: TokenBucket | None) -> None:
        """The last order's budget counts."""
        self.ordered, self._budget = True, budget

    def weigh(self, *, waited_for: bool) -> bool:
        """Become bulk, or stop being that; return whether the pace is another one now."""
        bulk = self.ordered and not waited_for
        pace = self._traffic.pace(self._budget) if bulk else None
        changed = pace is not self.pace
        self.pace = pace
        return changed

    def received(self, nbytes: int) -> None:
        """Verified payload came from a neighbour, or from outside."""
        if self.pace is not None:
            self._traffic.received_bytes += nbytes
