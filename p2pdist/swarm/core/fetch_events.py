"""What `BlobFetch` hears of and what it orders: small records, treated as read-only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Distance
from p2pdist.swarm.core.bulk import BulkPace
from p2pdist.swarm.core.event_log import Kind
from p2pdist.swarm.core.flow import Flows


@dataclass(slots=True)
class NeighbourUp:
    host: HostId
    distance: Distance
    proxy: bool
    flows: Flows = field(default_factory=Flows)
    """Shared with the fetches of other blobs."""


@dataclass(slots=True)
class NeighbourDown:
    host: HostId


@dataclass(slots=True)
class Parted:
    """`host` can be reached, but is to be asked for nothing any more."""

    host: HostId


@dataclass(slots=True)
class Offered:
    """`host` can serve these chunks too."""

    host: HostId
    bits: int


@dataclass(slots=True)
class Retracted:
    host: HostId


@dataclass(slots=True)
class HashesKnown:
    """The map now vouches for these chunks: only they may be asked for."""

    bits: int


@dataclass(slots=True)
class Arrived:
    """A chunk came in answer to `request_id` and was checked; `good`: it is on disk."""

    host: HostId
    request_id: RequestId
    chunk: int
    good: bool


@dataclass(slots=True)
class Landed:
    """Chunks are on disk by another way than a request (recovered, or fetched from upstream)."""

    bits: int


@dataclass(slots=True)
class Lost:
    """Chunks that were on disk are not there any more as they were: they are wanted again."""

    bits: int


@dataclass(slots=True)
class Refused:
    """`gone`: the neighbour does not hold the run; else it is busy."""

    host: HostId
    request_id: RequestId
    gone: bool


@dataclass(slots=True)
class ReaderMoved:
    """Somebody waits for `chunk` and will want those after it, up to `until` (exclusive).

    None: to the end. Who says where it ends is a *demand reader*: it needs these chunks now, and
    may need no others.
    """

    reader: int
    chunk: int
    until: int | None = None


@dataclass(slots=True)
class ReaderLeft:
    reader: int


@dataclass(slots=True)
class WholeWanted:
    """Whether all of the blob is wanted, as at first, or only what demand readers wait for."""

    whole: bool


@dataclass(slots=True)
class PaceSet:
    """Nobody here waits for this blob: fetch it as bulk, at `pace`; None: somebody does."""

    pace: BulkPace | None


@dataclass(slots=True)
class GateShut:
    """A reader waits for another blob: what was asked for as bulk makes room for it."""


@dataclass(slots=True)
class Halted:
    """Nobody wants the blob any more: leave all neighbours, cancel what they were asked for."""


Event = (
    NeighbourUp
    | NeighbourDown
    | Parted
    | Offered
    | Retracted
    | HashesKnown
    | Arrived
    | Landed
    | Lost
    | Refused
    | ReaderMoved
    | ReaderLeft
    | WholeWanted
    | PaceSet
    | GateShut
    | Halted
)


@dataclass(slots=True)
class Ask:
    """Order: request the run from `host`."""

    host: HostId
    request_id: RequestId
    first: int
    count: int
    bulk: bool = False


@dataclass(slots=True)
class Withdraw:
    """Order: cancel; whatever still comes of it is dropped."""

    host: HostId
    request_id: RequestId


@dataclass(slots=True)
class SayHungry:
    """Order: tell the proxies whether they would bring far more than the peers do."""

    hungry: bool


@dataclass(slots=True)
class LookFurther:
    """Order: the neighbours do not suffice, ask the tracker for others."""


Order = Ask | Withdraw | SayHungry | LookFurther

Rescued = Callable[[Kind, HostId, float], None]
"""Hears what was done because an answer stayed away, to which host, and when."""


def unheard(what: Kind, host: HostId, now_s: float) -> None:
    """A `Rescued` that nobody reads."""
