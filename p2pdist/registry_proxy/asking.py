"""Asks parents and upstream on behalf of clients, as long as what they ask for is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.process import logs
from p2pdist.registry.ports import client_network
from p2pdist.registry_proxy.core.misses import MissBudget
from p2pdist.registry_proxy.core.verdicts import is_answer

log = logging.getLogger(__name__)

T = TypeVar("T")


class MissesSpent(UpstreamError):
    """Nobody was asked, so nothing is decided: peers go on to the swarm and to other proxies."""


class Asking:
    """Bounds the questions that are answered with no, by the network that they come from.

    Our own work, such as jobs and replication, comes from no network and is not bounded.
    """

    def __init__(self, budget: MissBudget) -> None:
        self._budget = budget

    async def outside(self, question: Callable[[], Awaitable[T]], *, answer_kept: bool = True) -> T:
        """Return the answer to what nobody knows here; raise MissesSpent for a client that has no
        more questions. An answer that is not kept costs as much as one that is no."""
        client = client_network.get()
        if not client:
            return await question()
        if not self._budget.ask(client, _now_s()):
            if self._budget.to_be_said(client, _now_s()):
                logs.event(log, logging.WARNING, "proxy.misses_spent", client=client)
            raise MissesSpent(
                "too many questions for what is not there",
                status=429,
                reason=ErrorReason.NO_SOURCE,
            )
        in_vain = not answer_kept
        try:
            return await question()
        except UpstreamError as error:
            in_vain = is_answer(error)
            raise
        finally:
            if not in_vain:
                self._budget.give_back(client, _now_s())


def _now_s() -> float:
    return asyncio.get_running_loop().time()
