"""Which of the addresses that a host announces are named to others: those that it is seen from, and
those in networks that the operator named.

What a host says of itself is dialled by all others. Believed as it is, one stolen host has the
whole cluster knock at any address and port: a scan, a reflector, or an eclipse of its neighbours.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from p2pdist.model.members import Address
from p2pdist.model.private_places import IpAddress, IpNetwork, parse_ip

# Where machines have their own services: a host may have itself dialled there, and nobody else.
PORT_MIN: Final = 1024
FIX: Final = (
    "set host.advertise of that host to where it is seen from, or cluster.member_networks of"
    " trackers and proxies to a network with that address"
)
# Links of a machine, which mean another one elsewhere, and its maker's services (cloud metadata);
# what is no host, and what is many.
_NEVER: Final[tuple[IpNetwork, ...]] = tuple(
    map(
        ipaddress.ip_network,
        ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/128", "fe80::/10", "ff00::/8"),
    )
)


@dataclass(frozen=True, slots=True)
class Proved:
    addresses: tuple[Address, ...]
    """Those that may be named, in the order in which they were announced."""
    refused: tuple[Address, ...] = ()
    """The others."""


def proved(
    announced: Sequence[Address],
    seen_from: str,
    networks: Collection[IpNetwork],
    *,
    here: Collection[str] = (),
) -> Proved:
    """Sort out what a host announced over a connection that came from the address `seen_from`.

    `here`: where that is the very machine that it came to, those of the announced hosts that stand
    for this machine, loopback included. `networks` lead nowhere near loopback, link-local or
    multicast addresses, whatever they hold. A host name stands for whatever its zone says later: it
    proves nothing.
    """
    seen = plain(seen_from)
    good = tuple(each for each in announced if _is_proved(each, seen, networks, here))
    return Proved(good, tuple(each for each in announced if each not in good))


@lru_cache(1024)  # the same text is asked about several times of each host
def plain(host: str) -> IpAddress | None:
    """The address that `host` stands for: without its interface, IPv4 as IPv4. None: a name."""
    address = parse_ip(host)
    return getattr(address, "ipv4_mapped", None) or address


def _is_proved(
    address: Address,
    seen: IpAddress | None,
    networks: Collection[IpNetwork],
    here: Collection[str],
) -> bool:
    host = plain(address.host)
    if host is None or "%" in address.host or _is_never(host):
        return False
    if not 0 < address.port < 1 << 16:
        return False
    if address.host in here:
        return True
    if host.is_loopback:
        return False
    return host == seen or (
        address.port >= PORT_MIN and any(host in network for network in networks)
    )


def _is_never(host: IpAddress) -> bool:
    return any(host in network for network in _NEVER if network.version == host.version)


def told(refused: Sequence[Address], seen_from: str) -> str:
    """What to tell of `refused`; empty where there are none."""
    if not refused:
        return ""
    named = ", ".join(str(address) for address in refused[:2])
    more = f" and {len(refused) - 2} more" if len(refused) > 2 else ""
    return f"{named}{more} announced by a host that is seen from {seen_from or 'nowhere'}"
