"""What the cores of one host's blobs share."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Protocol

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import Request
from p2pdist.model.ids import Digest, MapId, RequestId
from p2pdist.model.members import Place
from p2pdist.swarm.core.bulk import BulkTraffic
from p2pdist.swarm.core.event_log import EventLog
from p2pdist.swarm.core.host_orders import Order
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.uplink import Uplink


class HostPorts(Protocol):
    """The core that owns them; pure, like them."""

    place: Place
    is_proxy: bool
    rng: Random
    uplink: Uplink
    bulk: BulkTraffic
    events: EventLog
    """What happened to its blobs."""
    tracker_up: bool
    """A tracker is there to name neighbours."""
    revocations: int
    """Maps of blobs in motion that were taken back."""
    orders: deque[Order]
    """All of them add theirs here, in the order in which they are to be carried out."""

    def wake(self, digest: Digest) -> None:
        """Have the blob's `act` called, once for all that happens at a time."""
        ...

    def new_request_id(self) -> RequestId:
        """One that no open request of this host has."""
        ...

    def ask(self, link: LinkState, request: Request, chunks: Sequence[tuple[int, int]]) -> None:
        """Send `request`, whose answer is the chunks (index, bytes) of `chunks`."""
        ...

    def take_back(self, link: LinkState, request_id: RequestId) -> None:
        """Cancel a request."""
        ...

    def punish(self, link: LinkState, fault: PeerFault, now_s: float) -> None:
        """Count a wrong word, or wrong bytes, against the host at the other end."""
        ...

    def revoked(self, map_id: MapId) -> bool:
        """A map is never to be followed."""
        ...

    def route_map(self, map_id: MapId, digest: Digest) -> None:
        """What is said of this map is about that blob."""
        ...

    def show_ticket(self, link: LinkState, digest: Digest, now_s: float) -> bool:
        """Have the other end see that this host may have the blob; False: it cannot."""
        ...

    def configured_proxy(self, link: LinkState) -> bool:
        """The other end is one of the proxies that this host was told to use."""
        ...
