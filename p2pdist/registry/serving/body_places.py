"""Who may be sent a blob's body now: a bounded number at once, shared among the hosts that ask.

1,100 clients of one address that read nothing used to keep a whole datacenter from a proxy's bodies
for ten minutes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from p2pdist.model.places import Places

# A client that takes nothing for so long makes room for one that would; while there is room it has
# ten minutes (`CLIENT_STALL_S`). Stalled, it goes on with a Range.
STALLED_S: Final = 10.0
LOOK_AGAIN_S: Final = 0.5


@dataclass(eq=False, slots=True)
class BodyPlace:
    """One body that is sent, or waits for it."""

    give_up: Callable[[], None]
    """End it: another one has its place."""
    stalled_s: Callable[[], float] = lambda: 0.0
    """For how long its client has taken nothing of what we try to send."""


class BodyPlaces:
    def __init__(self, most: int) -> None:
        self._places: Places[str, BodyPlace] = Places(most)
        self._held: dict[BodyPlace, None] = {}
        self._look_again_s = 0.0
        self._waiting: deque[tuple[str, BodyPlace, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def held(
        self, who: str, give_up: Callable[[], None], *, within_s: float
    ) -> AsyncIterator[BodyPlace]:
        """A place for a client of the network `who`. Raises TimeoutError where there is none."""
        place = BodyPlace(give_up)
        async with asyncio.timeout(within_s):
            await self._wait_for(who, place)
        try:
            yield place
        finally:
            self._leave(place)

    async def _wait_for(self, who: str, place: BodyPlace) -> None:
        if self._take(who, place):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = who, place, turn
        self._waiting.append(entry)
        try:
            while not turn.done():
                await asyncio.wait([turn], timeout=LOOK_AGAIN_S)
                if not turn.done() and self._take(who, place):
                    return
        except asyncio.CancelledError:
            if turn.done():
                self._leave(place)
            raise
        finally:
            if not turn.done():
                self._waiting.remove(entry)

    def _take(self, who: str, place: BodyPlace) -> bool:
        loser = self._places.take(who, place)
        if loser is place:
            loser = self._stalled()
            if loser is None:
                return False
            self._places.leave(loser)
            self._places.take(who, place)
        self._held[place] = None
        if loser is not None:
            del self._held[loser]
            loser.give_up()
        return True

    def _stalled(self) -> BodyPlace | None:
        """The body that stands still for longest, if any does; looked for twice a second at most,
        however many wait."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._look_again_s or not self._held:
            return None
        slowest = max(self._held, key=lambda one: one.stalled_s())
        if slowest.stalled_s() >= STALLED_S:
            return slowest
        self._look_again_s = now_s + LOOK_AGAIN_S
        return None

    def _leave(self, place: BodyPlace) -> None:
        """Pass the place on to who waits longest; nothing where it was lost before."""
        if place not in self._held:
            return
        del self._held[place]
        self._places.leave(place)
        if self._waiting:
            who, next_one, turn = self._waiting.popleft()
            self._take(who, next_one)
            turn.set_result(None)
