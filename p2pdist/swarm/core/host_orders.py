"""What a host's core orders its shell to do; to be carried out in this order, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2pdist.exchange.frames import Frame, Request
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.ids import Digest, HostId, RequestId
from p2pdist.swarm.core.link_state import LinkState

# --- over links -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Say `frame` on a link; nothing, if it has closed meanwhile."""

    link: LinkState
    frame: Frame


@dataclass(frozen=True, slots=True)
class SendAll:
    """The same to several, encoded once."""

    links: Sequence[LinkState]
    frame: Frame


@dataclass(frozen=True, slots=True)
class AskRun:
    """Send `request`, whose answer is the chunks (index, bytes) of `chunks`, in their order."""

    link: LinkState
    request: Request
    chunks: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Cancel a request; whatever still comes of it is dropped."""

    link: LinkState
    request_id: RequestId


# --- to the tracker -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JoinSwarm:
    """Become a member, or, where we are one, ask for neighbours beside `exclude`."""

    digest: Digest
    exclude: Sequence[HostId] = ()


@dataclass(frozen=True, slots=True)
class LeaveSwarm:
    digest: Digest


@dataclass(frozen=True, slots=True)
class NoteHeld:
    """Say how many chunks of a blob are to be had here, and whether that is all of it; none: the
    host is named for it no more."""

    digest: Digest
    chunks: int
    whole: bool


# --- on this host ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deliver:
    """Wake those who wait for these chunks; `bits` None: all of a blob's readers look again."""

    digest: Digest
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class SwitchMap:
    """Store a blob under another map than until now; then say `map_followed` and `map_switched`."""

    chunk_map: ChunkMap

    @property
    def digest(self) -> Digest:
        return self.chunk_map.digest


@dataclass(frozen=True, slots=True)
class SyncBlob:
    """It is whole: have the disk keep it, when nobody waits for the disk."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class RemoveBlob:
    """What lies here of it is not to be trusted, or is gone."""

    digest: Digest


LocalOrder = Deliver | SwitchMap | SyncBlob | RemoveBlob
"""To be done to one blob of this host."""

Order = (
    Send
    | SendAll
    | AskRun
    | TakeBack
    | JoinSwarm
    | LeaveSwarm
    | NoteHeld
    | Deliver
    | SwitchMap
    | SyncBlob
    | RemoveBlob
)
