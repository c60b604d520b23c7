"""Prewarm jobs as the tracker's job API and its clients exchange them (JSON).

All sizes are bytes, all rates bytes a second, all moments Unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

SCHEMA_VERSION: Final = 1
IMAGES_MAX: Final = 64
PLATFORMS_MAX: Final = 32
BLOBS_MAX: Final = 4096
WAVES_MAX: Final = 32
PIN_MAX_S: Final = 366 * 86400.0
RULE_KEY: Final = "rule "
"""How the keys of jobs begin that replication rules ask for."""
IDENTITY_REQUIRED: Final = "identity_required"

_Line = Annotated[str, msgspec.Meta(max_length=255)]
_Digest = Annotated[str, msgspec.Meta(max_length=160)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
_Rate = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
_Moment = Annotated[float, msgspec.Meta(ge=0, le=1e11)]

JobState = Literal["scheduled", "running", "held", "done", "partly", "cancelled"]
"""`held`: a wave missed its gate, and the next one waits for `resume`; `partly`: over, and some
hosts failed; `done`: over, all hosts ready."""

HostState = Literal["waiting", "fetching", "ready", "unpacked", "failed", "lost"]
"""`waiting`: its wave is not open; `ready`: all of it lies there, verified and proven; `unpacked`:
in the runtime as well (a later state than ready, for jobs with `into_runtime`); `lost`: no
connection."""


class Blob(msgspec.Struct, frozen=True, omit_defaults=True):
    digest: _Digest
    size: _Bytes


class PlatformImage(msgspec.Struct, frozen=True):
    platform: _Line
    """`os/architecture[/variant]`; empty: for any (an image without an index)."""
    manifests: Annotated[list[_Digest], msgspec.Meta(min_length=1, max_length=8)]
    blobs: Annotated[list[Blob], msgspec.Meta(max_length=BLOBS_MAX)]


class JobImage(msgspec.Struct, frozen=True):
    """One image, resolved: what its name stood for when the job was made."""

    upstream: _Line
    repository: _Line
    tag: _Line
    digest: _Digest
    platforms: Annotated[list[PlatformImage], msgspec.Meta(min_length=1, max_length=PLATFORMS_MAX)]

    def __str__(self) -> str:
        tail = f":{self.tag}" if self.tag else f"@{self.digest}"
        return f"{self.upstream}/{self.repository}{tail}"


class JobSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked for."""

    images: Annotated[list[JobImage], msgspec.Meta(min_length=1, max_length=IMAGES_MAX)]
    hosts: Annotated[str, msgspec.Meta(max_length=4096)] = "*"
    """Selector (`tracker.core.selector`): `*`, `web-*`, `role=web,zone!=b`, `10%`, `25`, and
    combinations with `;`."""
    dcs: Annotated[list[_Line], msgspec.Meta(max_length=64)] = []
    """Empty: every datacenter of the tracker that gets the job."""
    proxies_only: bool = False
    platform: _Line = ""
    """Empty: each host's own."""
    at_unix_s: _Moment = 0.0
    """0: now."""
    deadline_unix_s: _Moment = 0.0
    """0: none."""
    rate: _Rate = 0
    """Per host; 0: no limit."""
    dc_rate: _Rate = 0
    """Into each datacenter from outside of it; 0: no limit."""
    waves: Annotated[
        list[Annotated[float, msgspec.Meta(gt=0, le=1)]],
        msgspec.Meta(min_length=1, max_length=WAVES_MAX),
    ] = msgspec.field(default_factory=lambda: [1.0])
    """Growing shares of the hosts of each datacenter; the last one is 1."""
    wave_gate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.99
    """Share of the hosts of the waves so far that must be ready before the next wave."""
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    pin_s: Annotated[float, msgspec.Meta(ge=0, le=PIN_MAX_S)] = 86400.0
    into_runtime: bool = False
    key: _Line = ""
    """A job with the same key is returned instead of a second one being made."""
    note: _Line = ""
    """Who made it, for people: `cli`, `rule web`, `harbor`."""
    filed_by: _Line = ""
    """Whose certificate was shown with it, such as `operator 01ab…`; the tracker's word, whatever
    was asked. Empty: who knows the cluster's secret."""


class JobRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `POST /api/v1/jobs`."""

    spec: JobSpec
    dry_run: bool = False


class DcPlan(msgspec.Struct, frozen=True):
    """What a job would move in one datacenter, after what is there already."""

    dc: str
    hosts: int
    ready: int
    host_bytes: int
    """Sum over its hosts of what each lacks."""
    largest_host_bytes: int
    outside_bytes: int
    """What no host of the datacenter holds whole: crosses its border once."""
    link_s: float | None
    """`outside_bytes` at `dc_rate`; null: no rate was given."""
    hosts_s: float | None
    """`largest_host_bytes` at `rate`; null: no rate was given."""


class JobPlan(msgspec.Struct, frozen=True):
    """Answer to a dry run, and part of the answer to a submission."""

    dcs: list[DcPlan]
    needs_s: float | None
    """From start to end at least; null: no rate bounds it."""
    deadline_holds: bool | None
    """null: no deadline, or nothing is known against it."""
    warnings: list[str] = []


class HostStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    host_id: str
    name: str
    dc: str
    state: HostState
    missing_bytes: int = 0
    code: str = ""
    reason: str = ""
    tries: int = 0


class DcStatus(msgspec.Struct, frozen=True):
    """Counts over the hosts of one datacenter; kept up event by event, so asking is cheap."""

    dc: str
    hosts: int
    ready: int
    """Those in the runtime, too, are counted here."""
    unpacked: int
    failed: int
    to_go: int
    """waiting, fetching or lost"""
    total_bytes: int
    missing_bytes: int
    rate: float
    """Bytes a second over the last seconds, all hosts together."""
    eta_s: float | None
    proxies_ready: int = 0
    proxies: int = 0


class JobStatus(msgspec.Struct, frozen=True):
    """`GET /api/v1/jobs/ID`; lists have these without `hosts`."""

    id: str
    state: JobState
    images: list[str]
    digests: list[str]
    created_unix_s: float
    started_unix_s: float
    ended_unix_s: float
    deadline_unix_s: float
    deadline_missed: bool
    wave: int
    """Waves that are open, from 1 on; 0: not started."""
    waves: list[float]
    dcs: list[DcStatus]
    note: str = ""
    reason: str = ""
    """Why it is held, in words."""
    hosts: list[HostStatus] = []
    """`?hosts=problems` (default): failed and lost ones, then the slowest, at most 100;
    `?hosts=all`: everybody; `?hosts=none`."""
    schema_version: int = SCHEMA_VERSION
    filed_by: str = ""
    """As of `JobSpec`."""


class JobAnswer(msgspec.Struct, frozen=True):
    """Answer to `POST /api/v1/jobs`: `id` is empty for a dry run."""

    id: str
    plan: JobPlan
    existing: bool = False
    schema_version: int = SCHEMA_VERSION


class JobList(msgspec.Struct, frozen=True):
    jobs: list[JobStatus]
    schema_version: int = SCHEMA_VERSION


class JobError(msgspec.Struct, frozen=True):
    """Body of every answer that is no success; `code` is one of `unauthorized`, `not_found`,
    `identity_required` (a certificate, instead of a token), `certificate_refused` (it was revoked,
    or is none of a host), `wrong_role`, `bad_request`, `no_hosts`, `too_many`, `deadline`,
    `conflict`, `store`."""

    code: str
    message: str
    schema_version: int = SCHEMA_VERSION
