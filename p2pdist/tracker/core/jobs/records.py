"""What is kept of jobs on disk, so that they outlive the tracker's process."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from p2pdist.model.jobs import DcStatus, HostStatus, JobSpec, JobState


class StoredJob(msgspec.Struct, frozen=True):
    """A job but for its hosts."""

    id: str
    spec: JobSpec
    state: JobState
    created_unix_s: float
    started_unix_s: float = 0.0
    ended_unix_s: float = 0.0
    wave: int = 0
    deadline_missed: bool = False
    reason: str = ""
    dcs: list[DcStatus] = []
    """How its hosts stood at the end; empty before."""
    problems: list[HostStatus] = []
    """At the end: those that failed or were lost, at most as many as an answer shows."""


class StoredTarget(msgspec.Struct, frozen=True, array_like=True):
    """One host of a job: what its next connection does not tell."""

    host_id: str
    name: str
    dc: str
    platform: str
    wave: int
    tries: int = 0
    final: bool = False
    code: str = ""
    reason: str = ""


@dataclass(slots=True)
class Changes:
    """What one transaction writes; hosts of a job go in with the job, or before it."""

    jobs: list[StoredJob] = field(default_factory=list)
    targets: list[tuple[str, StoredTarget]] = field(default_factory=list)
    """Job and host."""
    deleted: list[str] = field(default_factory=list)
    hosts_dropped: list[str] = field(default_factory=list)
    """Jobs whose hosts are of no interest any more."""

    def __bool__(self) -> bool:
        return bool(self.jobs or self.targets or self.deleted or self.hosts_dropped)
