"""Slots for fetches from outside: `FairSlots` for tasks that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from p2pdist.registry_proxy.core.slots import FairSlots


class FetchSlots:
    """One of a proxy."""

    def __init__(self, total: int, limits: Mapping[str, int]) -> None:
        """`limits`: how many of them an upstream may have at most, where one has a limit."""
        self._slots: FairSlots[asyncio.Future[None]] = FairSlots(total, limits)

    @asynccontextmanager
    async def held(self, upstream: str) -> AsyncIterator[None]:
        """Hold a slot of `upstream` for as long as the block lasts."""
        if not self._slots.take(upstream):
            await self._turn(upstream)
        try:
            yield
        finally:
            self._release(upstream)

    async def _turn(self, upstream: str) -> None:
        granted = asyncio.get_running_loop().create_future()
        self._slots.wait(upstream, granted)
        try:
            await granted
        except asyncio.CancelledError:
            if not self._slots.withdraw(upstream, granted):
                self._release(upstream)
            raise

    def _release(self, upstream: str) -> None:
        for granted in self._slots.release(upstream):
            if not granted.done():  # else its task is being cancelled, and gives the slot back
                granted.set_result(None)
