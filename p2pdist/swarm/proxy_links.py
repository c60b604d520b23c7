"""Links to the configured proxies: made when one is wanted, left when it was idle for a while."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import Final, TypeVar
from urllib.parse import urlsplit

from p2pdist.errors import P2pdistError, UpstreamError
from p2pdist.exchange.frames import Ping
from p2pdist.exchange.link import Link
from p2pdist.model.health import Reason
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Role
from p2pdist.process import logs
from p2pdist.process.health import Health
from p2pdist.process.tasks import TaskOwner
from p2pdist.registry.proxy_client import Greeting, ProxyClient
from p2pdist.swarm.answering import Answering
from p2pdist.swarm.core import proxy_links as core
from p2pdist.swarm.core.refusals import RefusalBook
from p2pdist.swarm.core.served import ServedRegistries
from p2pdist.swarm.neighbourhood import DIAL_TIMEOUT_S, Neighbourhood

log = logging.getLogger(__name__)

T = TypeVar("T")

CHECKS_PER_IDLE: Final = 4
# What a request for a registry that no list names waits for newer lists.
LISTS_S: Final = 0.5


class ProxyLinks:
    """Carries out a `ProxyLinkPlan` for one node."""

    def __init__(
        self,
        proxies: Sequence[ProxyClient],
        neighbourhood: Neighbourhood,
        refusals: RefusalBook,
        tasks: TaskOwner,
        rng: Random,
        health: Health,
        *,
        wanted: Callable[[], Iterable[str]],
        needs: Callable[[Link], bool],
        on_up: Callable[[Link], None],
        believed: Callable[[bytes], bool],
    ) -> None:
        """`wanted`: keys of the blobs that lack here; `needs`: something goes on at a link;
        `on_up`: a proxy can be asked now for those that it owns; `believed`: the proxy key with
        this id is one of ours."""
        self._proxies = {client.base_url: client for client in proxies}
        self._neighbourhood = neighbourhood
        self._refusals = refusals
        self._tasks = tasks
        self._wanted = wanted
        self._needs = needs
        self._on_up = on_up
        self._health = health
        self._believed = believed
        self._loop = asyncio.get_running_loop()
        self.answering = Answering(
            self._proxies,
            tasks,
            linked_s=self._heard_s,
            ping=self._ping,
            away=lambda name: self._plan.waits(name, self._loop.time()),
            turned=self._turned,
        )
        hung = self.answering.book.hung
        self._plan = core.ProxyLinkPlan(
            list(self._proxies), refusals, rng, idle_s=core.IDLE_S, hung=hung
        )
        self.registries = ServedRegistries(self._proxies)
        self._greetings: dict[str, Greeting] = {}  # heard, and not dialled by yet
        self._unlinked: set[str] = set()  # answer, and a dial of their exchange failed
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._dialling: dict[str, asyncio.Task[Link | None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Learn who the proxies are, so that the first pull need not wait for it."""
        self._ask_unknown()
        self._tasks.start(self._tend(), name="proxy links")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def all_refuse(self) -> bool:
        """Every proxy keeps no link with this host for now."""
        return self._plan.all_refuse(self._loop.time())

    @property
    def reachable(self) -> bool:
        """A proxy has a link with this host, or nothing is known that speaks against one."""
        return self._plan.reachable(self._loop.time())

    def name_of(self, host: HostId) -> str | None:
        """The base URL of a configured proxy; None: `host` is none, or not known yet."""
        return self._plan.name_of(host)

    # --- what the node asks ---------------------------------------------------------------------

    def want(self, key: str) -> Link | None:
        """Return the live link to the proxy that owns `key`; where there is none it is dialled, and
        `on_up` hears of it, or of the one that takes over."""
        self._turn([key])
        owner = self._plan.owner(key, self._loop.time())
        return self._live(owner) if owner is not None else None

    def owns(self, link: Link, key: str) -> bool:
        """The proxy at the end of `link` is the one to ask for `key`."""
        owner = self._plan.owner(key, self._loop.time())
        return owner is not None and self._live(owner) is link

    async def clients(self, key: str) -> list[ProxyClient]:
        """The configured proxies: the first owns `key`, each next one takes over."""
        self._ask_unknown()
        settled_s = self._plan.settled_s(self._loop.time())
        if self._asking and settled_s > 0:
            await asyncio.wait(set(self._asking.values()), timeout=settled_s)
        return [self._proxies[name] for name in self._plan.order(key, self._loop.time())]

    async def ask_each(self, key: str, ask: Callable[[Link], Awaitable[T | None]]) -> T | None:
        """Ask the proxies over their links, in the order of `clients`; return the first answer.

        A link that closed while its turn lasted, as it had been idle until then, is made anew. One
        that hangs is passed over, or left: others may have it.
        """
        for client in await self.clients(key):
            if self.answering.book.hung(client.base_url):
                continue
            for _ in range(2):
                if (link := await self.reach(client)) is None:
                    break
                with contextlib.suppress(UpstreamError):
                    async with self.answering.listening(client, direct=True):
                        if (answer := await ask(link)) is not None:
                            return answer
                if not link.closed:
                    break
        return None

    async def reach(self, client: ProxyClient) -> Link | None:
        """Return the link to a proxy, dialling it if need be; None if it cannot be had now."""
        name, now_s = client.base_url, self._loop.time()
        if (link := self._live(name)) is not None:
            return link
        if self._plan.waits(name, now_s):
            return None
        return await asyncio.shield(self._dial(name))

    async def renew_registries(self) -> None:
        """Hear from the proxies which registries they serve, if that was not done just now.

        Only when one is asked for that no list names: a fleet of idle hosts asks nothing."""
        if not self.registries.to_renew(self._loop.time()):
            return
        asked = [
            self._tasks.start(self._renew(name), name=f"registries of {name}")
            for name in self._proxies
        ]
        await asyncio.wait(asked, timeout=LISTS_S)

    async def decides_by_caller(self, registry: str) -> bool:
        """Whether `registry` does so by the credentials of each caller; a host that heard of no
        proxy yet asks first."""
        if self.registries.any_at_proxies:
            await self.renew_registries()
        return registry in self.registries.by_caller

    async def _renew(self, name: str) -> None:
        with contextlib.suppress(UpstreamError):  # the last known list stays
            greeting = await self._proxies[name].greet(timeout_s=DIAL_TIMEOUT_S)
            self.registries.told(name, greeting.registries, greeting.by_caller)

    def doubt_all(self) -> None:
        """Nothing comes: find out which proxies hang."""
        for client in self._proxies.values():
            if not self._plan.waits(client.base_url, self._loop.time()):
                self.answering.doubt(client)

    def _turned(self, name: str) -> None:
        """A proxy hangs from now on, or does so no longer: others own what it owned, or it again
        does."""
        if self.answering.book.hung(name):
            logs.event(log, logging.INFO, "proxy.hangs", url=name)
        else:
            logs.event(log, logging.INFO, "proxy.answers", url=name)
        self._turn(self._wanted())
        for other in self._proxies:
            if (link := self._link_to(other)) is not None:
                self._on_up(link)

    def _heard_s(self, name: str) -> float | None:
        link = self._link_to(name)
        return link.heard_s if link is not None else None

    def _ping(self, name: str) -> None:
        if (link := self._link_to(name)) is not None:
            link.send(Ping(0))

    def _link_to(self, name: str) -> Link | None:
        host = self._plan.host_of(name)
        return self._neighbourhood.links.get(host) if host is not None else None

    def _live(self, name: str) -> Link | None:
        if (link := self._link_to(name)) is not None:
            self._plan.used(link.session.member.host_id, self._loop.time())
        return link

    # --- links ----------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        """A link came up, or came back after it had been set aside."""
        member = link.session.member
        if member.role is Role.PROXY:
            if self.name_of(member.host_id) is not None:
                self._health.mended(Reason.NO_PROXY_LINK, "")
            self._plan.up(member.host_id, self._loop.time())
            self._on_up(link)

    def link_down(self, link: Link, *, idle: bool) -> None:
        host = link.session.member.host_id
        if idle:
            self._plan.left(host)
        else:
            self._plan.down(host, self._loop.time())
        self._turn(self._wanted())

    async def _tend(self) -> None:
        """Leave links of no use; look whether proxies are back that were away, wanted or not, so
        that a host knows before its next pull. Hosts start, and so look, at any moment."""
        while True:
            await asyncio.sleep(self._plan.idle_s / CHECKS_PER_IDLE)
            self._ask_all(self._plan.to_look_at(self._loop.time()))
            for host in self._plan.to_leave(self._needed, self._loop.time()):
                self.leave(self._neighbourhood.links[host])

    def _needed(self, host: HostId) -> bool:
        link = self._neighbourhood.links.get(host)
        return link is None or self._needs(link)

    def leave(self, link: Link) -> None:
        """End a link, unless the other end has a use for it."""
        self._plan.left(link.session.member.host_id)
        self._neighbourhood.set_aside(link)

    # --- turns ----------------------------------------------------------------------------------

    def _turn(self, keys: Iterable[str]) -> None:
        """Dial what `keys` want of the proxies, and come back when more may be dialled."""
        keys, now_s = list(keys), self._loop.time()
        if not keys:
            return
        self._ask_unknown()
        for name in self._plan.to_dial(keys, now_s):
            self._dial(name)
        due_s = self._plan.next_try_s(now_s)
        if due_s is not None and (self._timer is None or self._timer.when() > due_s):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._turn(self._wanted())

    def _ask_unknown(self) -> None:
        self._ask_all(self._plan.unknown(self._loop.time()))

    def _ask_all(self, names: Iterable[str]) -> None:
        for name in names:
            task = self._tasks.start(self._ask(name), name=f"ask {name}")
            self._asking[name] = task
            task.add_done_callback(partial(self._asked, name))

    def _asked(self, name: str, _: asyncio.Task[None]) -> None:
        self._asking.pop(name, None)

    async def _ask(self, name: str) -> None:
        greeting = await self._greet(name)
        if greeting is not None and greeting.host_id is not None:
            self._greetings[name] = greeting
            self._plan.told(name, greeting.host_id)
        elif greeting is not None:
            await self._dial(name)
        self._turn(self._wanted())

    async def _greet(self, name: str) -> Greeting | None:
        try:
            greeting = await self._proxies[name].greet(timeout_s=DIAL_TIMEOUT_S)
        except (OSError, P2pdistError) as error:
            self._away(name, str(error) or type(error).__name__)
            return None
        self.registries.told(name, greeting.registries, greeting.by_caller)
        self.answering.heard(name)
        if name not in self._unlinked:  # else the link itself will tell
            self._plan.answered(name)
            self._health.mended(Reason.NO_PROXY_LINK, "")
        if greeting.key_id is not None:
            if self._believed(greeting.key_id):
                self._health.mended(Reason.WRONG_KEY, name)
            else:
                self.signed_by_stranger(name, greeting.key_id.hex())
        return greeting

    def keys_changed(self) -> None:
        """What proxies said of their keys when they greeted us is good enough by now."""
        for name, greeting in self._greetings.items():
            if greeting.key_id is not None and self._believed(greeting.key_id):
                self._health.mended(Reason.WRONG_KEY, name)

    def signed_by_stranger(self, name: str, signer: str) -> None:
        """A configured proxy signs with a key that this host was not told to believe."""
        detail = f"{name} signs with the key {signer}, which is not among cluster.proxy_keys"
        self._health.happened(Reason.WRONG_KEY, name, detail)

    def _away(self, name: str, why: str) -> None:
        self._plan.failed(name, self._loop.time())
        if self._plan.all_fail():
            self._health.happened(Reason.NO_PROXY_LINK, "", f"{name}: {why}")
        logs.event(log, logging.DEBUG, "proxy.away", url=name, error=why)

    # --- dials ----------------------------------------------------------------------------------

    def _dial(self, name: str) -> asyncio.Task[Link | None]:
        """One dial of a proxy, for all who want it."""
        task = self._dialling.get(name)
        if task is None:
            task = self._tasks.start(self._dialled(name), name=f"dial {name}")
            self._dialling[name] = task
            task.add_done_callback(lambda _: self._dial_ended(name))
        return task

    def _dial_ended(self, name: str) -> None:
        del self._dialling[name]
        self._turn(self._wanted())

    async def _dialled(self, name: str) -> Link | None:
        greeting = self._greetings.pop(name, None) or await self._greet(name)
        if greeting is None:
            return None
        address = Address(urlsplit(name).hostname or "", greeting.exchange_port)
        if greeting.host_id is None:
            link = await self._neighbourhood.dial_at(address)
        else:
            self._plan.told(name, greeting.host_id)
            link = await self._neighbourhood.reach_at(greeting.host_id, (address,))
        if link is None or link.closed:
            if not self._plan.waits(name, self._loop.time()):  # else it told for how long
                self._unlinked.add(name)
                self._away(name, "it answers, but its chunk exchange gives no link")
            return None
        self._unlinked.discard(name)
        host = link.session.member.host_id
        if self._plan.host_of(name) != host:  # an older version, or its state was lost
            self._plan.told(name, host)
            self.link_up(link)
        return link
