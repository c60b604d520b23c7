"""What the tracker remembers of jobs, and what of it the store does not know yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2pdist.tracker.core.jobs.job import Job
from p2pdist.tracker.core.jobs.records import Changes, StoredJob
from p2pdist.tracker.core.jobs.target import Target
from p2pdist.tracker.core.jobs.views import dc_statuses, problems

# Jobs that are over keep their hosts watched until their pins end, the newest ones.
WATCHED_ENDED_MAX: Final = 50
ENDED_KEPT_S: Final = 7 * 86400.0
ENDED_KEPT_MAX: Final = 1000


@dataclass(slots=True)
class JobCounters:
    proofs_right_total: int = 0
    proofs_wrong_total: int = 0
    proofs_missing_total: int = 0
    withdrawn_total: int = 0
    """Hosts that were ready and are no more."""
    deadlines_missed_total: int = 0


class Ledger:
    """`unix_s(now_s)` turns the monotonic clock of events into Unix time."""

    def __init__(self, unix_s: Callable[[float], float]) -> None:
        self.jobs: dict[str, Job] = {}
        """From the oldest to the newest."""
        self.unfinished: dict[str, Job] = {}
        self.counters = JobCounters()
        self.unix_s = unix_s
        self._of_host: dict[str, dict[str, Target]] = {}
        """Host -> job -> what the job knows of it."""
        self._dirty_jobs: set[str] = set()
        self._dirty_targets: dict[tuple[str, str], Target] = {}

    def add(self, job: Job) -> None:
        self.jobs[job.id] = job
        self.note(job)

    def note(self, job: Job) -> None:
        """A job changed."""
        self._dirty_jobs.add(job.id)
        if job.ended:
            self.unfinished.pop(job.id, None)
        else:
            self.unfinished[job.id] = job

    def note_target(self, job: Job, target: Target) -> None:
        """What is stored of a host of a job changed."""
        if not target.proxy:
            self._dirty_targets[job.id, target.host_id] = target

    def add_target(self, job: Job, target: Target) -> None:
        """A job has another host, or proxy."""
        self._of_host.setdefault(target.host_id, {})[job.id] = target

    def target(self, job: Job, host_id: str) -> Target | None:
        return self._of_host.get(host_id, {}).get(job.id)

    def of_host(self, host_id: str) -> list[tuple[Job, Target]]:
        """Return the jobs that a host belongs to: those that are still watched."""
        of_host = self._of_host.get(host_id)
        return [(self.jobs[job], target) for job, target in of_host.items()] if of_host else []

    # --- what is kept, and for how long ---------------------------------------------------------

    def pinned_s(self, job: Job, now_s: float) -> float:
        return max(0.0, job.pin_until_unix_s - self.unix_s(now_s))

    def unwatch(self, job: Job) -> None:
        """The pins of a job that is over have ended: what its hosts hold is no news any more."""
        if job.ended and job.summary is None:
            self.keep_summary(job, self.stored(job))

    def keep_summary(self, job: Job, summary: StoredJob) -> None:
        for host_id in (*job.targets, *job.proxies):
            if (of_host := self._of_host.get(host_id)) is not None:
                of_host.pop(job.id, None)
                if not of_host:
                    del self._of_host[host_id]
        job.forget_hosts()
        job.summary = summary
        self.note(job)

    def retire(self, now_s: float) -> None:
        """Let go of what is old, so that jobs that are over never fill the memory or the disk."""
        ended = [job for job in self.jobs.values() if job.ended]
        watched = [job for job in ended if job.summary is None]
        for job in watched[: max(0, len(watched) - WATCHED_ENDED_MAX)]:
            self.unwatch(job)
        oldest_unix_s = self.unix_s(now_s) - ENDED_KEPT_S
        too_many = max(0, len(ended) - ENDED_KEPT_MAX)
        for at, job in enumerate(ended):
            if job.summary is not None and (at < too_many or job.ended_unix_s < oldest_unix_s):
                del self.jobs[job.id]
                self._dirty_jobs.add(job.id)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        for job_id, job in self.jobs.items():
            assert job.id == job_id
            job.validate()
        unfinished = {job_id: job for job_id, job in self.jobs.items() if not job.ended}
        assert self.unfinished == unfinished
        ended = len(self.jobs) - len(unfinished)
        watched = sum(job.ended and job.summary is None for job in self.jobs.values())
        assert watched <= WATCHED_ENDED_MAX
        assert ended <= ENDED_KEPT_MAX + watched
        known = {
            (host_id, job.id): target
            for job in self.jobs.values()
            for host_id, target in (job.targets | job.proxies).items()
        }
        assert all(self._of_host.values())
        assert known == {
            (host_id, job_id): target
            for host_id, of_host in self._of_host.items()
            for job_id, target in of_host.items()
        }
        for key, target in self._dirty_targets.items():
            assert not target.proxy
            job_of = self.jobs.get(key[0])
            assert job_of is None or job_of.targets.get(key[1], target) is target

    # --- on disk --------------------------------------------------------------------------------

    def take_changes(self, targets_max: int) -> Changes:
        """Return what the store does not know yet, at most `targets_max` hosts of it.

        Hosts come before their job, so that no job is ever read back without them.
        """
        changes = Changes()
        while self._dirty_targets and len(changes.targets) < targets_max:
            (job_id, _), target = self._dirty_targets.popitem()
            if (job := self.jobs.get(job_id)) is not None and job.summary is None:
                changes.targets.append((job_id, job.stored_target(target)))
        if self._dirty_targets:
            return changes
        for job_id in self._dirty_jobs:
            if (job := self.jobs.get(job_id)) is None:
                changes.deleted.append(job_id)
                continue
            changes.jobs.append(self.stored(job))
            if job.summary is not None:
                changes.hosts_dropped.append(job_id)
        self._dirty_jobs.clear()
        return changes

    def give_back(self, changes: Changes) -> None:
        """The store could not take them."""
        self._dirty_jobs.update(job.id for job in changes.jobs)
        self._dirty_jobs.update(changes.deleted)
        for job_id, record in changes.targets:
            job = self.jobs.get(job_id)
            if job is not None and (target := job.targets.get(record.host_id)) is not None:
                self._dirty_targets[job_id, record.host_id] = target

    def stored(self, job: Job) -> StoredJob:
        if job.summary is not None:
            return job.summary
        return StoredJob(
            job.id,
            job.spec,
            job.state,
            job.created_unix_s,
            job.started_unix_s,
            job.ended_unix_s,
            job.wave,
            job.deadline_missed,
            job.reason,
            dc_statuses(job) if job.ended else [],
            problems(job) if job.ended else [],
        )
