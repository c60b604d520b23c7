"""The jobs of a run, put together: what the operator asked for is one thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from p2pdist.cli.exit_codes import Exit
from p2pdist.model.jobs import DcStatus, HostStatus, JobState, JobStatus

# What is worst stands for all; among those that go on, the one that is furthest.
_WEIGHT: Final[tuple[JobState, ...]] = (
    "done",
    "scheduled",
    "running",
    "cancelled",
    "partly",
    "held",
)
ENDED: Final = frozenset({"done", "partly", "cancelled"})


@dataclass(frozen=True, slots=True)
class Picture:
    jobs: Sequence[JobStatus]

    @property
    def state(self) -> JobState:
        """`held` and failures show at once, `done` only when all are."""
        return max((job.state for job in self.jobs), key=_WEIGHT.index)

    @property
    def ended(self) -> bool:
        return all(job.state in ENDED for job in self.jobs)

    @property
    def settled(self) -> bool:
        """Nothing more happens by itself."""
        return all(job.state in ENDED or job.state == "held" for job in self.jobs)

    @property
    def dcs(self) -> list[DcStatus]:
        merged: dict[str, DcStatus] = {}
        for row in (row for job in self.jobs for row in job.dcs):
            known = merged.get(row.dc)
            merged[row.dc] = row if known is None else _sum(known, row)
        return [merged[dc] for dc in sorted(merged)]

    @property
    def hosts(self) -> list[HostStatus]:
        return [host for job in self.jobs for host in job.hosts]

    @property
    def failed(self) -> list[HostStatus]:
        return [host for host in self.hosts if is_failed(host)]

    @property
    def behind(self) -> list[HostStatus]:
        """Those that are still on their way, the emptiest first."""
        going = (h for h in self.hosts if not is_failed(h) and h.state not in ("ready", "unpacked"))
        return sorted(going, key=lambda host: (-bool(host.code), -host.missing_bytes, host.name))

    @property
    def deadline_unix_s(self) -> float:
        return max(job.deadline_unix_s for job in self.jobs)

    @property
    def exit_code(self) -> Exit:
        """What a command that waited for this ends with."""
        if any(job.deadline_missed for job in self.jobs):
            return Exit.TIMEOUT
        return Exit.DONE if self.state == "done" else Exit.PARTIAL


def is_failed(host: HostStatus) -> bool:
    """A lost host has a code once it counts as failed."""
    return host.state == "failed" or (host.state == "lost" and bool(host.code))


def total(rows: Iterable[DcStatus]) -> DcStatus:
    """Return the sum of all datacenters."""
    result = DcStatus("all", 0, 0, 0, 0, 0, 0, 0, 0.0, None)
    for row in rows:
        result = _sum(result, row)
    return result


def _sum(a: DcStatus, b: DcStatus) -> DcStatus:
    etas = [row.eta_s for row in (a, b) if row.eta_s is not None]
    return DcStatus(
        a.dc,
        a.hosts + b.hosts,
        a.ready + b.ready,
        a.unpacked + b.unpacked,
        a.failed + b.failed,
        a.to_go + b.to_go,
        a.total_bytes + b.total_bytes,
        a.missing_bytes + b.missing_bytes,
        a.rate + b.rate,
        max(etas, default=None),
        a.proxies_ready + b.proxies_ready,
        a.proxies + b.proxies,
    )
