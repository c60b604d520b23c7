"""When something is to be done: once a turn of the loop, and when a time has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Turn:
    """Calls `act` once for all that happens in a turn, and `due` at the set time; until `end`."""

    def __init__(self, act: Callable[[], None], due: Callable[[], None]) -> None:
        self._act = act
        self._due = due
        self._loop = asyncio.get_running_loop()
        self._woken = False
        self._ended = False
        self._timer: asyncio.Handle | None = None
        self._timer_s = 0.0

    def wake(self) -> None:
        if not self._woken and not self._ended:
            self._woken = True
            self._loop.call_soon(self._run)

    def at_latest(self, due_s: float) -> None:
        """Call `due` at this time, or at an earlier one that was set before."""
        if self._ended:
            return
        if self._timer is None or self._timer.cancelled() or self._timer_s > due_s:
            if self._timer is not None:
                self._timer.cancel()
            # uvloop gives a plain handle, without a time, for a moment that has passed.
            self._timer_s = due_s
            self._timer = self._loop.call_at(due_s, self._on_timer)

    def end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        self._woken = False
        if not self._ended:
            self._act()

    def _on_timer(self) -> None:
        self._timer = None
        self._due()
