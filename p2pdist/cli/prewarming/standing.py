"""Where an image stands in each datacenter, read off the jobs that were made for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from p2pdist.model.jobs import DcStatus, JobStatus

State = Literal["in step", "coming", "behind", "failed", "cancelled"]
"""`behind`: no job has brought what the registry has now, and none is on its way."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One datacenter; `hosts` are those of the newest job for what is there."""

    dc: str
    state: State
    digest: str
    """What is there, all of it; empty: nothing that a job of ours brought."""
    hosts_ready: int
    hosts: int
    proxies_ready: int
    proxies: int
    lag_s: float | None
    """Age of the job that is to bring what the registry has now; 0: in step; null: no job."""


def standings(
    image: str, digest_now: str, jobs: Sequence[JobStatus], now_s: float
) -> list[Standing]:
    """Return a row per datacenter that ever had a job for `image`, by name."""
    newest: dict[str, dict[str, tuple[JobStatus, DcStatus]]] = {}
    for job in sorted(jobs, key=lambda job: job.created_unix_s):
        for name, digest in zip(job.images, job.digests, strict=False):
            if name == image:
                for row in job.dcs:
                    # Cancelled ones count as well: what they brought lies there.
                    newest.setdefault(row.dc, {}).pop(digest, None)
                    newest[row.dc][digest] = (job, row)
    return [_standing(dc, digest_now, newest[dc], now_s) for dc in sorted(newest)]


def _standing(
    dc: str, digest_now: str, found: dict[str, tuple[JobStatus, DcStatus]], now_s: float
) -> Standing:
    there = [digest for digest, (_, row) in found.items() if _whole(row)]
    wanted = found.get(digest_now)
    if wanted is None:
        state: State = "behind"
    elif digest_now in there:
        state = "in step"
    elif wanted[0].state == "cancelled":
        state = "cancelled"
    else:
        state = "failed" if wanted[0].state == "partly" else "coming"
    digest = digest_now if state == "in step" else there[-1] if there else ""
    _, row = wanted or found[digest or next(reversed(found))]
    lag_s = 0.0 if state == "in step" else now_s - wanted[0].created_unix_s if wanted else None
    return Standing(dc, state, digest, row.ready, row.hosts, row.proxies_ready, row.proxies, lag_s)


def _whole(row: DcStatus) -> bool:
    return row.ready == row.hosts and (row.hosts > 0 or row.proxies_ready > 0)
