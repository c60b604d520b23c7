"""What the core of a host's control connection has its shell do, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from p2pdist.model.control import (
    Handout,
    LeaseAnswer,
    Prewarm,
    PrewarmEnd,
    Prove,
    Renewed,
    ToTracker,
)
from p2pdist.model.control_wire import CloseCode

PrewarmOrder = Prewarm | PrewarmEnd | Prove

# --- to a line, by its number; of one that has ended they mean nothing ----------------------------


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to `url` and shake hands; `line` is the number of the try, never used twice."""

    line: int
    url: str


@dataclass(frozen=True, slots=True)
class Send:
    line: int
    message: ToTracker


@dataclass(frozen=True, slots=True)
class SendDescription:
    """What is said first: only the host knows what it is now."""

    line: int


@dataclass(frozen=True, slots=True)
class SendNumbers:
    """The heartbeat, with the host's numbers of this moment."""

    line: int


@dataclass(frozen=True, slots=True)
class Ping:
    line: int


@dataclass(frozen=True, slots=True)
class AskInventory:
    """Answer with `InventoryTold`."""

    line: int


@dataclass(frozen=True, slots=True)
class ReportDrained:
    """Answer with `Drained` once most of what was sent has left."""

    line: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """End it behind what was sent; `LineLost` follows."""

    line: int
    code: CloseCode


@dataclass(frozen=True, slots=True)
class Abort:
    """End it, or the dial, without a word; `LineLost` follows."""

    line: int
    why: str


# --- to the host ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrackerUp:
    refused: str = ""
    """What it says of addresses of this host that it tells nobody."""
    unnamed: bool = False
    """It tells nobody of this host at all."""


@dataclass(frozen=True, slots=True)
class TrackerDown:
    pass


@dataclass(frozen=True, slots=True)
class TakeHandout:
    handout: Handout


@dataclass(frozen=True, slots=True)
class TakeRevoked:
    """As the tracker sent them: the host checks each against its own keys."""

    records: list[bytes]


@dataclass(frozen=True, slots=True)
class TakeRevokedHosts:
    """As the tracker sent them: the host checks each against the CAs that it believes."""

    records: list[bytes]


@dataclass(frozen=True, slots=True)
class TakePrewarm:
    order: PrewarmOrder


@dataclass(frozen=True, slots=True)
class AnswerLease:
    """The question `seq` is over; None: no tracker answered in time."""

    seq: int
    answer: LeaseAnswer | None


@dataclass(frozen=True, slots=True)
class AnswerTrace:
    """The question `seq` is over; no units: nobody knows, or no tracker answered in time."""

    seq: int
    units: list[int]


@dataclass(frozen=True, slots=True)
class AnswerRenewal:
    """The question `seq` is over; None: no tracker answered in time."""

    seq: int
    answer: Renewed | None


Writing = Send | SendDescription | SendNumbers | Ping | ReportDrained
OrderOfLine = Writing | AskInventory | HangUp | Abort
HostOrder = (
    TrackerUp
    | TrackerDown
    | TakeHandout
    | TakeRevoked
    | TakeRevokedHosts
    | TakePrewarm
    | AnswerLease
    | AnswerTrace
    | AnswerRenewal
)
Order = Dial | OrderOfLine | HostOrder
