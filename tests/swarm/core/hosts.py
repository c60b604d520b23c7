"""A host's core and links without a wire: what is ordered to be said is only remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from p2pdist.exchange.frames import Cancel, Frame
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Member, Place, Role
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.host_orders import AskRun, Order, Send, SendAll, TakeBack
from p2pdist.swarm.core.link_state import LinkState

PLACE = Place("dc1", "")


def link_to(letter: str, role: Role = Role.PEER, place: Place = PLACE) -> LinkState:
    """A link to the host whose id is that letter, 32 times."""
    return LinkState(Member(HostId(letter * 32), role, place), lambda: 0)


@dataclass
class Orders:
    """What a core ordered until now."""

    core: HostCore
    other: list[Order] = field(default_factory=list)
    """Beside what is said over links."""
    _said: dict[LinkState, list[Frame]] = field(default_factory=dict)

    def _gather(self) -> None:
        while self.core.orders:
            match self.core.orders.popleft():
                case Send(link, frame):
                    self._add(link, frame)
                case SendAll(links, frame):
                    for link in links:
                        self._add(link, frame)
                case AskRun(link, request):
                    self._add(link, request)
                case TakeBack(link, request_id):
                    self._add(link, Cancel(request_id))
                case order:
                    self.other.append(order)

    def _add(self, link: LinkState, frame: Frame) -> None:
        self._said.setdefault(link, []).append(frame)

    def take(self, link: LinkState) -> list[Frame]:
        """What was said on `link` since it was taken last."""
        self._gather()
        return self._said.pop(link, [])

    def said(self, link: LinkState, kind: type[Frame]) -> list[Frame]:
        self._gather()
        return [frame for frame in self._said.get(link, []) if isinstance(frame, kind)]


def host(
    *,
    is_proxy: bool = False,
    proxies: set[HostId] | None = None,
    servable: Callable[[Digest], bool] = lambda _: True,
) -> HostCore:
    """`proxies`: those of its settings."""
    known = proxies if proxies is not None else set[HostId]()
    return HostCore(
        PLACE,
        is_proxy=is_proxy,
        rng=Random(1),
        proxy_of_ours=known.__contains__,
        revoked=lambda map_id: False,
        servable=servable,
    )
