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
STARVED: Final = "starved"
FIRST_BYTE: Final = "first_byte"
SMALL: Final = "small"
FAILED: Final = "failed"
FULL: Final = "store_full"
OTHER_SIZE: Final = "other_size"
BY_CALLER: Final = "by_caller"
REFUSED: Final = "links_refused"
NO_LINK: Final = "no_link"
AWAY: Final = "proxy_away"
FALLBACK_REASONS: Final = (
    STARVED, FIRST_BYTE, SMALL, FAILED, FULL, OTHER_SIZE, BY_CALLER, REFUSED, NO_LINK, AWAY,
)  # fmt: skip
"""Why bytes came from outside of the swarm: a body stood still; did not begin; one chunk, a config
or a manifest was not found; a map failed; the disk is full; the manifest claims another size than
the swarm's map; its registry decides by the caller, and it is small or this host got no ticket;
with every proxy refusing links; with a proxy that answers `/v2/` and has no link; with no proxy at
all."""
SAID_OTHERWISE: Final = frozenset((FULL, BY_CALLER, REFUSED, AWAY))
"""Those that have an entry of their own in `/readyz`, or nobody to blame."""
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
    fallback_reasons: Counter[str] = field(default_factory=Counter)
    """The same bytes by reason, one of `FALLBACK_REASONS`."""
    blob_requests: Counter[str] = field(default_factory=Counter)
    """Blob and manifest requests by where they were answered from."""


def fallback_reason(
    reason: str, *, by_proxy: bool, has_proxies: bool, reachable: bool, all_refuse: bool
) -> str:
    """What `reason`, of the reader, comes down to for a host whose links to proxies are thus."""
    if reason in (FULL, BY_CALLER) or not has_proxies or (reachable and not all_refuse):
        return reason
    if all_refuse:
        return REFUSED
    return NO_LINK if by_proxy else AWAY


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
