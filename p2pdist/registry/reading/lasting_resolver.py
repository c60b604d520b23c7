"""Names of registries while DNS is away, and names that moved."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from cachetools import LRUCache

from p2pdist.model.last_good import LastGood
from p2pdist.process import logs
from p2pdist.process.single_flight import SingleFlight

log = logging.getLogger(__name__)

# Fault matrix, row 34: while a name does not resolve, its last good address is asked.
DNS_LAST_GOOD_S: Final = 600.0
DNS_PATIENCE_S: Final = 2.0
"""What a resolver gets that is silent, where there is such an address."""
DNS_FAILING_MAX: Final = 1024

_Question = tuple[str, int, socket.AddressFamily]


class LastingResolver(AbstractResolver):
    """Resolves names; while that fails, by the last good answer.

    Registries move seldom and resolvers fail often. The answer is all that is kept: who has the
    address still has to show a certificate for the name.
    """

    def __init__(self, inner: AbstractResolver) -> None:
        self.kept_answers_total = 0
        self._inner = inner
        self._good: LastGood[_Question, list[ResolveResult]] = LastGood(DNS_LAST_GOOD_S)
        self._flights: SingleFlight[_Question, list[ResolveResult]] = SingleFlight()
        self._failing: LRUCache[str, bool] = LRUCache(DNS_FAILING_MAX)
        """Names of which it was said."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        asked, loop = (host, port, family), asyncio.get_running_loop()
        kept = self._good.recall(asked, loop.time())
        try:
            # One at a time for each name: a resolver that is silent holds a thread for each.
            async with asyncio.timeout(DNS_PATIENCE_S if kept is not None else None):
                found = await self._flights.run(
                    asked, lambda: self._inner.resolve(host, port, family)
                )
        except OSError as error:  # TimeoutError is one
            if kept is None:
                raise
            self._note_failure(host, kept[1], error)
            return kept[0]
        self._failing.pop(host, None)
        self._good.answered(asked, found, loop.time())
        return found

    def _note_failure(self, host: str, age_s: float, error: OSError) -> None:
        self.kept_answers_total += 1
        if host not in self._failing:
            self._failing[host] = True
            logs.event(
                log, logging.WARNING, "upstream.name_unresolved",
                host=host, last_good_age_s=round(age_s, 1), error=error.strerror or str(error),
            )  # fmt: skip

    async def moved(self, host: str, port: int) -> bool:
        """Ask anew: whether `host` has other addresses than it was last known to have."""
        asked = (host, port, socket.AF_UNSPEC)
        before = self._good.recall(asked, asyncio.get_running_loop().time())
        try:
            found = await self.resolve(*asked)
        except OSError:
            return False
        return before is not None and _addresses(before[0]) != _addresses(found)

    async def close(self) -> None:
        await self._flights.close()
        await self._inner.close()


def _addresses(found: Iterable[ResolveResult]) -> set[str]:
    return {result["host"] for result in found}
