"""What each caller has left of the questions and bytes of registries: refuses who has none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.seldom import Seldom
from p2pdist.oci.refusals import fix_of
from p2pdist.process import audit, logs
from p2pdist.process.metrics import Sample
from p2pdist.registry.ports import client_account, is_of_proxy
from p2pdist.registry_proxy.core.spending import KINDS, Spending

# What a blob is said to have is somebody's word: more than this is paid for when it has come. So
# 200 large blobs can be under way for one caller at most.
AHEAD_BYTES_MAX: Final = 256 << 20
_TOLD: Final = "this host has had as much of registries by this proxy as one may"


class BudgetSpent(UpstreamError):
    """Nobody was asked, so nothing is decided: peers go on to the swarm, to other proxies, and to
    the registry itself."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(_TOLD, status=429, reason=ErrorReason.CALLER_BUDGET)
        self.retry_after_s = wait_s


class CallerBudgets:
    """For whoever asks now (`client_account`). Our own work, such as jobs, has no limit, nor has a
    certified proxy, which asks for a whole datacenter."""

    def __init__(self, spending: Spending) -> None:
        self._spending = spending
        self._seldom: Seldom[str] = Seldom()

    def ask(self) -> None:
        """Take a question; raise BudgetSpent where there is none."""
        if caller := _bounded():
            self._check(caller, self._spending.ask(caller, _now_s()))

    def begin(self, nbytes: float = 0) -> float:
        """Something of `nbytes`, as is said, is to be read of a registry: return how many of them
        were taken. Raises BudgetSpent where nothing is left."""
        ahead = min(nbytes, AHEAD_BYTES_MAX)
        if caller := _bounded():
            self._check(caller, self._spending.begin(caller, ahead, _now_s()))
        return ahead

    def came(self, nbytes: float) -> None:
        """So much was read that was not taken before; below 0: so much less."""
        if caller := _bounded():
            self._spending.came(caller, nbytes, _now_s())

    def _check(self, caller: str, wait_s: float) -> None:
        if not wait_s:
            return
        reason = ErrorReason.CALLER_BUDGET
        if requests := self._seldom.happened(caller, _now_s()):
            logs.event(
                audit.log, logging.WARNING, "client.refused", audit="refused", who=caller,
                reason=reason, fix=fix_of(reason, ""), requests=requests,
            )  # fmt: skip
        raise BudgetSpent(wait_s)

    def samples(self) -> Iterator[Sample]:
        for what in KINDS:
            yield Sample(
                "p2pdist_proxy_budget_refused_total", "counter",
                "Questions, and beginnings of blobs, for callers that had spent their budget.",
                {"what": what}, self._spending.refused[what],
            )  # fmt: skip


def _bounded() -> str:
    account = client_account.get()
    return "" if is_of_proxy(account) else account


def unlimited() -> CallerBudgets:
    return CallerBudgets(Spending(questions_per_min=0, bytes_per_s=0))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
