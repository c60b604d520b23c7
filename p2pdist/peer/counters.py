"""Plain counters of one node; the metrics collector and the status page read them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from p2pdist.model.members import Distance, Member, Place, Role

RACK: Final = "rack"
DC: Final = "dc"
PROXY: Final = "proxy"
WAN: Final = "wan"
UPSTREAM: Final = "upstream"
SOURCES: Final = (RACK, DC, PROXY, WAN, UPSTREAM)
RECEIVERS: Final = ("peer", PROXY, WAN)


@dataclass(slots=True)
class NodeCounters:
    received: Counter[str] = field(default_factory=Counter)
    """Verified payload bytes by source."""
    sent: Counter[str] = field(default_factory=Counter)
    """Payload bytes by receiver: `peer` and `proxy` of this datacenter, `wan`."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Wrong chunks and statements by reason."""
    wasted_bytes: int = 0
    """Payload that came in and was not used: wrong, late or twice."""
    fallbacks: Counter[str] = field(default_factory=Counter)
    """Bodies that ended from a source outside of the swarm, by source."""
    revocations: int = 0
    blob_requests: Counter[str] = field(default_factory=Counter)
    """Blob and manifest requests by where they were answered from."""


def source_of(member: Member, here: Place) -> str:
    """The label of bytes that `member` sends to a host at `here`."""
    distance = here.distance(member.place)
    if distance is Distance.ELSEWHERE:
        return WAN
    if member.role is Role.PROXY:
        return PROXY
    return RACK if distance is Distance.RACK else DC


def receiver_of(member: Member, here: Place) -> str:
    """The label of bytes that go from a host at `here` to `member`."""
    if here.distance(member.place) is Distance.ELSEWHERE:
        return WAN
    return PROXY if member.role is Role.PROXY else "peer"
