"""Answers that take time to make, each link's in a line of its own.

A neighbour that asks and does not read costs what its line may hold, and not what it asked for:
554 kB of requests for small blobs used to put 1.1 GB of bodies into a proxy's memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from p2pdist.exchange.link import Link
from p2pdist.process.tasks import TaskOwner

# Small blobs of one link in the making: some wait for a registry, the others go on beside them.
SMALLS_AT_ONCE: Final = 32
# Bodies that the other end has not taken yet: no more are made before it reads.
UNSENT_BYTES_MAX: Final = 4 << 20
# Runs of one link, of each kind, that are read before they go out: to be hashed, or out of no file.
READS_AT_ONCE: Final = 2
# A request that waits is some hundred bytes.
WAITING_MAX: Final = 1024

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Line:
    at_work: int = 0
    waiting: deque[Work] = field(default_factory=deque)


class AnswerLines:
    """Begins works in the order of each link, `at_once` at a time; a work lasts until its answer
    has gone out."""

    def __init__(self, tasks: TaskOwner, name: str, *, at_once: int) -> None:
        self._tasks = tasks
        self._name = name
        self._at_once = at_once
        self._lines: dict[Link, _Line] = {}

    def ask(self, link: Link, work: Work) -> bool:
        """Have `work` done, now or in its turn; False: `link` has too many waiting already."""
        if link.closed:
            return True
        line = self._lines.setdefault(link, _Line())
        if len(line.waiting) >= WAITING_MAX:
            return False
        line.waiting.append(work)
        self._go_on(link, line)
        return True

    def link_down(self, link: Link) -> None:
        """Forget what waits; what is at work ends by itself."""
        if (line := self._lines.get(link)) is not None:
            line.waiting.clear()

    def _go_on(self, link: Link, line: _Line) -> None:
        while (
            line.waiting
            and line.at_work < self._at_once
            and link.unsent_small_bytes < UNSENT_BYTES_MAX
        ):
            line.at_work += 1
            task = self._tasks.start(line.waiting.popleft()(), name=self._name)
            task.add_done_callback(partial(self._ended, link, line))
        if not line.waiting and not line.at_work:
            self._lines.pop(link, None)

    def _ended(self, link: Link, line: _Line, task: asyncio.Task[None]) -> None:
        line.at_work -= 1
        if task.cancelled():  # this node ends
            line.waiting.clear()
        self._go_on(link, line)
