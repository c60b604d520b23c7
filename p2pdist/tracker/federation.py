"""The trackers of other datacenters, asked for the leases that are theirs to grant.

To each of them this tracker is a host that asks on behalf of its own proxies; so leases are
renewed, and given back with a lost connection, by the same rules as everybody's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from random import Random
from typing import Final
from urllib.parse import urlsplit

from p2pdist.control.client import TrackerClient
from p2pdist.model.cluster_secrets import SecretSource
from p2pdist.model.control import Delta, Handout, LeaseAnswer, SwarmKey
from p2pdist.model.members import Member
from p2pdist.model.proved_addresses import plain
from p2pdist.process.health import Health
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.tasks import TaskOwner
from p2pdist.tracker.core.grants import Forward, ForwardEnd

# A proxy waits 1 s for the answer; without one we still have to decide ourselves in that time.
ANSWER_S: Final = 0.5
RESOLVE_EVERY_S: Final = 60.0


class Federation:
    """One connection to each other tracker; `changed` is told which datacenters can be asked."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        secret: SecretSource,
        me: Member,
        rng: Random,
        health: Health,
        identity: IdentityHolder | None = None,
        changed: Callable[[frozenset[str]], None],
        answered: Callable[[Forward, LeaseAnswer | None], None],
    ) -> None:
        self._changed = changed
        self._answered = answered
        self._tasks = TaskOwner("federation")
        self._hosts = [host for url in urls if (host := urlsplit(url).hostname)]
        self.addresses = frozenset(a for host in self._hosts if (a := plain(host)) is not None)
        """Where these trackers are, as far as their names resolve."""
        self._clients = [
            TrackerClient(
                [url],
                secret=secret,
                me=lambda: me,
                listener=self,
                rng=rng,
                numbers=dict,
                health=health,
                identity=identity,
            )
            for url in urls
        ]

    def start(self) -> None:
        for client in self._clients:
            client.start()
        if any(plain(host) is None for host in self._hosts):
            self._tasks.start(self._resolve_for_ever(), name="addresses of trackers")

    def cut_unbelieved(self) -> None:
        for client in self._clients:
            client.cut_unbelieved()

    async def close(self) -> None:
        await self._tasks.close()
        for client in self._clients:
            await client.close()

    async def _resolve_for_ever(self) -> None:
        """A name that does not resolve for a moment leaves what was known."""
        loop = asyncio.get_running_loop()
        while True:
            found, known = set(), True
            for host in self._hosts:
                try:
                    infos = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                except (OSError, ValueError):  # ValueError: a name that cannot be one
                    known = False
                else:
                    found |= {a for info in infos if (a := plain(str(info[4][0]))) is not None}
            self.addresses = frozenset(found if known else found | self.addresses)
            await asyncio.sleep(RESOLVE_EVERY_S)

    def forward(self, order: Forward) -> None:
        self._tasks.start(self._ask(order), name=f"lease of {order.dc}")

    def end(self, order: ForwardEnd) -> None:
        if (client := self._client(order.dc)) is not None:
            client.end_lease(order.key, order.fence)

    async def _ask(self, order: Forward) -> None:
        client, answer = self._client(order.dc), None
        if client is not None:
            key = SwarmKey(order.ask.key)
            answer = await client.lease(key, timeout_s=ANSWER_S, on_behalf=order.member)
        self._answered(order, answer)

    def _client(self, dc: str) -> TrackerClient | None:
        for client in self._clients:
            if client.connected and client.tracker is not None and client.tracker.place.dc == dc:
                return client
        return None

    # --- the clients' listener ------------------------------------------------------------------

    def tracker_up(self) -> None:
        self._tell()

    def tracker_down(self) -> None:
        self._tell()

    def _tell(self) -> None:
        members = [client.tracker for client in self._clients if client.connected]
        self._changed(frozenset(m.place.dc for m in members if m is not None))

    def handout(self, handout: Handout) -> None:
        """Trackers are in no swarm."""

    def revoked(self, records: list[bytes]) -> None:
        """Proxies tell each other; each tracker has it from its own."""

    def full_announce(self) -> list[Delta]:
        return []
