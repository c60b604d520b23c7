"""Which addresses of this host to tell others, for as long as it runs: networks come and change."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from p2pdist.model.members import Address

LOOK_EVERY_S: Final = 5.0
# Names of `host.advertise` are of a resolver, which has as many hosts to answer as there are.
CONFIGURED_EVERY: Final = 12
_Target = tuple[int, int, int, tuple[Any, ...]]
"""Family, kind, protocol and address of what is spoken to."""
# Addresses for documentation (RFC 5737, RFC 3849), which lie where everything unknown does.
_OUTWARD: Final[tuple[_Target, ...]] = (
    (socket.AF_INET, socket.SOCK_DGRAM, 0, ("192.0.2.1", 9)),
    (socket.AF_INET6, socket.SOCK_DGRAM, 0, ("2001:db8::1", 9)),
)


class OwnAddresses:
    """The addresses under which others reach what listens on `bound`, looked up again and again.

    `configured` wins; its ports 0 mean the bound one, its names what they stand for here: a name
    proves nothing to others. A listener on all interfaces (`0.0.0.0`,
    `[::]`) is reached where this host speaks from when it speaks to its trackers and proxies:
    `towards` are their base URLs. Where they all are on this host, it is reached where it would
    speak to the world from. Nothing is sent to find that out.
    """

    def __init__(self, configured: Sequence[Address], towards: Iterable[str]) -> None:
        self._configured = configured
        self._names = list(dict.fromkeys(h for url in towards if (h := _host_of(url)) is not None))
        self._bound: Address | None = None
        self._named: dict[str, list[str]] = {}
        """What the names among `configured` stood for last."""
        self._looks = 0
        self._targets: dict[str, list[_Target]] = {}
        """By name, as it was resolved last."""
        self._spoken: dict[str, str] = {}
        """By name, where a connection to it came from: what routes only let expect."""
        self._routed: dict[str, list[str]] = {}
        self._outward: list[str] = []

    async def listening(self, bound: Address) -> None:
        """The exchange listens there: from now on there is something to tell."""
        self._bound = bound
        await self.look()

    @property
    def current(self) -> tuple[Address, ...]:
        """What to tell others now, nearest first; nothing where nobody can reach this host."""
        bound = self._bound
        if bound is None:
            return ()
        if self._configured:
            meant = [(host, a.port) for a in self._configured for host in self._meant(a.host)]
            told = (Address(host, port or bound.port) for host, port in meant)
            return tuple(dict.fromkeys(told))
        if not ip_address(bound.host).is_unspecified:
            return (bound,)
        found = [host for name in self._names for host in self._from(name)]
        hosts = _tellable([*found, *self._outward])
        return tuple(Address(host, bound.port) for host in hosts)

    def trouble(self) -> str | None:
        """Why others cannot reach this host, where that is known here."""
        bound = self._bound
        if bound is None or self._configured:
            return None
        if not self.current:
            return "no tracker or proxy tells which address of this host they see"
        if not _is_ours(bound.host):
            return f"it listens on {bound}, which is no address of this host any more"
        return None

    def spoke_from(self, url: str, host: str) -> None:
        """A connection to `url` has this end."""
        if (name := _host_of(url)) is not None:
            self._spoken[name] = host

    async def look(self) -> None:
        """Look up where this host speaks from now. Names are resolved again only where what they
        stood for has no route: thousands of hosts that ask every few seconds are a load."""
        bound = self._bound
        if self._looks % CONFIGURED_EVERY == 0:
            await self._look_up_configured()
        self._looks += 1
        if bound is None or self._configured or not ip_address(bound.host).is_unspecified:
            return
        for name in self._names:
            if not (found := _routes(self._targets.get(name, ()))):
                self._targets[name] = await _resolve(name)
                found = _routes(self._targets[name])
            # A network that is down for a moment makes nobody forget where this host was.
            self._routed[name] = found or [h for h in self._routed.get(name, ()) if _is_ours(h)]
        routed = [ip_address(host) for hosts in self._routed.values() for host in hosts]
        here_only = bool(routed) and all(host.is_loopback for host in routed)
        self._outward = _routes(_OUTWARD) if here_only else []

    async def watch(self, looked: Callable[[], None]) -> None:
        """Look for ever; `looked` is called after each time."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()
            looked()

    async def _look_up_configured(self) -> None:
        for host in (address.host for address in self._configured if not _is_ip(address.host)):
            found = _tellable(str(target[0]) for _, _, _, target in await _resolve(host))
            if found:  # else what it stood for before, or the name itself
                self._named[host] = found

    def _meant(self, host: str) -> list[str]:
        return self._named.get(host, [host])

    def _from(self, name: str) -> list[str]:
        spoken = self._spoken.get(name)
        first = [spoken] if spoken is not None and _is_ours(spoken) else []
        return [*first, *self._routed.get(name, ())]


def _host_of(url: str) -> str | None:
    return urlsplit(url).hostname


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _tellable(found: Iterable[str]) -> list[str]:
    """Leave out what means something else to another host, where there is anything better."""
    hosts = list(dict.fromkeys(found))
    hosts = [host for host in hosts if not ip_address(host).is_link_local]
    return [host for host in hosts if not ip_address(host).is_loopback] or hosts


def _is_ours(host: str) -> bool:
    """Whether it is an address of this host now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        # Whatever else goes wrong, such as no descriptor left, says nothing about the address.
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


async def _resolve(name: str) -> list[_Target]:
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(name, 9, type=socket.SOCK_DGRAM)
    except (OSError, ValueError):  # ValueError: a name that cannot be one
        return []
    return [(family, kind, proto, target) for family, kind, proto, _, target in infos]


def _routes(targets: Iterable[_Target]) -> list[str]:
    """The local addresses that the kernel would use towards `targets`."""
    found = []
    for family, kind, proto, target in targets:
        with socket.socket(family, kind, proto) as probe:
            try:
                probe.connect(target)  # of a datagram socket: only looks the route up
            except OSError:
                continue
            found.append(str(probe.getsockname()[0]))
    return found
