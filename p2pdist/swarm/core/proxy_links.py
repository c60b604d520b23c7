"""Which of the configured proxies a link is wanted to, when it is dialled, and when it is left.

The proxies of a datacenter own blobs by rendezvous hash of their host ids, which each tells over
`/v2/` before the first dial. A link is made to the owner of a blob that is wanted here, and left
when nothing was to be said on it for a while: a proxy's links are those of the hosts that fetch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from p2pdist.model.ids import HostId
from p2pdist.model.rendezvous import ranked
from p2pdist.swarm.core.refusals import RefusalBook

# Longer than the pause between two layers or images of one release, and short beside its day.
IDLE_S: Final = 60.0
RETRY_FIRST_S: Final = 0.4
RETRY_MAX_S: Final = 10.0
# A proxy that does not tell who it is must not hold up the others for longer.
IDENTIFY_S: Final = 0.3


# A proxy that restarts fails once or twice.
FAILURES_MIN: Final = 3


@dataclass(slots=True)
class _Proxy:
    host: HostId | None = None
    asked_s: float | None = None
    """Since when it is being asked who it is."""
    failures: int = 0
    """In a row."""
    retry_s: float = 0.0
    """Not to be dialled before."""


class ProxyLinkPlan:
    """Pure. Proxies go by their names in the configuration, links by the host at their end."""

    def __init__(
        self,
        names: Sequence[str],
        refusals: RefusalBook,
        rng: Random,
        *,
        idle_s: float = IDLE_S,
        hung: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`hung`: the proxy of this name takes questions and answers none."""
        self.idle_s = idle_s
        self._proxies = {name: _Proxy() for name in names}
        self._refusals = refusals
        self._rng = rng
        self._hung = hung
        self._used_s: dict[HostId, float] = {}
        """The live links to proxies, configured or not, and when each was last of use."""

    # --- who they are ---------------------------------------------------------------------------

    def host_of(self, name: str) -> HostId | None:
        return self._proxies[name].host

    def name_of(self, host: HostId) -> str | None:
        """What the configuration calls a host; None: it is no proxy of ours, or not known yet."""
        return next((name for name, p in self._proxies.items() if p.host == host), None)

    def unknown(self, now_s: float) -> list[str]:
        """The proxies to be asked now who they are; they count as being asked from here on."""
        found = []
        for name, proxy in self._proxies.items():
            if proxy.host is None and proxy.asked_s is None and proxy.retry_s <= now_s:
                proxy.asked_s = now_s
                found.append(name)
        return found

    def to_look_at(self, now_s: float) -> list[str]:
        """Like `unknown`, and those that failed last and have no link: whether they are back."""
        found = self.unknown(now_s)
        for name, proxy in self._proxies.items():
            failing = proxy.failures and not self.linked(name) and not self.waits(name, now_s)
            if failing and proxy.asked_s is None:
                proxy.asked_s = now_s
                found.append(name)
        return found

    def answered(self, name: str) -> None:
        """It is back, as far as `/v2/` shows."""
        self._proxies[name].failures = 0

    def told(self, name: str, host: HostId) -> None:
        """A proxy told who it is: for the first time, or since it was replaced by another."""
        proxy = self._proxies[name]
        proxy.host, proxy.asked_s = host, None

    def settled_s(self, now_s: float) -> float:
        """How long the order of the proxies may still change by what they tell; 0: it is known."""
        proxies = self._proxies.values()
        asked = [p.asked_s for p in proxies if p.asked_s is not None and not p.failures]
        return max((since_s + IDENTIFY_S - now_s for since_s in asked), default=0.0)

    # --- whose blob it is -----------------------------------------------------------------------

    def order(self, key: str, now_s: float) -> list[str]:
        """All proxies: the owner of `key` first, then those that take over; those that are away
        or hang come last."""
        names = {proxy.host: name for name, proxy in self._proxies.items() if proxy.host}
        known = [names[HostId(host)] for host in ranked(key, names)]
        known += [name for name, proxy in self._proxies.items() if name not in known]
        return sorted(known, key=lambda name: self.waits(name, now_s) or self._hung(name))

    def owner(self, key: str, now_s: float) -> str | None:
        """The proxy to ask for `key`; None: none may be dialled now, or it is not known yet."""
        if self.settled_s(now_s) > 0:
            return None
        name = next(iter(self.order(key, now_s)), None)
        if name is None or self._proxies[name].host is None or self.waits(name, now_s):
            return None
        return name

    def waits(self, name: str, now_s: float) -> bool:
        """It was away, or refused us, and is not to be dialled yet."""
        return not self.linked(name) and self._until_s(self._proxies[name]) > now_s

    def _until_s(self, proxy: _Proxy) -> float:
        refused_s = self._refusals.until_s(proxy.host) if proxy.host is not None else 0.0
        return max(proxy.retry_s, refused_s)

    def all_refuse(self, now_s: float) -> bool:
        """Every proxy keeps no link with this host for now: it lives on its peers."""
        hosts = [proxy.host for proxy in self._proxies.values()]
        return bool(hosts) and all(
            host is not None and host not in self._used_s and self._refusals.waits(host, now_s)
            for host in hosts
        )

    def reachable(self, now_s: float) -> bool:
        """A link to a proxy is there, or nothing speaks against having one at once."""
        return any(
            self.linked(name) or (proxy.host and not proxy.failures and not self.waits(name, now_s))
            for name, proxy in self._proxies.items()
        )

    def all_fail(self) -> bool:
        """No proxy has a link with this host, and none could be had again and again."""
        return bool(self._proxies) and all(
            not self.linked(name) and proxy.failures >= FAILURES_MIN
            for name, proxy in self._proxies.items()
        )

    # --- links ----------------------------------------------------------------------------------

    def linked(self, name: str) -> bool:
        return self._proxies[name].host in self._used_s

    def up(self, host: HostId, now_s: float) -> None:
        """There is a link to a proxy, whoever dialled."""
        self._used_s[host] = now_s
        self._refusals.accepted(host)
        if (name := self.name_of(host)) is not None:
            self._proxies[name].failures = 0
            self._proxies[name].retry_s = 0.0

    def used(self, host: HostId, now_s: float) -> None:
        if host in self._used_s:
            self._used_s[host] = now_s

    def left(self, host: HostId) -> None:
        """The link was ended for lack of use: it may be dialled again at once."""
        self._used_s.pop(host, None)

    def down(self, host: HostId, now_s: float) -> None:
        """The link broke. Many hosts lose theirs in the same moment, when their proxy restarts."""
        if self._used_s.pop(host, None) is not None and (name := self.name_of(host)) is not None:
            self.failed(name, now_s)

    def failed(self, name: str, now_s: float) -> None:
        """It cannot be reached: full jitter, so that hosts come back spread over the whole wait."""
        proxy = self._proxies[name]
        proxy.asked_s = None
        ceiling_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(proxy.failures, 16))
        proxy.failures += 1
        proxy.retry_s = now_s + ceiling_s * self._rng.random()

    def to_dial(self, keys: Iterable[str], now_s: float) -> list[str]:
        """The owners of `keys`, which are wanted here, that there is no link to."""
        owners = {self.owner(key, now_s) for key in keys}
        return sorted(name for name in owners if name is not None and not self.linked(name))

    def next_try_s(self, now_s: float) -> float | None:
        """When to look at all this again while anything is wanted."""
        due = [self._until_s(p) for n, p in self._proxies.items() if not self.linked(n)]
        if (settled_s := self.settled_s(now_s)) > 0:
            due.append(now_s + settled_s)
        return min((s for s in due if s > now_s), default=None)

    def to_leave(self, needed: Callable[[HostId], bool], now_s: float) -> list[HostId]:
        """Links that were of no use for `idle_s`; `needed` says which are of use at this moment."""
        idle = []
        for host, used_s in list(self._used_s.items()):
            if needed(host):
                self._used_s[host] = now_s
            elif now_s - used_s >= self.idle_s:
                idle.append(host)
        return idle

    def validate(self, key: str, now_s: float) -> None:
        """Assert what must hold after every event, for a blob as for any; for tests and
        simulations."""
        for name, proxy in self._proxies.items():
            assert proxy.retry_s <= now_s + RETRY_MAX_S, "it would be left alone for too long"
            assert proxy.asked_s is None or proxy.asked_s <= now_s
            assert not (self.linked(name) and self.waits(name, now_s))
        assert all(used_s <= now_s for used_s in self._used_s.values())
        assert sorted(self.order(key, now_s)) == sorted(self._proxies), "one is never asked"
        assert self.settled_s(now_s) <= IDENTIFY_S + 1e-6
        assert all(not self.waits(name, now_s) for name in self.to_dial([key], now_s))
