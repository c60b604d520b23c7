"""Operators' wishes at the jobs: checked, planned, stored, then carried out.

Whatever grows with the number of hosts is done slice by slice or in a thread, so that a job for
10,000 hosts does not hold up those that pull.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final, Literal, TypeVar

from p2pdist.model.ids import parse_digest
from p2pdist.model.jobs import HostStatus, JobAnswer, JobPlan, JobRequest, JobSpec, JobStatus
from p2pdist.process import clock
from p2pdist.tracker.core.jobs.book import JobBook
from p2pdist.tracker.core.jobs.choosing import Chosen, choose_hosts
from p2pdist.tracker.core.jobs.job import Job
from p2pdist.tracker.core.jobs.parts import parts_of
from p2pdist.tracker.core.jobs.planning import Planner
from p2pdist.tracker.core.jobs.views import everybody, job_status, problems
from p2pdist.tracker.core.selector import parse_selector
from p2pdist.tracker.server import TrackerServer

# 5 µs each, and as much again for their parts.
HOSTS_PER_SLICE: Final = 200
ID_BYTES: Final = 5

Which = Literal["problems", "all", "none"]
T = TypeVar("T")


class NoHosts(LookupError):
    """No host that the tracker knows is meant."""


class JobDesk:
    def __init__(self, server: TrackerServer) -> None:
        self._server = server
        self._submitting = asyncio.Lock()

    @property
    def _book(self) -> JobBook:
        return self._server.core.jobs

    async def submit(self, request: JobRequest) -> JobAnswer:
        """File a job, or only say what it would do (`dry_run`).

        Raises ValueError for a job that makes no sense, NoHosts, TooMany, StoreError.
        """
        spec = request.spec
        check_spec(spec)
        async with self._submitting:
            job = self._book.with_key(spec.key) if spec.key and not request.dry_run else None
            if job is not None:
                return JobAnswer(job.id, JobPlan([], None, None), existing=True)
            job_id = secrets.token_hex(ID_BYTES)
            candidates = self._book.candidates(spec)
            selector = parse_selector(spec.hosts)
            chosen = await asyncio.to_thread(choose_hosts, job_id, spec, selector, candidates)
            if not chosen:
                raise NoHosts(_why_nobody(spec, len(candidates)))
            plan = await self._plan(spec, chosen)
            if request.dry_run:
                return JobAnswer("", plan)
            self._book.check_room(len(chosen))
            await self._file(job_id, spec, chosen)
            return JobAnswer(job_id, plan)

    async def _plan(self, spec: JobSpec, chosen: list[Chosen]) -> JobPlan:
        core = self._server.core
        planner = Planner(spec, core.hosts, core.swarms)
        for part in _slices(iter(chosen)):
            planner.add(part)
            await asyncio.sleep(0)
        return planner.plan(clock.unix_s())

    async def _file(self, job_id: str, spec: JobSpec, chosen: list[Chosen]) -> None:
        job = self._server.act(lambda book, now_s: book.create(job_id, spec, now_s))
        for part in _slices(iter(chosen)):
            self._server.act(partial(_enlist, job, part))
            await asyncio.sleep(0)
        # Nobody is told of a job that a crash would make the tracker forget.
        try:
            await self._server.job_keeper.flush(self._book)
        except BaseException:
            self._server.act(lambda book, now_s: book.cancel(job, now_s))
            raise
        self._server.act(lambda book, now_s: book.begin(job, now_s))

    # --- jobs that are there --------------------------------------------------------------------

    def listing(self) -> list[JobStatus]:
        """Return all jobs, the newest first, without their hosts."""
        return [job_status(job, []) for job in reversed(self._book.jobs.values())]

    def job(self, job_id: str) -> Job | None:
        return self._book.jobs.get(job_id)

    async def show(self, job: Job, which: Which) -> JobStatus:
        return job_status(job, await self._hosts(job, which))

    async def act(self, job: Job, verb: Literal["cancel", "retry", "resume"]) -> None:
        """Return once what was wished for is on the disk. Raises StoreError."""
        match verb:
            case "cancel":
                self._server.act(lambda book, now_s: book.cancel(job, now_s))
            case "retry":
                self._server.act(lambda book, now_s: book.retry(job, now_s))
            case "resume":
                self._server.act(lambda book, now_s: book.resume(job, now_s))
        await self._server.job_keeper.flush(self._book)

    async def _hosts(self, job: Job, which: Which) -> list[HostStatus]:
        if which == "none":
            return []
        if which == "problems":
            return problems(job)
        hosts: list[HostStatus] = []
        for part in _slices(everybody(job)):
            hosts += part
            await asyncio.sleep(0)
        return hosts


def check_spec(spec: JobSpec) -> None:
    """Raise ValueError, in words for people, for what types alone do not rule out."""
    parse_selector(spec.hosts)
    if list(spec.waves) != sorted(set(spec.waves)) or spec.waves[-1] != 1.0:
        raise ValueError("waves are growing shares of the hosts, and the last one is 100%")
    for image in spec.images:
        parse_digest(image.digest)
        for platform in image.platforms:
            for digest in (*platform.manifests, *(blob.digest for blob in platform.blobs)):
                parse_digest(digest)
    if spec.platform:
        parts_of(spec, spec.platform)


def _enlist(job: Job, part: list[Chosen], book: JobBook, now_s: float) -> None:
    book.enlist(job, part, now_s)


def _why_nobody(spec: JobSpec, known: int) -> str:
    whom = "proxies" if spec.proxies_only else "hosts"
    where = f" in {', '.join(spec.dcs)}" if spec.dcs else ""
    if not known:
        return f"this tracker knows no {whom}{where}"
    return f"none of the {known} {whom}{where} is meant by {spec.hosts!r}"


def _slices(items: Iterator[T]) -> Iterator[list[T]]:
    while part := list(islice(items, HOSTS_PER_SLICE)):
        yield part
