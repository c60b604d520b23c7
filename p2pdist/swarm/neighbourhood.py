"""Links to other hosts: one per host, dialled once, refused to the banned, left when of no use."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final

from p2pdist.errors import LinkRefused, NoIdentity, PeerFault, WrongSecret
from p2pdist.exchange.dialling import STAGGER_S
from p2pdist.exchange.frames import LinkUse
from p2pdist.exchange.link import IDLE, Link
from p2pdist.exchange.transport import ExchangeTransport
from p2pdist.model.handshake import LINK_USE, NO_IDENTITY
from p2pdist.model.health import Reason
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Role
from p2pdist.process import logs
from p2pdist.process.health import Health
from p2pdist.process.tasks import TaskOwner
from p2pdist.swarm.core.refusals import RefusalBook
from p2pdist.swarm.core.trust import TrustBook

log = logging.getLogger(__name__)

# An address that does not answer the dial may cost a pull this much (fault matrix, section 7: the
# swarm has other neighbours meanwhile).
DIAL_TIMEOUT_S: Final = 1.5
DIALS_MAX: Final = 16


class Neighbourhood:
    """Knows the live link to each host, and makes it where there is none."""

    def __init__(
        self,
        transport: ExchangeTransport,
        tasks: TaskOwner,
        trust: TrustBook,
        refusals: RefusalBook,
        health: Health,
    ) -> None:
        self.links: dict[HostId, Link] = {}
        self.refused_by: Counter[str] = Counter()
        """Links that others refused us, by reason."""
        self._transport = transport
        self._tasks = tasks
        self._trust = trust
        self._refusals = refusals
        self._health = health
        self._dialling: dict[HostId, asyncio.Task[Link | None]] = {}
        self._slots = asyncio.Semaphore(DIALS_MAX)
        self._aside: dict[HostId, tuple[Link, asyncio.Event]] = {}
        """Links that we said we have no use for; the event: the other end has decided."""

    def add(self, link: Link) -> bool:
        """Take in a link that came up; False: its host is banned and the link was closed."""
        member = link.session.member
        if self._trust.banned(member.host_id, self._now_s()):
            link.close("banned")
            return False
        self.links[member.host_id] = link
        return True

    def remove(self, link: Link) -> bool:
        """Forget a link that went down; False: another one had taken its place."""
        host = link.session.member.host_id
        if self._take_back(link):
            return host not in self.links
        if self.links.get(host) is not link:
            return False
        del self.links[host]
        return True

    def peers(self, dc: str) -> list[Link]:
        """Live links to peers of one datacenter."""
        members = ((link, link.session.member) for link in self.links.values())
        return [link for link, m in members if m.role is Role.PEER and m.place.dc == dc]

    # --- links of no use ------------------------------------------------------------------------

    def set_aside(self, link: Link) -> None:
        """End `link` if the other end has no use for it either.

        Until that has decided, the link counts as none, and nothing is said on it: what we said
        could cross the other end's closing, and what crosses ours brings the link back.
        """
        if not link.session.features & LINK_USE:  # an older version: what crosses is lost
            link.close(IDLE)
            return
        host = link.session.member.host_id
        del self.links[host]
        self._aside[host] = link, asyncio.Event()
        link.send(LinkUse(needed=False))

    def is_aside(self, link: Link) -> bool:
        return self._aside.get(link.session.member.host_id, (None,))[0] is link

    def bring_back(self, link: Link) -> bool:
        """The other end has a use for `link`; False: it was not set aside."""
        if not self._take_back(link):
            return False
        self.links.setdefault(link.session.member.host_id, link)
        return True

    def _take_back(self, link: Link) -> bool:
        host = link.session.member.host_id
        aside, decided = self._aside.get(host, (None, None))
        if aside is not link or decided is None:
            return False
        del self._aside[host]
        decided.set()
        return True

    async def _decided(self, host: HostId) -> None:
        """Return once a link to `host` that was set aside is gone or back."""
        link, decided = self._aside.get(host, (None, None))
        if link is None or decided is None:
            return
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                await decided.wait()
        except TimeoutError:
            link.close(IDLE)

    # --- dialling -------------------------------------------------------------------------------

    async def reach(self, member: Member) -> Link | None:
        """Return the link to `member`, dialling it if need be; None if it cannot be had."""
        return await self.reach_at(member.host_id, member.addresses)

    async def reach_at(self, host: HostId, addresses: Sequence[Address]) -> Link | None:
        """Like `reach`, for a host that is known by its id and addresses alone."""
        if (link := self.links.get(host)) is not None:
            return link
        now_s = self._now_s()
        if self._trust.banned(host, now_s) or self._refusals.waits(host, now_s) or not addresses:
            return None
        task = self._dialling.get(host)
        if task is None:
            task = self._tasks.start(self._dial(host, addresses), name=f"dial {host[:8]}")
            self._dialling[host] = task
            task.add_done_callback(lambda _: self._dialling.pop(host, None))
        link = await asyncio.shield(task)
        # A dial of theirs may have taken its place since.
        return self.links.get(host, link)

    async def dial_at(self, address: Address) -> Link | None:
        """Return a link to whoever listens there; None if there is none to be had."""
        return await self._dial_one(None, address)

    async def _dial(self, host: HostId, addresses: Sequence[Address]) -> Link | None:
        """Dial all addresses of a host, each a moment after the one before; the first one wins."""
        await self._decided(host)
        if (kept := self.links.get(host)) is not None:
            return kept
        async with self._slots:
            attempts: set[asyncio.Task[Link | None]] = set()
            for address in addresses:
                dial = self._dial_one(host, address)
                attempts.add(self._tasks.start(dial, name=f"dial {address}"))
                if (link := await _first_link(attempts, STAGGER_S)) is not None:
                    break
            else:
                link = await _first_link(attempts, None)
            for attempt in attempts:
                attempt.cancel()
        return self.links.get(host, link)

    async def _dial_one(self, host: HostId | None, address: Address) -> Link | None:
        try:
            link = await self._transport.dial(address, timeout_s=DIAL_TIMEOUT_S, expected=host)
        except LinkRefused as refusal:
            self._refused(host, address, refusal)
            if refusal.reason == NO_IDENTITY:
                detail = f"the host at {address} takes hosts with a certificate only"
                self._health.happened(Reason.IDENTITY_REFUSED, str(address), detail)
        except (OSError, PeerFault, TimeoutError) as error:
            text = str(error) or type(error).__name__
            logs.event(log, logging.DEBUG, "dial.failed", address=str(address), error=text)
            if isinstance(error, WrongSecret):
                detail = f"the host at {address} has another secret"
                self._health.happened(Reason.WRONG_SECRET, str(address), detail)
            elif isinstance(error, NoIdentity):
                self._health.happened(Reason.IDENTITY_REFUSED, str(address), f"{address}: {text}")
        else:
            for mended in (Reason.WRONG_SECRET, Reason.IDENTITY_REFUSED):
                self._health.mended(mended, str(address))
            return link
        return None

    def _refused(self, host: HostId | None, address: Address, refusal: LinkRefused) -> None:
        """Leave `host` alone for as long as it said; the swarm has other neighbours."""
        self.refused_by[refusal.reason] += 1
        now_s = self._now_s()
        if host is not None and not self._refusals.waits(host, now_s):
            self._refusals.refused(host, refusal.retry_s, now_s)
        logs.event(
            log,
            logging.INFO,
            "link.refused",
            address=str(address),
            reason=refusal.reason,
            retry_s=refusal.retry_s,
        )

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


async def _first_link(
    attempts: set[asyncio.Task[Link | None]], timeout_s: float | None
) -> Link | None:
    """Return the first link that comes up; None when the time is over or no attempt is left.

    Attempts that failed are taken out of the set.
    """
    loop = asyncio.get_running_loop()
    until_s = None if timeout_s is None else loop.time() + timeout_s
    while attempts:
        left_s = None if until_s is None else max(0.0, until_s - loop.time())
        done, _ = await asyncio.wait(attempts, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
        for attempt in done:
            attempts.discard(attempt)
            if (link := attempt.result()) is not None:
                return link
    return None
