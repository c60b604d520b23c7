"""Asks parents and upstream on behalf of clients, as long as what they ask for is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.process import logs
from p2pdist.registry.ports import client_account
from p2pdist.registry_proxy.budgets import CallerBudgets, unlimited
from p2pdist.registry_proxy.core.misses import MissBudget
from p2pdist.registry_proxy.core.verdicts import is_answer

log = logging.getLogger(__name__)

T = TypeVar("T")


class MissesSpent(UpstreamError):
    """Nobody was asked, so nothing is decided: peers go on to the swarm and to other proxies."""


class Asking:
    """Bounds the questions of each client, and those that are answered with no still more.

    Our own work, such as jobs and replication, is on nobody's account and is not bounded.
    """

    def __init__(
        self, misses: MissBudget | None = None, budgets: CallerBudgets | None = None
    ) -> None:
        self.misses = misses or MissBudget()
        self.budgets = budgets or unlimited()

    async def outside(self, question: Callable[[], Awaitable[T]], *, answer_kept: bool = True) -> T:
        """Return the answer to what nobody knows here; raise BudgetSpent or MissesSpent for a
        client that has no more questions. An answer that is not kept costs as much as a no."""
        client = client_account.get()
        if not client:
            return await question()
        self.budgets.ask()
        if not self.misses.ask(client, _now_s()):
            if self.misses.to_be_said(client, _now_s()):
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
                self.misses.give_back(client, _now_s())


def _now_s() -> float:
    return asyncio.get_running_loop().time()
