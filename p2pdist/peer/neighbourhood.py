"""Links to other hosts: one per host, dialled once, kept to the proxies, refused to the banned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Final
from urllib.parse import urlsplit

from p2pdist.errors import LinkRefused, P2pdistError, PeerFault
from p2pdist.exchange.link import Link
from p2pdist.exchange.transport import ExchangeTransport
from p2pdist.model.backoff import Backoff
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Role
from p2pdist.model.rendezvous import ranked
from p2pdist.peer.core.trust import TrustBook
from p2pdist.runtime import logs
from p2pdist.runtime.proxy_client import ProxyClient
from p2pdist.runtime.tasks import TaskOwner

log = logging.getLogger(__name__)

# An address that does not answer the dial may cost a pull this much (fault matrix, section 7: the
# swarm has other neighbours meanwhile).
DIAL_TIMEOUT_S: Final = 1.5
# What an address that does not answer may cost, where the host has another one (fault matrix 7).
DIAL_STAGGER_S: Final = 0.15
DIALS_MAX: Final = 16
PROXY_RETRY_FIRST_S: Final = 0.2
PROXY_RETRY_MAX_S: Final = 5.0


class Neighbourhood:
    """Knows the live link to each host, and makes it where there is none."""

    def __init__(
        self,
        transport: ExchangeTransport,
        tasks: TaskOwner,
        trust: TrustBook,
        rng: Random,
        *,
        on_proxy_up: Callable[[Link], None],
    ) -> None:
        self.links: dict[HostId, Link] = {}
        self._transport = transport
        self._tasks = tasks
        self._trust = trust
        self._rng = rng
        self._on_proxy_up = on_proxy_up
        self._dialling: dict[HostId, asyncio.Task[Link | None]] = {}
        self._slots = asyncio.Semaphore(DIALS_MAX)
        # The proxies that this host was configured with, once each was reached.
        self._kept: dict[HostId, ProxyClient] = {}

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
        if self.links.get(host) is not link:
            return False
        del self.links[host]
        return True

    def proxies(self, key: str) -> list[Link]:
        """Live links to the configured proxies; the first owns `key`, each next one takes over.

        Others that dialled us are no source of ours.
        """
        return [self.links[host] for host in self._live(key)]

    def clients(self, key: str, configured: Sequence[ProxyClient]) -> list[ProxyClient]:
        """`configured` in the order of `proxies`, those without a live link last."""
        live = [self._kept[host] for host in self._live(key)]
        return [*live, *(client for client in configured if client not in live)]

    def links_of(self, client: ProxyClient) -> list[Link]:
        """The live link to a configured proxy, if there is one."""
        kept = [host for host, proxy in self._kept.items() if proxy is client]
        return [self.links[host] for host in kept if host in self.links]

    def _live(self, key: str) -> list[HostId]:
        return [HostId(h) for h in ranked(key, [h for h in self._kept if h in self.links])]

    def peers(self, dc: str) -> list[Link]:
        """Live links to peers of one datacenter."""
        members = ((link, link.session.member) for link in self.links.values())
        return [link for link, m in members if m.role is Role.PEER and m.place.dc == dc]

    async def reach(self, member: Member) -> Link | None:
        """Return the link to `member`, dialling it if need be; None if it cannot be had."""
        host = member.host_id
        if (link := self.links.get(host)) is not None:
            return link
        if self._trust.banned(host, self._now_s()) or not member.addresses:
            return None
        task = self._dialling.get(host)
        if task is None:
            task = self._tasks.start(self._dial(member), name=f"dial {host[:8]}")
            self._dialling[host] = task
            task.add_done_callback(lambda _: self._dialling.pop(host, None))
        return await asyncio.shield(task)

    async def _dial(self, member: Member) -> Link | None:
        """Dial all addresses of a host, each a moment after the one before; the first one wins."""
        async with self._slots:
            attempts: set[asyncio.Task[Link | None]] = set()
            for address in member.addresses:
                attempts.add(self._tasks.start(self._dial_one(address), name=f"dial {address}"))
                if (link := await _first_link(attempts, DIAL_STAGGER_S)) is not None:
                    break
            else:
                link = await _first_link(attempts, None)
            for attempt in attempts:
                attempt.cancel()
        return self.links.get(member.host_id, link)

    async def _dial_one(self, address: Address) -> Link | None:
        try:
            return await self._transport.dial(address, timeout_s=DIAL_TIMEOUT_S)
        except (OSError, PeerFault, LinkRefused, TimeoutError) as error:
            text = str(error) or type(error).__name__
            logs.event(log, logging.DEBUG, "dial.failed", address=str(address), error=text)
            return None

    def keep_proxy(self, client: ProxyClient) -> None:
        """Hold a link to this proxy for as long as the daemon runs."""
        self._tasks.start(self._keep_proxy(client), name=f"proxy {client.base_url}")

    async def _keep_proxy(self, client: ProxyClient) -> None:
        backoff = Backoff(first_s=PROXY_RETRY_FIRST_S, max_s=PROXY_RETRY_MAX_S, rng=self._rng)
        host = urlsplit(client.base_url).hostname or ""
        while True:
            try:
                port = await client.exchange_port(timeout_s=DIAL_TIMEOUT_S)
                link = await self._transport.dial(Address(host, port), timeout_s=DIAL_TIMEOUT_S)
            except (OSError, P2pdistError, TimeoutError) as error:
                text = str(error) or type(error).__name__
                logs.event(log, logging.DEBUG, "proxy.away", url=client.base_url, error=text)
            else:
                backoff.reset()
                host_id = link.session.member.host_id
                self._kept[host_id] = client
                live = self.links.get(host_id, link)
                self._on_proxy_up(live)
                await live.wait_closed()
            await asyncio.sleep(backoff.next_delay_s())

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
