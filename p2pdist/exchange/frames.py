"""What two nodes say to each other: the records that the codec turns into bytes and back.

Of content, nodes speak by digests, map ids and chunk numbers only; no path, URL or host name
crosses here. Where hosts are named, it is by ids and IP addresses (`member_wire`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from p2pdist.model.ids import Digest, MapId, RequestId, TagKey
from p2pdist.model.members import Member

# A slice of 64 KiB takes 5 ms on 100 Mbit/s: that is how long a control frame may have to wait.
SLICE_BYTES_MAX: Final = 64 * 1024
SMALL_BYTES_MAX: Final = 4 << 20
OFFER_RANGES_MAX: Final = 512
RUN_CHUNKS_MAX: Final = 64
MEDIA_TYPE_BYTES_MAX: Final = 255


class RefuseReason(enum.IntEnum):
    UNKNOWN = 1
    BUSY = 2
    GONE = 3
    BANNED = 4


@dataclass(frozen=True, slots=True)
class Interest:
    """I want this blob: send its map and your offers as they come.

    `bulk`: nobody waits for it here; `hungry`: you would bring more than all peers do; `demand`: I
    ask for the parts that I need, promise me nothing (only to who knows that, see
    `handshake.DEMAND`). Said anew when that changes.
    """

    digest: Digest
    bulk: bool = False
    hungry: bool = False
    demand: bool = False


@dataclass(frozen=True, slots=True)
class Uninterest:
    digest: Digest


@dataclass(frozen=True, slots=True)
class MapRecord:
    """A signed statement about a chunk map, as its proxy made it."""

    record: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """I can serve these chunks too: (first, count) pairs."""

    digest: Digest
    map_id: MapId
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Retract:
    digest: Digest


@dataclass(frozen=True, slots=True)
class Working:
    """A proxy to its readers, once a second: bytes of this blob are coming in from outside, though
    no chunk may be whole yet. It keeps readers from going there themselves."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Request:
    """Send me this run; the answer is `Data` or `Refuse` with the same id.

    `bulk`: send first what others wait for.
    """

    request_id: RequestId
    digest: Digest
    map_id: MapId
    first: int
    count: int
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Refuse:
    request_id: RequestId
    reason: RefuseReason


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a chunk at `offset` within it; a slice may surface in several parts."""

    request_id: RequestId
    chunk: int
    offset: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class GetSmall:
    """Send me this whole small blob; the answer is `Small` and `Data`, or `Refuse`."""

    request_id: RequestId
    digest: Digest


@dataclass(frozen=True, slots=True)
class Small:
    request_id: RequestId
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class GetStatement:
    request_id: RequestId
    key: TagKey


@dataclass(frozen=True, slots=True)
class StatementIs:
    request_id: RequestId
    record: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    nonce: int


@dataclass(frozen=True, slots=True)
class LinkUse:
    """Whether I have a use for this link. Who hears `needed=False` and has none either closes it;
    else it answers `needed=True`, and the link stays. Who said it says nothing else until then."""

    needed: bool


@dataclass(frozen=True, slots=True)
class WhoElse:
    """To a proxy: no tracker names anybody, who else reads this blob? The answer is `Others`. Only
    to who knows it, see `handshake.WHO_ELSE`."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Others:
    """Some peers that read this blob or have some of it, within the bounds of `member_wire`; none,
    where the proxy knows of none or is asked too often."""

    digest: Digest
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Ticket:
    """I may have blobs of one repository: a `statements.Ticket` as its proxy made it. Said before
    the first `Interest` in one of them; only on a link that is sealed, and to who knows it, see
    `handshake.TICKETS`."""

    record: bytes


Frame = (
    Interest
    | Uninterest
    | MapRecord
    | Offer
    | Retract
    | Working
    | Request
    | Cancel
    | Refuse
    | Data
    | GetSmall
    | Small
    | GetStatement
    | StatementIs
    | Ping
    | Pong
    | LinkUse
    | WhoElse
    | Others
    | Ticket
)
