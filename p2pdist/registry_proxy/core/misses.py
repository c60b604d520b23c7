"""How many questions that bring nothing to keep a client may have upstream asked."""

from __future__ import annotations

import math
from typing import Final

from cachetools import LRUCache

from p2pdist.model.bucket import TokenBucket

# A host that mistypes, or probes for signatures and platforms that are not there, stays far below.
# Docker Hub grants 100 pulls in six hours: what an outsider spends, pulls of everybody lack.
MISSES_PER_S: Final = 10.0
MISSES_BURST: Final = 200.0
CLIENTS_MAX: Final = 4096
SAY_EVERY_S: Final = 60.0


class MissBudget:
    """A token bucket for each client: a question costs one, and gets it back for what is there.

    Pure: time enters as `now_s` (monotonic seconds). Questions are paid in advance, so that a flood
    is bounded before the first answer comes.
    """

    def __init__(
        self,
        *,
        rate_per_s: float = MISSES_PER_S,
        burst: float = MISSES_BURST,
        clients_max: int = CLIENTS_MAX,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._buckets: LRUCache[str, TokenBucket] = LRUCache(clients_max)
        self._said_s: LRUCache[str, float] = LRUCache(clients_max)
        self.refused_total = 0

    def ask(self, client: str, now_s: float) -> bool:
        """Take what a question costs; False: `client` has spent it all."""
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = TokenBucket(self._rate_per_s, self._burst, now_s)
        if bucket.take(1, now_s) == 0:
            return True
        self.refused_total += 1
        return False

    def give_back(self, client: str, now_s: float) -> None:
        """The question of `client` was a good one, or nobody's fault."""
        if (bucket := self._buckets.get(client)) is not None:
            bucket.give_back(1, now_s)

    def to_be_said(self, client: str, now_s: float) -> bool:
        """Whether to say that `client` is refused: once a minute, while it goes on."""
        if now_s < self._said_s.get(client, -math.inf) + SAY_EVERY_S:
            return False
        self._said_s[client] = now_s
        return True
