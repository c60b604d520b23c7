"""What the core of an ingest has its shell do, one after the other; the last order of an answer is
the one that is answered."""

from __future__ import annotations

from dataclasses import dataclass

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.oci.names import ImageName

# --- answered by an event -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenMap:
    """Work under the map that is there, or under a `fresh` one; answer with `MapOpened`."""

    fresh: bool


@dataclass(frozen=True, slots=True)
class ReadLaid:
    """Run the digest over what lies here; answer with `LaidRead`."""


@dataclass(frozen=True, slots=True)
class SignLaid:
    """Sign and seal it; answer with `LaidSigned`."""


@dataclass(frozen=True, slots=True)
class HashOn:
    """Run the digest on over these chunks, which are here; from 0: anew. Answer with `HashedOn`."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class OpenBody:
    """Ask the registry of `name` for the blob from `chunk` on, with which the digest goes on; from
    0: anew. Answer with `BodyOpened`."""

    name: ImageName
    chunk: int


@dataclass(frozen=True, slots=True)
class ReadBody:
    """Cut the body into chunks and land them, with a `Filled` for each; answer with `BodyLeft` at
    its end, with `TooLong` if it has none."""


@dataclass(frozen=True, slots=True)
class LeaveBody:
    """Read no further; answer with `BodyLeft` when what is full has landed."""


@dataclass(frozen=True, slots=True)
class CloseBody:
    """Answer with `BodyClosed`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Answer with `Looked`, at the latest at `next_deadline_s`."""


@dataclass(frozen=True, slots=True)
class Conclude:
    """Answer with `Concluded`."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Answer with `Settled`."""


# --- to be done beside it, and at the end ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """Be in the swarm of the blob: another proxy may bring it."""


@dataclass(frozen=True, slots=True)
class Refute:
    """What `name` claims of its size is wrong; `actual_bytes` if its registry told."""

    name: ImageName
    actual_bytes: int | None


@dataclass(frozen=True, slots=True)
class SayInterrupted:
    error: UpstreamError


@dataclass(frozen=True, slots=True)
class Delivered:
    """The registry of `name` sent all of the blob."""

    name: ImageName


@dataclass(frozen=True, slots=True)
class Seal:
    pass


@dataclass(frozen=True, slots=True)
class Disprove:
    """What came (of `name` at last) has not the digest: take the map back."""

    name: ImageName


@dataclass(frozen=True, slots=True)
class TakeBack:
    """No repository has a blob of this size: take the map back that says so."""


@dataclass(frozen=True, slots=True)
class FailBlob:
    """Nothing more comes of it. `refusal`: all that were to have it say the same."""

    why: str
    refusal: ErrorReason | None


@dataclass(frozen=True, slots=True)
class StopStoring:
    """The store cannot keep it."""


Order = (
    OpenMap
    | ReadLaid
    | SignLaid
    | HashOn
    | OpenBody
    | ReadBody
    | LeaveBody
    | CloseBody
    | Wait
    | Conclude
    | Settle
    | Join
    | Refute
    | SayInterrupted
    | Delivered
    | Seal
    | Disprove
    | TakeBack
    | FailBlob
    | StopStoring
)
