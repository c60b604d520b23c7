"""What is fetched as bulk at this node: who waits, and which jobs have which budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakKeyDictionary

from p2pdist.model.bucket import TokenBucket
from p2pdist.peer.core.bulk import BulkGate, BulkPace

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
