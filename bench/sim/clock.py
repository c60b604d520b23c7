"""Simulated time: what happens next, and in which order what happens at once."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Timer:
    """One thing to come; `cancel` takes it back."""

    __slots__ = ("call", "due_s")

    def __init__(self, due_s: float, call: Callable[[], None]) -> None:
        self.due_s = due_s
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Clock:
    """An event heap. What is due at the same time happens in the order in which it was set."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events = 0
        """How many have happened."""
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def at(self, due_s: float, call: Callable[[], None]) -> Timer:
        """Have `call` called at `due_s`, or now if that has passed."""
        timer = Timer(max(due_s, self.now_s), call)
        heapq.heappush(self._heap, (timer.due_s, next(self._numbers), timer))
        return timer

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return self.at(self.now_s + delay_s, call)

    def run(self, until: Callable[[], bool], *, end_s: float) -> bool:
        """Let things happen until `until` says so; False: it did not before `end_s`."""
        while not until():
            if not self._heap or self._heap[0][0] > end_s:
                return False
            due_s, _, timer = heapq.heappop(self._heap)
            call, timer.call = timer.call, None
            if call is not None:
                self.now_s = due_s
                self.events += 1
                call()
        return True
