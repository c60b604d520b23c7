"""Which addresses of this host to tell others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from p2pdist.model.members import Address


async def advertised(
    bound: Address, configured: Sequence[Address], towards: Iterable[str]
) -> tuple[Address, ...]:
    """Return the addresses under which others reach what listens on `bound`.

    `configured` wins; its ports 0 mean the bound one. A listener on all interfaces (`0.0.0.0`,
    `[::]`) is reached where this host speaks from when it speaks to its trackers and proxies:
    `towards` are their base URLs. Nothing is sent to find that out.
    """
    if configured:
        return tuple(Address(a.host, a.port or bound.port) for a in configured)
    if not _unspecified(bound.host):
        return (bound,)
    hosts = [h for url in towards if (h := urlsplit(url).hostname) is not None]
    found = [host for name in hosts for host in await _speaking_from(name)]
    return tuple(Address(host, bound.port) for host in dict.fromkeys(found))


def _unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


async def _speaking_from(name: str) -> list[str]:
    """The local addresses that the kernel would use towards `name`; none if it has no route."""
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(name, 9, type=socket.SOCK_DGRAM)
    except OSError:
        return []
    found = []
    for family, kind, proto, _, target in infos:
        with socket.socket(family, kind, proto) as probe:
            try:
                probe.connect(target)  # of a datagram socket: only looks the route up
            except OSError:
                continue
            found.append(str(probe.getsockname()[0]))
    return found
