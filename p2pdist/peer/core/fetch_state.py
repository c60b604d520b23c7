"""What `BlobFetch` remembers of its neighbours and of what it asked them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Distance
from p2pdist.peer.core.bulk import BulkPace

# Fewer bytes than this in STALL_S are no progress: a source of 1 B/s is a stalled one.
PROGRESS_BYTES: Final = 32 * 1024


@dataclass(slots=True)
class FetchCounters:
    hedges: int = 0
    escapes: int = 0
    stalls: int = 0
    bad_chunks: int = 0

    def add(self, other: FetchCounters) -> None:
        self.hedges += other.hedges
        self.escapes += other.escapes
        self.stalls += other.stalls
        self.bad_chunks += other.bad_chunks


@dataclass(slots=True)
class Run:
    host: HostId
    request_id: RequestId
    bits: int
    pace: BulkPace | None
    """That it was asked for at, as bulk; its bytes are settled there."""


@dataclass(slots=True)
class Neighbour:
    host: HostId
    distance: Distance
    proxy: bool
    progress_s: float
    offered: int = 0
    unmarked_bytes: int = 0
    slow_until_s: float = 0.0
    runs: dict[RequestId, Run] = field(default_factory=dict)

    def moved(self, nbytes: int, now_s: float) -> None:
        self.unmarked_bytes += nbytes
        if self.unmarked_bytes >= PROGRESS_BYTES:
            self.unmarked_bytes, self.progress_s = 0, now_s
