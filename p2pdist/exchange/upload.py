"""What a node may send to other hosts, over the exchange and over `/v2/`: one budget for all.

Whoever sends takes its turn, a slice at a time: nobody waits for longer than one slice of each of
the others takes, and only the first in line has a timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2pdist.exchange.frames import SLICE_BYTES_MAX
from p2pdist.model.bucket import TokenBucket

BURST_S: Final = 0.02


@dataclass(eq=False, slots=True)
class Turn:
    """A place in the line."""

    nbytes: int
    ready: Callable[[], None]
    granted: bool = False
    """The bytes were taken, and may go."""
    left: bool = False


class Upload:
    """Made on the event loop that it is used on."""

    def __init__(self, bytes_per_s: int) -> None:
        self._loop = asyncio.get_running_loop()
        burst = max(SLICE_BYTES_MAX, bytes_per_s * BURST_S)
        self._bucket = TokenBucket(bytes_per_s, burst, self._loop.time())
        self._line: deque[Turn] = deque()
        """While somebody is here, `_serve` is due."""

    def ask(self, nbytes: int, ready: Callable[[], None]) -> Turn | None:
        """None: `nbytes` were taken and may go now. Else a turn: `ready`, which must not ask, is
        called later, when it is granted. Who does not wait for it any more, or does not use it, has
        to `leave` it."""
        if not self._line:
            wait_s = self._bucket.take(nbytes, self._loop.time())
            if not wait_s:
                return None
            self._loop.call_later(wait_s, self._serve)
        turn = Turn(nbytes, ready)
        self._line.append(turn)
        return turn

    def take(self, nbytes: int) -> bool:
        """Take `nbytes` if they may go now, and nobody waits."""
        return not self._line and not self._bucket.take(nbytes, self._loop.time())

    def leave(self, turn: Turn) -> None:
        """Give up a place, and what was taken for it."""
        if turn.granted:
            self.give_back(turn.nbytes)
        turn.left = True

    def give_back(self, nbytes: int) -> None:
        """So much of what was taken did not go."""
        self._bucket.give_back(nbytes, self._loop.time())

    def owe(self, nbytes: int) -> None:
        """So much goes at once, as it is small; everything else waits for as long as it takes."""
        self._bucket.owe(nbytes, self._loop.time())

    async def some_of(self, nbytes: int) -> int:
        """Wait for a turn; return how many of `nbytes` may go now, which were taken: a slice, or
        more where nobody else waits."""
        allowed = min(nbytes, SLICE_BYTES_MAX)
        await self._turn_of(allowed)
        while allowed < nbytes and self.take(more := min(nbytes - allowed, SLICE_BYTES_MAX)):
            allowed += more
        return allowed

    async def _turn_of(self, nbytes: int) -> None:
        granted = asyncio.Event()
        turn = self.ask(nbytes, granted.set)
        if turn is None:
            return
        try:
            await granted.wait()
        except asyncio.CancelledError:
            self.leave(turn)
            raise

    def _serve(self) -> None:
        while self._line:
            turn = self._line[0]
            if not turn.left:
                if wait_s := self._bucket.take(turn.nbytes, self._loop.time()):
                    self._loop.call_later(wait_s, self._serve)
                    return
                turn.granted = True
            self._line.popleft()
            if turn.granted:
                turn.ready()
