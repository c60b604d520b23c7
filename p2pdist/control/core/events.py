"""What a host's side of the control connection hears of: its host, and the line to the tracker.

Events of a line name it by the number of the order that dialled it; those of a line that is no
longer the current one change nothing, so a shell may report as late as it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2pdist.model.control import (
    Delta,
    FromTracker,
    PrewarmReport,
    Proof,
    SwarmKey,
    Trace,
)
from p2pdist.model.ids import Digest
from p2pdist.model.members import Member

# --- of the host ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """Begin to dial; without any URL nothing happens."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Say goodbye and dial no more."""


@dataclass(frozen=True, slots=True)
class JoinWanted:
    """`seq` is the core's `number()`, as in all that follow; a handout answers under it."""

    seq: int
    key: SwarmKey
    member: bool
    exclude: Sequence[str]


@dataclass(frozen=True, slots=True)
class LeaveWanted:
    key: SwarmKey


@dataclass(frozen=True, slots=True)
class Noted:
    """What the host now holds of a key; nothing: it is retracted."""

    delta: Delta


@dataclass(frozen=True, slots=True)
class LeaseWanted:
    seq: int
    key: SwarmKey
    until_s: float
    """How long the asker waits."""
    on_behalf: Member | None


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """The host needs it no more; `fence` as it was granted."""

    key: SwarmKey
    fence: int


@dataclass(frozen=True, slots=True)
class TraceWanted:
    seq: int
    layer: Digest
    until_s: float


@dataclass(frozen=True, slots=True)
class RenewalWanted:
    """To be asked of a tracker that offers it alone."""

    seq: int
    request: bytes
    until_s: float


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Nobody waits for the answer to the question `seq` any more, which may have come."""

    seq: int


@dataclass(frozen=True, slots=True)
class RevocationsMade:
    records: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Told:
    """An answer to an order, or what a start read; dropped where no tracker is there to hear it."""

    message: PrewarmReport | Proof | Trace


@dataclass(frozen=True, slots=True)
class WeAre:
    """Who this host is now, perhaps another one than the tracker was told."""

    me: Member


@dataclass(frozen=True, slots=True)
class Showing:
    """Certificates and secrets are to be shown again: this host's are others than those that the
    line was begun with, or the tracker's certificate counts for nothing any more."""


@dataclass(frozen=True, slots=True)
class Broke:
    """The host failed to carry out an order."""


# --- of a line ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection stands, and our hello names us as `me`."""

    line: int
    me: Member


@dataclass(frozen=True, slots=True)
class Greeted:
    """Both ends have proven that they know the secret."""

    line: int
    tracker: Member


@dataclass(frozen=True, slots=True)
class Received:
    line: int
    message: FromTracker


@dataclass(frozen=True, slots=True)
class Heard:
    """Something came since the last ping; told once for each."""

    line: int


@dataclass(frozen=True, slots=True)
class InventoryTold:
    """The answer to `AskInventory`: everything that this host holds."""

    line: int
    deltas: list[Delta]


@dataclass(frozen=True, slots=True)
class Drained:
    """The answer to `ReportDrained`: most of what was sent has left."""

    line: int


@dataclass(frozen=True, slots=True)
class LineLost:
    """It ended, or never began; told once for every dial, and its last event."""

    line: int
    retry_after_s: float | None = None
    """The delay that the tracker named in place of an answer."""


Question = LeaseWanted | TraceWanted | RenewalWanted
HostEvent = (
    Started
    | Closing
    | JoinWanted
    | LeaveWanted
    | Noted
    | LeaseWanted
    | LeaseEnded
    | TraceWanted
    | RenewalWanted
    | GaveUp
    | RevocationsMade
    | Told
    | WeAre
    | Showing
    | Broke
)
LineEvent = Connected | Greeted | Received | Heard | InventoryTold | Drained | LineLost
Event = HostEvent | LineEvent
