"""With whom one blob is exchanged: the swarm it is in, whom we ask, who asks us."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from p2pdist.exchange.frames import Interest, Retract, WhoElse
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Member
from p2pdist.swarm.core.asking import Asking
from p2pdist.swarm.core.audience import Audience
from p2pdist.swarm.core.blob_bulk import BlobBulk
from p2pdist.swarm.core.circle import Circle
from p2pdist.swarm.core.event_log import BlobLog, Kind
from p2pdist.swarm.core.host_orders import JoinSwarm, LeaveSwarm, Meet, NoteHeld, Send
from p2pdist.swarm.core.host_ports import HostPorts
from p2pdist.swarm.core.inquiry import ENOUGH, Inquiry
from p2pdist.swarm.core.link_state import LinkState


class BlobNeighbours:
    """Asks and hears only those who are in the blob's `Circle`. Pure."""

    def __init__(
        self,
        host: HostPorts,
        digest: Digest,
        bulk: BlobBulk,
        log: BlobLog,
        *,
        chunk_size_bytes: int,
        weigh: Callable[[float], None],
        wake: Callable[[], None],
    ) -> None:
        """`weigh` is called when others may wait for the blob than before, `wake` when there is
        something to ask or to offer."""
        self.asking = Asking(host, digest, bulk, log, wake=wake, look_further=self._look_further)
        self.audience = Audience(host, digest, chunk_size_bytes)
        self.member = False
        """Of the swarm, as the tracker was told."""
        self.asks_proxies = False
        """A link to the proxy that owns the blob is wanted."""
        self._host = host
        self._log = log
        self._digest = digest
        self._weigh = weigh
        self._wake = wake
        self._circle = Circle()
        self._inquiry = Inquiry(host.rng)

    # --- the swarm ------------------------------------------------------------------------------

    def join(self, now_s: float) -> None:
        """Become a member of the swarm, once."""
        if not self.member:
            self.member = True
            self._inquiry.sought(now_s)
            self._host.orders.append(JoinSwarm(self._digest))

    def leave(self) -> None:
        if self.member:
            self.member = False
            self._host.orders.append(LeaveSwarm(self._digest))

    def _look_further(self, known: Sequence[HostId], now_s: float) -> None:
        """Have the tracker name others; who has left the swarm does not come back for that."""
        if self.member:
            self._inquiry.sought(now_s)
            self._host.orders.append(JoinSwarm(self._digest, known))

    def note(self, held: int, *, whole: bool) -> None:
        """Have the tracker name us for the chunks that we hold."""
        self._host.orders.append(NoteHeld(self._digest, held, whole))

    def withdraw(self) -> None:
        """Tell all who listen that nothing more is to be had here."""
        self.audience.retract()

    def take_back(self) -> None:
        """Nothing of it is here any more, for all who were told of it."""
        self.withdraw()
        self.note(0, whole=False)

    # --- who else reads it ----------------------------------------------------------------------

    def named(self) -> None:
        """The tracker named neighbours."""
        self._inquiry.named()

    def tracker_moved(self, now_s: float) -> None:
        self._inquiry.tracker_moved(now_s, up=self._host.tracker_up)

    def next_deadline_s(self) -> float | None:
        """When to ask a proxy for names; a proxy itself reads it from outside instead."""
        if not self.member or self._host.is_proxy or not self.asking.any:
            return None
        return self._inquiry.due_s(tracker_up=self._host.tracker_up)

    def handle_deadline(self, now_s: float) -> None:
        due_s = self.next_deadline_s()
        if due_s is None or now_s < due_s:
            return
        links = self.asking.links()
        proxies = [link for link in links if self._names(link)]
        enough = sum(not link.to_proxy for link in links) >= ENOUGH
        proxy = self._host.rng.choice(proxies) if proxies and not enough else None
        self._inquiry.looked(now_s, proxy)
        if proxy is not None:
            self._log.note(Kind.ASKED_WHO, now_s, host=proxy.host_id)
            self._host.orders.append(Send(proxy, WhoElse(self._digest)))

    def hear_others(self, link: LinkState, members: Sequence[Member], now_s: float) -> None:
        """A proxy answers; who is elsewhere is left to the proxies, as by a tracker."""
        if not self._names(link) or not self._inquiry.answered(link):
            return
        self._log.note(Kind.TOLD_WHO, now_s, host=link.host_id, count=len(members))
        new = [
            member
            for member in members
            if member.place.dc == self._host.place.dc and not self.asking.asks_host(member.host_id)
        ]
        if new and self.member:
            self._host.orders.append(Meet(self._digest, new))

    def _names(self, link: LinkState) -> bool:
        """It is a proxy of our own settings, and knows that question."""
        return link.speaks_who_else and self._host.configured_proxy(link)

    # --- links ----------------------------------------------------------------------------------

    def attach(self, link: LinkState, now_s: float) -> None:
        """Ask `link`; asking again makes a proxy look for the blob again."""
        if not self._host.show_ticket(link, self._digest, now_s) or not self._admit(link, now_s):
            self._log.note(Kind.TURNED_AWAY, now_s, host=link.host_id)
            return
        if self.asking.begin(link, now_s):
            self.audience.read_from(link)
            if self._names(link):
                self._inquiry.linked(now_s)
            self._wake()
        self.asking.say_interest(link)

    def hear_interest(self, link: LinkState, interest: Interest, now_s: float) -> bool:
        """`link` wants the blob: tell what we know and hold. False: it is turned away."""
        if not self._admit(link, now_s):
            self._host.orders.append(Send(link, Retract(self._digest)))
            return False
        self.audience.join(link, interest, now_s)
        self._weigh(now_s)
        self._wake()
        return True

    def lose_interest(self, link: LinkState, now_s: float) -> None:
        self.audience.leave(link, now_s)
        self._weigh(now_s)
        self._wake()

    def used(self, link: LinkState, now_s: float) -> None:
        """It gave us a chunk, or asked for some."""
        self._circle.used(link.host_id, now_s)

    def asked(self, link: LinkState, bits: int, now_s: float) -> None:
        """`link` is being sent `bits`, which it asked for."""
        self.used(link, now_s)
        self.audience.asked(link.host_id, bits, now_s)

    def sent(self, link: LinkState, bits: int, unsent: int, now_s: float) -> None:
        """That is over: `bits` went out, `unsent` did not."""
        self.audience.sent(link.host_id, bits, unsent, now_s)
        self._wake()

    def link_down(self, link: LinkState, now_s: float, *, gone: bool) -> None:
        """`gone`: for all we know its host is, too; else the link alone ended, of no use."""
        self._circle.left(link.host_id)
        if self.audience.link_down(link, now_s, gone=gone):
            self._weigh(now_s)
            self._wake()
        self.asking.link_down(link, now_s)

    def release(self, now_s: float) -> None:
        """They need not tell us of this blob any more."""
        self.audience.read_no_more(now_s)
        self.asking.release(now_s)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        self.asking.validate()
        self.audience.validate()
        links = () if self._host.is_proxy else (*self.audience.links(), *self.asking.links())
        self._circle.validate(link.host_id for link in links if not link.to_proxy)

    def _admit(self, link: LinkState, now_s: float) -> bool:
        """A peer may have to wait until another one is of no use; a proxy and its own never do."""
        if link.to_proxy or self._host.is_proxy:
            return True
        distance = self._host.place.distance(link.member.place)
        verdict = self._circle.admit(link.host_id, distance, now_s)
        if verdict.instead_of is not None:
            self._part(verdict.instead_of, now_s)
        return verdict.admitted

    def _part(self, host: HostId, now_s: float) -> None:
        """Exchange nothing more of this blob with a neighbour."""
        self._log.note(Kind.PARTED, now_s, host=host)
        self.asking.part(host, now_s)
        if (link := self.audience.link_of(host)) is not None:
            self._host.orders.append(Send(link, Retract(self._digest)))
            self.lose_interest(link, now_s)
