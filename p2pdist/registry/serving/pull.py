"""One manifest or blob request: what its answers share and what its log line says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from p2pdist.errors import ErrorReason, RegistryError
from p2pdist.oci.names import ImageName
from p2pdist.oci.routes import BlobRoute, ManifestRoute
from p2pdist.process import logs
from p2pdist.registry.ports import PullContext

_logger = logging.getLogger(__name__)

PullKind = Literal["manifest", "blob", "part"]
"""`part`: of a blob, as lazy reads ask for many of; a container that starts makes hundreds."""
Outcome = Literal["served", "refused", "failed", "cut", "client_gone", "client_stalled"]
"""`refused`: it is not there, or not for this client, and asking again brings the same. `failed`:
it could not be had, now or as things are set up. `cut`: no source could deliver the rest.
`client_gone`: also normal, containerd reads one piece of an open-ended range and closes."""

_REFUSALS: Final = frozenset(
    (
        ErrorReason.UNKNOWN,
        ErrorReason.NOT_LISTED,
        ErrorReason.NOT_SHARED,
        ErrorReason.CALLER,
        ErrorReason.MEMBERS_ONLY,
        ErrorReason.DENIED,
    )
)


def outcome_of(error: RegistryError) -> Outcome:
    """What becomes of a request that is answered with `error`."""
    if error.reason is not None:
        return "refused" if error.reason in _REFUSALS else "failed"
    return "refused" if error.status < 500 else "failed"


@dataclass(slots=True)
class Pull:
    """A manifest or blob request while it is answered."""

    route: ManifestRoute | BlobRoute
    name: ImageName
    context: PullContext
    headers: Mapping[str, str]
    """What each answer to this request carries."""
    head: bool = False
    """It asks for no body."""
    by_node: bool = False
    """A daemon of ours asks, on behalf of its own clients."""
    status: int = 0
    sent_bytes: int = 0
    outcome: Outcome = "client_gone"

    @property
    def reference(self) -> str:
        return self.route.digest if isinstance(self.route, BlobRoute) else self.route.reference

    @property
    def _kind(self) -> PullKind:
        if not isinstance(self.route, BlobRoute):
            return "manifest"
        return "part" if self.context.demand else "blob"

    def record(self, duration_s: float) -> PullRecord:
        return PullRecord(
            request_id=self.context.request_id,
            kind=self._kind,
            name=self.name,
            reference=self.reference,
            status=self.status,
            outcome=self.outcome,
            head=self.head,
            by_node=self.by_node,
            sent_bytes=self.sent_bytes,
            duration_s=duration_s,
            bytes_by_source=dict(self.context.bytes_by_source),
            slowest_cause=self.context.slowest_cause,
            slowest_wait_s=self.context.slowest_wait_s,
        )


@dataclass(frozen=True, slots=True)
class PullRecord:
    """A manifest or blob request that is over."""

    request_id: str
    kind: PullKind
    name: ImageName
    reference: str
    status: int
    """0 where the client left before there was one."""
    outcome: Outcome
    head: bool
    by_node: bool
    sent_bytes: int
    """Body bytes handed to the connection; of a client that left, in whole slices."""
    duration_s: float
    bytes_by_source: Mapping[str, int]
    slowest_cause: str
    slowest_wait_s: float


def log_pull(record: PullRecord) -> None:
    """Write the one line of a request; a client that leaves is no warning, a cut body is. Parts
    that came are not worth one."""
    level = logging.WARNING if record.outcome == "cut" else logging.INFO
    if record.kind == "part" and record.outcome in ("served", "client_gone"):
        level = logging.DEBUG
    sources = ",".join(f"{k}:{v}" for k, v in sorted(record.bytes_by_source.items()))
    logs.event(
        _logger,
        level,
        "pull.ended",
        request=record.request_id,
        kind=record.kind,
        outcome=record.outcome,
        image=str(record.name),
        reference=record.reference,
        status=record.status,
        sent_bytes=record.sent_bytes,
        duration_s=round(record.duration_s, 3),
        bytes_by_source=sources,
        slowest_cause=record.slowest_cause,
        slowest_wait_s=round(record.slowest_wait_s, 3),
    )
