"""Jobs as the API shows them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

from p2pdist.model.jobs import DcStatus, HostStatus, JobStatus
from p2pdist.tracker.core.jobs.job import Job
from p2pdist.tracker.core.jobs.target import Target

PROBLEMS_MAX: Final = 100


def job_status(job: Job, hosts: list[HostStatus]) -> JobStatus:
    spec = job.spec
    return JobStatus(
        job.id,
        job.state,
        [str(image) for image in spec.images],
        [image.digest for image in spec.images],
        job.created_unix_s,
        job.started_unix_s,
        job.ended_unix_s,
        spec.deadline_unix_s,
        job.deadline_missed,
        job.wave,
        list(spec.waves),
        dc_statuses(job),
        spec.note,
        job.reason,
        hosts,
        filed_by=spec.filed_by,
    )


def dc_statuses(job: Job) -> list[DcStatus]:
    if job.summary is not None:
        return list(job.summary.dcs)
    return [_dc_status(job, dc) for dc in sorted(job.tallies)]


def _dc_status(job: Job, dc: str) -> DcStatus:
    tally = job.tallies[dc]
    proxies = [proxy for proxy in job.proxies.values() if proxy.dc == dc]
    unpacked = tally.counts.get("unpacked", 0)
    ready = tally.counts.get("ready", 0) + unpacked
    failed = tally.counts.get("failed", 0) + tally.lost_for_good
    return DcStatus(
        dc,
        tally.hosts,
        ready,
        unpacked,
        failed,
        tally.hosts - ready - failed,
        tally.total_bytes,
        tally.missing_bytes,
        0.0 if job.ended else tally.rate,
        None if job.ended else tally.eta_s,
        sum(proxy.whole for proxy in proxies),
        len(proxies),
    )


def problems(job: Job) -> list[HostStatus]:
    """Return those that failed or are lost, then the slowest, at most `PROBLEMS_MAX`."""
    if job.summary is not None:
        return list(job.summary.problems)
    shown = [target for _, target in zip(range(PROBLEMS_MAX), job.failed.values(), strict=False)]
    if (room := PROBLEMS_MAX - len(shown)) and not job.ended:
        fetching = (t for t in job.targets.values() if t.state == "fetching")
        shown += heapq.nlargest(room, fetching, key=_lag)
    return [target.status() for target in shown]


def everybody(job: Job) -> Iterator[HostStatus]:
    """Return all hosts, one by one: what changes meanwhile may be in or not."""
    if job.summary is not None:
        return iter(job.summary.problems)
    return (target.status() for target in list(job.targets.values()))


def _lag(target: Target) -> tuple[bool, int]:
    return bool(target.code), target.missing_bytes
