"""Things to do later, and long lists to go through a slice at a time."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from p2pdist.tracker.core.jobs.target import Target

# 3 to 5 µs each here; but an order that goes out costs 100 µs more, and its answers as much.
SLICE: Final = 100
# So many hosts that answer in the same moment held up the event loop for 0.7 s.
SLICE_PAUSE_S: Final = 0.01


@dataclass(slots=True)
class _Task:
    waiting: deque[Target]
    work: Callable[[Target, float], None]
    then: Callable[[float], None]


class Alarms:
    """Calls `work(now_s)` at its time; what became pointless is for `work` to see."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = itertools.count()
        self._backlog: deque[_Task] = deque()
        self._slice_s = 0.0
        """When the next slice may be done."""

    def at(self, due_s: float, work: Callable[[float], None]) -> None:
        heapq.heappush(self._heap, (due_s, next(self._serial), work))

    def each(
        self,
        targets: Iterable[Target],
        work: Callable[[Target, float], None],
        then: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Have `work` done for all of them, slice by slice, and `then` when that is done."""
        self._backlog.append(_Task(deque(targets), work, then))

    def next_s(self) -> float | None:
        moments = [self._slice_s] if self._backlog else []
        moments += [self._heap[0][0]] if self._heap else []
        return min(moments, default=None)

    def run_due(self, now_s: float) -> None:
        """Do what is due: at most one slice of the backlog, and as many alarms."""
        if self._backlog and self._slice_s <= now_s:
            self._run_slice(now_s)
            self._slice_s = now_s + SLICE_PAUSE_S
        for _ in range(SLICE):
            if not self._heap or self._heap[0][0] > now_s:
                return
            heapq.heappop(self._heap)[2](now_s)

    def _run_slice(self, now_s: float) -> None:
        for _ in range(SLICE):
            if not self._backlog:
                return
            task = self._backlog[0]
            if task.waiting:
                task.work(task.waiting.popleft(), now_s)
            if not task.waiting:
                self._backlog.popleft()
                task.then(now_s)
