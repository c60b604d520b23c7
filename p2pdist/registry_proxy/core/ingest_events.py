"""What the core of an ingest hears: each event but `Filled` is the answer to its last order."""

from __future__ import annotations

from dataclasses import dataclass

from p2pdist.errors import UpstreamError
from p2pdist.registry_proxy.core.following import BlobView


@dataclass(frozen=True, slots=True)
class IngestView(BlobView):
    """One look at the blob that is read."""

    mapped: bool = False
    """There is a map to work under."""
    fits: bool = True
    """It has the size that the repositories claim, as far as anybody knows."""
    overruled: bool = False
    """A sealed map proves that it has another size."""
    ours: bool = False
    """The map is the one that this reading opened."""


@dataclass(frozen=True, slots=True)
class Started:
    view: IngestView
    lies_here: bool
    """As many bytes as it has lie here under a map that is not believed any more."""


@dataclass(frozen=True, slots=True)
class MapOpened:
    view: IngestView


@dataclass(frozen=True, slots=True)
class LaidRead:
    view: IngestView
    matches: bool
    """What lies here has the digest; False: it has not, or cannot be read."""


@dataclass(frozen=True, slots=True)
class LaidSigned:
    view: IngestView


@dataclass(frozen=True, slots=True)
class HashedOn:
    view: IngestView


@dataclass(frozen=True, slots=True)
class BodyOpened:
    view: IngestView
    size_bytes: int | None
    """Of the whole blob, as its registry says; None: it does not."""


@dataclass(frozen=True, slots=True)
class Looked:
    """Something changed, or it is time to look."""

    view: IngestView


@dataclass(frozen=True, slots=True)
class Filled:
    """The next chunk of the body is full; what is answered with nothing is read on."""

    chunk: int
    """The one after it."""
    here_until: int
    """From `chunk` up to this one all are here already; `chunk` itself if it is not."""
    at_its_pace: bool
    """False: the rest is urgent now, and this body was asked for as something that is not."""
    failed: bool = False
    """Nothing more will come of the blob."""


@dataclass(frozen=True, slots=True)
class BodyLeft:
    """The body ended at `chunk`, or was left there as ordered; all before it has landed."""

    chunk: int


@dataclass(frozen=True, slots=True)
class TooLong:
    """The body goes on behind the last chunk."""


@dataclass(frozen=True, slots=True)
class BodyClosed:
    view: IngestView


@dataclass(frozen=True, slots=True)
class Failed:
    """The registry, or its body, gave out; a body that was open is closed by that."""

    view: IngestView
    error: UpstreamError
    differs: bool = False
    """A chunk differs from what the map vouches for."""


@dataclass(frozen=True, slots=True)
class DiskFailed:
    """The store could not do what was ordered; a body that was open is closed by that."""

    view: IngestView


@dataclass(frozen=True, slots=True)
class Concluded:
    """All chunks are here, and all that was said of them was taken in."""

    sealed: bool
    matches: bool
    """They have the digest."""


@dataclass(frozen=True, slots=True)
class Settled:
    """All that was said of the blob was taken in."""

    view: IngestView


Event = (
    Started
    | MapOpened
    | LaidRead
    | LaidSigned
    | HashedOn
    | BodyOpened
    | Looked
    | Filled
    | BodyLeft
    | TooLong
    | BodyClosed
    | Failed
    | DiskFailed
    | Concluded
    | Settled
)
