"""What is fetched as bulk, ahead of need: who waits at this node, which jobs have which budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakKeyDictionary

from p2pdist.model.bucket import TokenBucket
from p2pdist.swarm.core.bulk import BulkGate, BulkPace

# How soon a body from outside that was held back notices that somebody waits for it.
TURN_S: Final = 0.05


class BulkTraffic:
    """One per node; `gate_shut` is called whenever bulk has to make room."""

    def __init__(self, gate_shut: Callable[[], None]) -> None:
        self.gate = BulkGate()
        self.received_bytes = 0
        """Verified payload that came as bulk."""
        self._gate_shut = gate_shut
        self._unlimited = BulkPace(self.gate, None)
        self._paces: WeakKeyDictionary[TokenBucket, BulkPace] = WeakKeyDictionary()

    def pace(self, budget: TokenBucket | None) -> BulkPace:
        """The one pace of all that is fetched on `budget`."""
        if budget is None:
            return self._unlimited
        return self._paces.setdefault(budget, BulkPace(self.gate, budget))

    @contextmanager
    def reader_waits(self) -> Iterator[None]:
        """Bulk of this node is held back as long as the block lasts, and a moment longer."""
        loop = asyncio.get_running_loop()
        if self.gate.wait_began(loop.time()):
            self._gate_shut()
        try:
            yield
        finally:
            self.gate.wait_ended(loop.time())

    def urgent_bytes(self) -> None:
        """Bytes came in from outside that somebody in this datacenter waits for."""
        if self.gate.urgent_bytes(asyncio.get_running_loop().time()):
            self._gate_shut()


class BlobBulk:
    """Whether one blob is bulk, and at which pace it comes while it is."""

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
        """Verified payload came from a neighbour."""
        if self.pace is not None:
            self._traffic.received_bytes += nbytes

    async def take(self, nbytes: int, held_back: Callable[[], None]) -> None:
        """Return when `nbytes` more may be taken from outside: at once unless it is bulk.

        `held_back` is called as long as they may not.
        """
        loop = asyncio.get_running_loop()
        while (pace := self.pace) is not None:
            wait_s = pace.take(nbytes, loop.time())
            if not wait_s:
                pace.settled(nbytes, loop.time())
                self._traffic.received_bytes += nbytes
                return
            held_back()
            await asyncio.sleep(min(wait_s, TURN_S))
        self._traffic.urgent_bytes()
