"""With whom one blob is exchanged: the swarm it is in, whom we ask, who asks us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pdist.exchange.frames import Interest, Retract
from p2pdist.exchange.link import Link
from p2pdist.model.control import digest_key
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Role
from p2pdist.store.blob import Blob
from p2pdist.swarm.asking import Asking
from p2pdist.swarm.audience import Audience
from p2pdist.swarm.bulk import BlobBulk
from p2pdist.swarm.core.circle import Circle
from p2pdist.swarm.intake import Arrival
from p2pdist.swarm.ports import NodePorts


class BlobNeighbours:
    """Carries out a `Circle`: asks and hears only those who are in it."""

    def __init__(
        self,
        node: NodePorts,
        digest: Digest,
        bulk: BlobBulk,
        *,
        chunk_size_bytes: int,
        take: Callable[[Arrival], None],
        weigh: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        """`take` has chunks that come checked. `weigh` is called when others may wait for the blob
        than before, `wake` when there is something to ask or to offer."""
        self.asking = Asking(node, digest, bulk, take=take, wake=wake)
        self.audience = Audience(
            digest, node.place, chunk_size_bytes, node.uplink, is_proxy=node.is_proxy
        )
        self.member = False
        """Of the swarm, as the tracker was told."""
        self.asks_proxies = False
        """A link to the proxy that owns the blob is wanted."""
        self._node = node
        self._digest = digest
        self._weigh = weigh
        self._wake = wake
        self._circle = Circle()
        self._loop = asyncio.get_running_loop()

    @property
    def proxy_linked(self) -> bool:
        """A proxy is there that may bring what the swarm lacks."""
        return self.asking.proxy_linked

    def wishes(self) -> dict[HostId, Interest]:
        """What those who listen said last."""
        return self.audience.wishes()

    def asks(self, link: Link) -> bool:
        """We read the blob from `link`."""
        return self.asking.asks(link)

    # --- the swarm ------------------------------------------------------------------------------

    def join(self) -> None:
        """Become a member of the swarm, once."""
        if not self.member:
            self.member = True
            self._node.tracker.join(digest_key(self._digest), member=True)

    def leave(self) -> None:
        if self.member:
            self.member = False
            self._node.tracker.leave(digest_key(self._digest))

    def note(self, blob: Blob | None) -> None:
        """Have the tracker name us for what we hold."""
        if blob is not None:
            held = len(blob.verified)
            self._node.tracker.note(digest_key(self._digest), held, blob.complete)

    def withdraw(self) -> None:
        """Tell all who listen that nothing more is to be had here."""
        self.audience.retract()

    def take_back(self) -> None:
        """Nothing of it is here any more, for all who were told of it."""
        self.withdraw()
        self._node.tracker.note(digest_key(self._digest), 0, False)

    # --- links ----------------------------------------------------------------------------------

    def attach(self, link: Link) -> None:
        """Ask `link`; asking again makes a proxy look for the blob again."""
        if not self._admit(link):
            return
        if self.asking.begin(link):
            self.audience.read_from(link)
            self._wake()
        self.asking.say_interest(link)

    def hear_interest(self, link: Link, interest: Interest) -> bool:
        """`link` wants the blob: tell what we know and hold. False: it is turned away."""
        if not self._admit(link):
            link.send(Retract(self._digest))
            return False
        self.audience.join(link, interest)
        self._weigh()
        self._wake()
        return True

    def lose_interest(self, link: Link) -> None:
        self.audience.leave(link)
        self._weigh()
        self._wake()

    def used(self, link: Link) -> None:
        """It gave us a chunk, or asked for some."""
        self._circle.used(link.session.member.host_id, self._loop.time())

    def refers(self, link: Link, bits: int) -> bool:
        """`link` is to get elsewhere what it asks for."""
        return self.audience.refers(link.session.member.host_id, bits)

    def asked(self, link: Link, bits: int) -> None:
        """`link` is being sent `bits`, which it asked for."""
        self.used(link)
        self.audience.asked(link.session.member.host_id, bits)

    def sent(self, link: Link, bits: int, unsent: int) -> None:
        """That is over: `bits` went out, `unsent` did not."""
        self.audience.sent(link.session.member.host_id, bits, unsent)
        self._wake()

    def link_down(self, link: Link, *, gone: bool) -> None:
        """`gone`: for all we know its host is, too; else the link alone ended, of no use."""
        self._circle.left(link.session.member.host_id)
        if self.audience.link_down(link, gone=gone):
            self._weigh()
            self._wake()
        self.asking.link_down(link)

    def release(self) -> None:
        """They need not tell us of this blob any more."""
        self.audience.read_no_more()
        self.asking.release()

    def _admit(self, link: Link) -> bool:
        """A peer may have to wait until another one is of no use; a proxy and its own never do."""
        member = link.session.member
        if member.role is Role.PROXY or self._node.is_proxy:
            return True
        distance = self._node.place.distance(member.place)
        verdict = self._circle.admit(member.host_id, distance, self._loop.time())
        if verdict.instead_of is not None:
            self._part(verdict.instead_of)
        return verdict.admitted

    def _part(self, host: HostId) -> None:
        """Exchange nothing more of this blob with a neighbour."""
        self.asking.part(host)
        if (link := self.audience.link_of(host)) is not None:
            link.send(Retract(self._digest))
            self.lose_interest(link)
