"""One run of the same work for all who ask for it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

from p2pdist.process.tasks import TaskOwner

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Whoever asks for a key while its work runs waits for that work.

    The work runs in a task of its own: it outlives a caller that is cancelled or loses patience,
    ends with `close`, and must have deadlines of its own. A result is given to those who wait and
    then forgotten.
    """

    def __init__(self, name: str = "single flight") -> None:
        self._tasks = TaskOwner(name)
        self._flights: dict[K, asyncio.Future[V]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return what `work` returns or raise what it raises; cancelling hurts nobody else."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_future()
            self._flights[key] = flight
            task = self._tasks.start(self._fly(work, flight), name=str(key)[:80])
            task.add_done_callback(partial(self._landed, key, flight))
        return await asyncio.shield(flight)

    @staticmethod
    async def _fly(work: Callable[[], Coroutine[Any, Any, V]], flight: asyncio.Future[V]) -> None:
        try:
            flight.set_result(await work())
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the callers'
            flight.set_exception(error)
            flight.exception()  # all callers may have gone: that is no unheard error

    def _landed(self, key: K, flight: asyncio.Future[V], _: asyncio.Task[None]) -> None:
        del self._flights[key]
        flight.cancel()  # does nothing to one that is done

    async def close(self) -> None:
        """Cancel what runs; who waits for it is cancelled as well."""
        await self._tasks.close()
