"""Asks registries whether a caller may read a repository, and what they want to see of it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Final

from p2pdist.errors import CallerRefused, ErrorReason, RegistryError, UpstreamError
from p2pdist.model.seldom import Seldom
from p2pdist.oci import refusals
from p2pdist.oci.auth import Challenge
from p2pdist.oci.callers import Caller, challenges_for
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.process.metrics import Sample
from p2pdist.process.single_flight import SingleFlight
from p2pdist.registry.ports import speaking_for
from p2pdist.registry.reading.client import UpstreamClient
from p2pdist.registry_proxy.asking import Asking, MissesSpent
from p2pdist.registry_proxy.budgets import BudgetSpent
from p2pdist.registry_proxy.core.callers import CallerBook, CallerKey, Standing
from p2pdist.registry_proxy.core.verdicts import manifest_refusal

log = logging.getLogger(__name__)

CHALLENGES_S: Final = 60.0
CHALLENGES_RETRY_S: Final = 5.0
_NO: Final = frozenset({ErrorReason.CREDENTIALS, ErrorReason.DENIED})
ANSWERS: Final = ("yes", "no", "unknown", "none")

Question = tuple[str, str]
"""`manifests` or `blobs`, and what of them."""


class CallerGate:
    """One question per caller and repository, however many requests wait for it."""

    def __init__(self, upstream: UpstreamClient, asking: Asking, book: CallerBook) -> None:
        self._upstream = upstream
        self._asking = asking
        self._book = book
        # Only this process can tell which caller a key is.
        self._key = secrets.token_bytes(32)
        self._flights: SingleFlight[CallerKey, bool] = SingleFlight("callers")
        self._challenges: dict[str, tuple[float, list[Challenge]]] = {}
        """What each upstream wants to see, and until when that counts."""
        self._seldom: Seldom[str] = Seldom()
        self.answers: Counter[str] = Counter(dict.fromkeys(ANSWERS, 0))
        self.graced_total = 0

    async def close(self) -> None:
        await self._flights.close()

    async def admit(self, name: ImageName, caller: Caller, question: Question) -> str | None:
        """Return when the registry lets `caller` read `name`; the text of a warning where it did
        so before, and says nothing now. Raises RegistryError."""
        key = self._key_of(name, caller)
        standing = self._book.standing(key, _now_s())
        if standing is Standing.UNKNOWN:
            allowed = await self._flights.run(key, lambda: self._ask(key, caller, question))
            standing = Standing.ALLOWED if allowed else Standing.DENIED
        if standing is Standing.DENIED:
            raise await self._refusal(key, caller)
        if not self._book.in_grace(key, _now_s()):
            return None
        self.graced_total += 1
        return f"{name.upstream} does not answer; it let this caller read {name.repository} before"

    async def refused(
        self, name: ImageName, caller: Caller, error: RegistryError, *, ends: bool
    ) -> RegistryError:
        """The registry said no to a caller; return what the client is told. Any other error stays
        as it is. `ends`: the caller may read nothing of the repository any more."""
        if error.reason not in _NO:
            return error
        key = self._key_of(name, caller)
        if ends:
            self._book.refused(key, _now_s(), final=error.reason is ErrorReason.DENIED)
            self._upstream.forget(name.upstream, caller)
        return await self._refusal(key, caller)

    async def _ask(self, key: CallerKey, caller: Caller, question: Question) -> bool:
        """Raises RegistryError where the registry decided nothing, and the caller was never let."""
        asked_s = _now_s()
        # The right may have been taken back where tokens are sold.
        self._upstream.forget(key.name.upstream, caller)
        try:
            probe = await self._put(key, caller, question)
        except UpstreamError as error:
            return self._without_yes(key, error)
        self.answers["yes"] += 1
        self._book.allowed(key, asked_s=asked_s, probe=probe)
        return True

    async def _put(self, key: CallerKey, caller: Caller, question: Question) -> str:
        """Return the manifest that the registry let the caller read, if it was one."""
        probe = self._book.probe(key)
        questions = [("manifests", probe)] if probe else []
        for kind, reference in dict.fromkeys([*questions, question]):
            try:
                check = partial(self._upstream.check_read, key.name, kind, reference)
                with speaking_for(key.name.upstream, caller):
                    await self._asking.outside(check)
            except UpstreamError as error:
                # A tag that was removed says nothing of who may read the others.
                if error.reason is not ErrorReason.UNKNOWN or (kind, reference) == question:
                    raise
            else:
                return reference if kind == "manifests" else ""
        raise AssertionError("the last question returns or raises")

    def _without_yes(self, key: CallerKey, error: UpstreamError) -> bool:
        name = key.name
        if isinstance(error, BudgetSpent | MissesSpent):  # the registry was not asked: no grace
            raise manifest_refusal(error, name.upstream, "") from error
        if error.reason in _NO:
            self.answers["no"] += 1
            self._book.refused(key, _now_s(), final=error.reason is ErrorReason.DENIED)
            return False
        if error.reason is ErrorReason.UNKNOWN:
            self.answers["unknown"] += 1
            raise manifest_refusal(error, name.upstream, "") from error
        self.answers["none"] += 1
        if not self._book.unanswered(key, _now_s()):
            raise manifest_refusal(error, name.upstream, "") from error
        if requests := self._seldom.happened(name.upstream, _now_s()):
            logs.event(
                log, logging.WARNING, "caller.grace",
                upstream=name.upstream, error=str(error), requests=requests,
            )  # fmt: skip
        return True

    async def _refusal(self, key: CallerKey, caller: Caller) -> CallerRefused:
        name = key.name
        told = "these credentials" if caller.authorization else "a caller without credentials"
        text = refusals.sentence(
            ErrorReason.CALLER, name.upstream, f"{name.upstream} does not let {told} read {name}"
        )
        if self._book.is_final(key):
            return CallerRefused(403, "DENIED", text)
        wanted = challenges_for(name.repository, await self._wanted(name))
        return CallerRefused(401, "UNAUTHORIZED", text, challenges=wanted)

    async def _wanted(self, name: ImageName) -> list[Challenge]:
        """Challenges, as the registry said them within the last minute, or last."""
        until_s, told = self._challenges.get(name.upstream, (-CHALLENGES_S, []))
        if _now_s() < until_s:
            return told
        good_s = CHALLENGES_S
        try:
            told = await self._upstream.challenges(name)
        except UpstreamError as error:
            good_s = CHALLENGES_RETRY_S
            logs.event(
                log, logging.WARNING, "caller.no_challenge",
                upstream=name.upstream, error=str(error),
            )  # fmt: skip
        self._challenges[name.upstream] = _now_s() + good_s, told
        return told

    def _key_of(self, name: ImageName, caller: Caller) -> CallerKey:
        said = caller.authorization.encode()
        return CallerKey(name, hashlib.blake2b(said, key=self._key, digest_size=16).digest())

    def samples(self) -> Iterator[Sample]:
        for answer in ANSWERS:
            yield Sample(
                "p2pdist_caller_questions_total", "counter",
                "Questions to registries whether a caller may read a repository, by answer.",
                {"answer": answer}, self.answers[answer],
            )  # fmt: skip
        yield Sample(
            "p2pdist_caller_grace_total", "counter",
            "Requests of callers that were let before by a registry that says nothing now.",
            {}, self.graced_total,
        )  # fmt: skip


def _now_s() -> float:
    return asyncio.get_running_loop().time()
