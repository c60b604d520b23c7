"""The CPU that a core's calls take, and events in the order of their time."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from cProfile import Profile


class Meter:
    """CPU of this thread within `counted`, what is read of the clock included."""

    def __init__(self, profile: Profile | None = None) -> None:
        self.counted_ns = 0
        self._profile = profile

    def counts(self, call: Callable[[], None]) -> None:
        """Carry out a call at the core's expense."""
        if self._profile is not None:
            with self._profiled(self._profile):
                call()
            return
        began_ns = time.thread_time_ns()
        call()
        self.counted_ns += time.thread_time_ns() - began_ns

    @contextmanager
    def _profiled(self, profile: Profile) -> Iterator[None]:
        profile.enable()
        try:
            yield
        finally:
            profile.disable()


class Agenda:
    """What happens when; equal times in the order in which they were noted."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, due_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (due_s, next(self._numbers), call))

    def step(self) -> None:
        """Let the next thing happen."""
        self.now_s, _, call = heapq.heappop(self._heap)
        call()
