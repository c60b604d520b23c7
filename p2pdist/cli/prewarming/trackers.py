"""The trackers of all datacenters as one: jobs are filed at each and shown together.

A *run* is what one command started: one job at each tracker that has hosts for it. Its name is the
last word of the jobs' note, which trackers keep and show.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.control.jobs_client import NOT_BELIEVED, JobsClient, JobsError
from p2pdist.model.jobs import JobPlan, JobSpec, JobStatus

# A tracker that is restarted between plan and submission is back by then.
SUBMIT_TRIES_MAX: Final = 4
SUBMIT_PAUSE_S: Final = 1.0
_RUN: Final = re.compile(r"run-[0-9a-f]{8}")
_CODES: Final = {
    "unauthorized": Exit.DENIED,
    "not_found": Exit.NOT_FOUND,
    "no_hosts": Exit.NOT_FOUND,
    "bad_request": Exit.USAGE,
    "conflict": Exit.USAGE,
    "deadline": Exit.TIMEOUT,
    "too_many": Exit.TEMPORARY,
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Filed:
    """A job at its tracker."""

    tracker: JobsClient
    job: str


@dataclass(frozen=True, slots=True)
class Planned:
    tracker: JobsClient
    plan: JobPlan


@dataclass(frozen=True, slots=True)
class Listed:
    """The jobs of the trackers that answer, each one's newest first."""

    jobs: Sequence[tuple[JobsClient, JobStatus]]
    away: Mapping[str, str]
    """The trackers that do not, by address, and why: what they know is missing here."""


@dataclass(frozen=True, slots=True)
class Found:
    """Jobs that a name stands for."""

    name: str
    filed: Sequence[Filed]
    states: Sequence[JobStatus]
    away: Mapping[str, str]
    """As of `Listed`: these trackers may have jobs of that name as well."""


def new_run() -> str:
    return f"run-{secrets.token_hex(4)}"


def run_of(status: JobStatus) -> str:
    """Return the name of the run that a job is part of; its own id where it is part of none."""
    last = status.note.rpartition(" ")[2]
    return last if _RUN.fullmatch(last) else status.id


def failure(error: JobsError) -> CommandError:
    """Return what to say and the code to end with."""
    if error.status in (401, 403):
        hint = "--secret-file or --config names the cluster's secret"
        # The tracker's own words say what to do about certificates.
        return CommandError(str(error), Exit.DENIED, hint if error.code == "unauthorized" else "")
    if error.code == NOT_BELIEVED:
        hint = (
            "`p2pdist ca show` says who issued a certificate; a tracker has one by "
            "tracker.identity_dir, and takes --secret-file without"
        )
        return CommandError(str(error), Exit.DENIED, hint)
    code = _CODES.get(error.code, Exit.UPSTREAM)
    hint = ""
    if error.status == 0:
        hint = "--tracker names the admin address of a tracker, such as http://10.1.0.2:5209"
    return CommandError(str(error), code, hint)


def is_away(error: JobsError) -> bool:
    """Whether it is no answer of the tracker, and asking again may help."""
    return error.code != NOT_BELIEVED and (error.status == 0 or error.status >= 500)


