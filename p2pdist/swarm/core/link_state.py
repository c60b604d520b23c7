"""What the cores of a host know of one live link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from p2pdist.model.bucket import TokenBucket
from p2pdist.model.ids import HostId
from p2pdist.model.members import Member, Role
from p2pdist.swarm.core.flow import Flows
from p2pdist.swarm.core.tickets import LinkTickets


@dataclass(eq=False, slots=True, weakref_slot=True)
class LinkState:
    """Made when a link comes up, and known by its identity: two links to one host, of dials that
    crossed, are two states."""

    member: Member
    """Who is at the other end, as its handshake proved."""
    received_bytes: Callable[[], int]
    """Payload that came over it until now."""
    speaks_demand: bool = False
    """It knows what a demand reader is (`handshake.DEMAND`)."""
    speaks_who_else: bool = False
    """It names readers to each other, if it is a proxy (`handshake.WHO_ELSE`)."""
    tickets: LinkTickets | None = None
    """None: its other end is not proved by a certificate, or knows none (`handshake.TICKETS`)."""
    closed: bool = False
    """Nothing more can be said on it."""
    closed_why: str = ""
    flows: Flows = field(init=False)
    """How fast it brings what it is asked for."""
    questions: TokenBucket | None = None
    """How often it may ask for names; None: it did not yet."""

    def __post_init__(self) -> None:
        self.flows = Flows(self.received_bytes())

    @property
    def host_id(self) -> HostId:
        return self.member.host_id

    def hear(self, now_s: float) -> None:
        """Tell the flows what came until now."""
        self.flows.heard(self.received_bytes(), now_s)

    @property
    def to_proxy(self) -> bool:
        return self.member.role is Role.PROXY
