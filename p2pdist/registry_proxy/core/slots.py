"""Which fetch from outside may run, so that no upstream takes every slot.

A dynamic threshold, as shared-memory switches give buffers to their ports (Choudhury and Hahne,
1998): an upstream may have one more slot while it has fewer than are free. Alone it gets half of
them; the other half lets a second one in at once, however long the fetches of the first one last.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Generic, TypeVar

Claim = TypeVar("Claim")


class FairSlots(Generic[Claim]):
    """Pure. `Claim` is whatever a caller waits with; upstreams go by their names."""

    def __init__(self, total: int, limits: Mapping[str, int] | None = None) -> None:
        """`limits`: what an upstream may have at most, for those that may not have all there is."""
        assert total > 0
        self._total = self._free = total
        self._limits = limits or {}
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[Claim]] = {}

    def take(self, upstream: str) -> bool:
        """Take a slot now; False: whoever asks has to `wait`."""
        if upstream in self._waiting or not self._within(upstream):
            return False
        self._give(upstream)
        return True

    def wait(self, upstream: str, claim: Claim) -> None:
        self._waiting.setdefault(upstream, deque()).append(claim)

    def withdraw(self, upstream: str, claim: Claim) -> bool:
        """`claim` waits no longer; False: it was given a slot before."""
        if claim not in self._waiting.get(upstream, ()):
            return False
        self._waiting[upstream].remove(claim)
        if not self._waiting[upstream]:
            del self._waiting[upstream]
        return True

    def release(self, upstream: str) -> list[Claim]:
        """Give a slot back; return the claims that have one now, the upstream with the fewest slots
        first, those of one upstream in the order in which they came."""
        self._held[upstream] -= 1
        if not self._held[upstream]:
            del self._held[upstream]
        self._free += 1
        granted = []
        while able := [name for name in self._waiting if self._within(name)]:
            least = min(able, key=lambda name: self._held[name])
            granted.append(self._waiting[least].popleft())
            if not self._waiting[least]:
                del self._waiting[least]
            self._give(least)
        return granted

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert self._free >= 0
        assert self._free + self._held.total() == self._total
        for upstream, held in self._held.items():
            assert 0 < held <= self._limits.get(upstream, self._total)
        assert all(self._waiting.values())
        assert not any(self._within(upstream) for upstream in self._waiting), "it waits for nothing"

    def _within(self, upstream: str) -> bool:
        held = self._held[upstream]
        return held < self._free and held < self._limits.get(upstream, self._free)

    def _give(self, upstream: str) -> None:
        self._held[upstream] += 1
        self._free -= 1