class Trackers:
    def __init__(self, clients: Sequence[JobsClient]) -> None:
        assert clients
        self.clients = list(clients)

    async def plan(self, spec: JobSpec) -> list[Planned]:
        """Ask all what the job would move; those without a host for it are left out.

        Raises CommandError: nobody has one (NOT_FOUND), a tracker is away or refuses.
        """

        async def ask(tracker: JobsClient) -> Planned | JobsError:
            try:
                return Planned(tracker, (await tracker.submit(spec, dry_run=True)).plan)
            except JobsError as error:
                if error.code != "no_hosts":
                    raise failure(error) from None
                return error

        answers = await all_of([ask(tracker) for tracker in self.clients])
        planned = [answer for answer in answers if isinstance(answer, Planned)]
        if not planned:
            raise _nobody(spec, [a for a in answers if isinstance(a, JobsError)])
        return planned

    async def submit(self, spec: JobSpec, planned: Sequence[Planned]) -> list[Filed]:
        """File the job at all or at none; `spec.key` makes that a repetition makes no second one.

        Raises CommandError.
        """
        assert spec.key

        async def file(tracker: JobsClient) -> Filed | JobsError:
            try:
                return Filed(tracker, (await _patiently(lambda: tracker.submit(spec))).id)
            except JobsError as error:
                return error

        answers = await all_of([file(one.tracker) for one in planned])
        filed = [answer for answer in answers if isinstance(answer, Filed)]
        refused = [answer for answer in answers if isinstance(answer, JobsError)]
        bad = [error for error in refused if error.code != "no_hosts"]
        if bad or not filed:
            left = await self._withdraw(filed)
            error = failure(bad[0]) if bad else _nobody(spec, refused)
            if left:
                error.hint = f"still filed: cancel {', '.join(left)} by hand"
            raise error
        return filed

    async def jobs(self) -> Listed:
        """Return what the trackers have. Raises CommandError: one refuses, or none answers."""

        async def ask(tracker: JobsClient) -> list[JobStatus] | JobsError:
            try:
                return await tracker.list()
            except JobsError as error:
                if not is_away(error):
                    raise failure(error) from None
                return error

        answers = await all_of([ask(tracker) for tracker in self.clients])
        jobs: list[tuple[JobsClient, JobStatus]] = []
        away: dict[str, JobsError] = {}
        for tracker, answer in zip(self.clients, answers, strict=True):
            if isinstance(answer, JobsError):
                away[tracker.base_url] = answer
            else:
                jobs += [(tracker, status) for status in answer]
        if len(away) == len(self.clients):
            raise failure(next(iter(away.values())))
        return Listed(jobs, {url: str(error) for url, error in away.items()})

    async def find(self, text: str) -> Found:
        """Return the jobs that a run's or a job's name, or the beginning of one, stands for.

        Raises CommandError: none (NOT_FOUND; UPSTREAM where a tracker is away), several (USAGE).
        """
        found: dict[str, list[tuple[Filed, JobStatus]]] = {}
        listed = await self.jobs()
        for tracker, status in listed.jobs:
            for name in {run_of(status), status.id}:
                if name.startswith(text) or name.removeprefix("run-").startswith(text):
                    found.setdefault(name, []).append((Filed(tracker, status.id), status))

        def named(name: str) -> Found:
            filed, states = zip(*found[name], strict=True)
            return Found(name, filed, states, listed.away)

        if text in found:
            return named(text)
        # The name of a run and the id of its only job may both begin so, and mean the same.
        meant = {tuple(one.job for one, _ in found[name]): name for name in sorted(found)}
        if not meant and listed.away:
            raise CommandError(
                f"no tracker that answers knows a job {text!r}; {'; '.join(listed.away.values())}",
                Exit.UPSTREAM,
            )
        if not meant:
            raise CommandError(
                f"no tracker knows a job {text!r}", Exit.NOT_FOUND, "`p2pdist prewarm ls` lists all"
            )
        if len(meant) > 1:
            names = ", ".join(sorted(found)[:6])
            raise CommandError(f"{text!r} may be any of {names}", Exit.USAGE, "type more of it")
        (name,) = meant.values()
        return named(name)

    async def act(self, filed: Sequence[Filed], verb: str) -> list[JobStatus]:
        """`verb` is `cancel`, `retry` or `resume`. Raises CommandError, once all were told."""

        async def ask(one: Filed) -> JobStatus | JobsError:
            try:
                return await one.tracker.act(one.job, verb)
            except JobsError as error:
                return error

        answers = await all_of([ask(one) for one in filed])
        for answer in answers:
            if isinstance(answer, JobsError):
                raise failure(answer)
        return [answer for answer in answers if isinstance(answer, JobStatus)]

    async def show(self, filed: Sequence[Filed], *, hosts: str) -> list[JobStatus]:
        """Return how the jobs stand. Raises CommandError."""

        async def ask(one: Filed) -> JobStatus:
            try:
                return await one.tracker.show(one.job, hosts=hosts)
            except JobsError as error:
                raise failure(error) from None

        return await all_of([ask(one) for one in filed])

    async def _withdraw(self, filed: Sequence[Filed]) -> list[str]:
        """Cancel what was filed; return the jobs that could not be."""

        async def cancel(one: Filed) -> str:
            try:
                await one.tracker.act(one.job, "cancel")
            except JobsError:
                return f"{one.job} at {one.tracker.base_url}"
            return ""

        return [name for name in await all_of([cancel(one) for one in filed]) if name]


async def all_of(asked: Sequence[Awaitable[T]]) -> list[T]:
    """Wait for all at once; the first error ends the others and is raised."""

    async def one(awaited: Awaitable[T]) -> T:
        return await awaited

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(awaited)) for awaited in asked]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    for _ in range(SUBMIT_TRIES_MAX - 1):
        try:
            return await ask()
        except JobsError as error:
            if not is_away(error):
                raise
        await asyncio.sleep(SUBMIT_PAUSE_S)
    return await ask()


def _nobody(spec: JobSpec, refusals: Sequence[JobsError]) -> CommandError:
    where = f" in {', '.join(spec.dcs)}" if spec.dcs else ""
    said = "; ".join(dict.fromkeys(str(error) for error in refusals))
    return CommandError(
        f"no host{where} is meant by --hosts {spec.hosts}: {said}",
        Exit.NOT_FOUND,
        "a selector is a glob of names, labels, a share or a count: web-*, role=web, 10%, 25",
    )
