"""Background tasks with an owner: named, logged when they crash, ended with their owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from p2pdist.process import logs

log = logging.getLogger(__name__)

T = TypeVar("T")


class TaskOwner:
    """Starts tasks and keeps them until they end; `close` cancels and awaits the rest."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self.crashes_total = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run `coro` in a task; a crash is logged with its traceback and counted."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(coro, name=f"{self._name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self.crashes_total += 1
        logs.event(
            log,
            logging.ERROR,
            "task.crashed",
            task=task.get_name(),
            error=repr(error),
            exc_info=error,
        )

    async def close(self) -> None:
        """Cancel what still runs and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
