"""What a host's core orders its shell to do; to be carried out in this order, each once.

All are read-only. Those that are given for each chunk are not frozen: that makes a record four
times as dear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import Frame, Request
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.ids import Digest, HostId, RequestId
from p2pdist.model.members import Member
from p2pdist.swarm.core.link_state import LinkState

# --- over links -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Send:
    """Say `frame` on a link; nothing, if it has closed meanwhile."""

    link: LinkState
    frame: Frame


@dataclass(slots=True)
class SendAll:
    """The same to several, encoded once."""

    links: Sequence[LinkState]
    frame: Frame


@dataclass(slots=True)
class AskRun:
    """Send `request`, whose answer is the chunks (index, bytes) of `chunks`, in their order."""

    link: LinkState
    request: Request
    chunks: Sequence[tuple[int, int]]


@dataclass(slots=True)
class TakeBack:
    """Cancel a request; whatever still comes of it is dropped."""

    link: LinkState
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class CloseLink:
    link: LinkState
    why: str


@dataclass(frozen=True, slots=True)
class CountFault:
    """The host at the other end was wrong: count it, and say so."""

    link: LinkState
    fault: PeerFault


# --- to the tracker -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JoinSwarm:
    """Become a member, or, where we are one, ask for neighbours beside `exclude`."""

    digest: Digest
    exclude: Sequence[HostId] = ()


@dataclass(frozen=True, slots=True)
class LeaveSwarm:
    digest: Digest


@dataclass(slots=True)
class NoteHeld:
    """Say how many chunks of a blob are to be had here, and whether that is all of it; none: the
    host is named for it no more."""

    digest: Digest
    chunks: int
    whole: bool


# --- of neighbours --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Provide:
    """Somebody asks for a blob that is not whole in motion here: take it up if it lies in the
    store, and say `hear_wishes`; a proxy has it brought in, too."""

    digest: Digest
    bulk: bool


@dataclass(frozen=True, slots=True)
class Meet:
    """A proxy named these for a blob: ask them for it, like those whom the tracker names."""

    digest: Digest
    members: Sequence[Member]


# --- on this host ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Deliver:
    """Wake those who wait for these chunks; `bits` None: all of a blob's readers look again."""

    digest: Digest
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """Nothing more comes of a blob: what is on its way into it is dropped, and `reason` is told."""

    digest: Digest
    reason: str


@dataclass(frozen=True, slots=True)
class FollowMap:
    """Have a blob lie under this map; then say `map_followed`, or `not_taken`.

    `rival`: instead of one that stands still; nothing is lost where that cannot be.
    """

    chunk_map: ChunkMap
    rival: bool = False

    @property
    def digest(self) -> Digest:
        return self.chunk_map.digest


@dataclass(frozen=True, slots=True)
class KeepRecords:
    """Write statements to the map of a blob; then say `records_kept`, or `not_taken`."""

    digest: Digest
    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SyncBlob:
    """It is whole: have the disk keep it, when nobody waits for the disk."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class RemoveBlob:
    """What lies here of it is not to be trusted, or is gone."""

    digest: Digest


LocalOrder = Deliver | Fail | FollowMap | KeepRecords | SyncBlob | RemoveBlob
"""To be done to one blob of this host."""

Order = (
    Send
    | SendAll
    | AskRun
    | TakeBack
    | CloseLink
    | CountFault
    | JoinSwarm
    | LeaveSwarm
    | NoteHeld
    | Provide
    | Meet
    | Deliver
    | Fail
    | FollowMap
    | KeepRecords
    | SyncBlob
    | RemoveBlob
)
