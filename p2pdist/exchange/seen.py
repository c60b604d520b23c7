"""What the sockets of a connection tell of the addresses that the other end announces."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from ipaddress import IPv6Address
from typing import Any

import msgspec

from p2pdist.model.members import Address, Member
from p2pdist.model.private_places import IpAddress, IpNetwork
from p2pdist.model.proved_addresses import plain, proved, told


def proved_member(
    member: Member, peername: Any, sockname: Any, networks: Collection[IpNetwork]
) -> tuple[Member, str]:
    """Return `member` with those of its addresses that may be named, and what to tell of the
    others (empty: there are none). `peername` and `sockname` are those of its connection."""
    if not member.addresses:
        return member, ""
    seen_from = str(peername[0]) if peername else ""
    reached_at = str(sockname[0]) if sockname else ""
    here = hosts_here(seen_from, reached_at, member.addresses)
    sorted_out = proved(member.addresses, seen_from, networks, here=here)
    if not sorted_out.refused:
        return member, ""
    return (
        msgspec.structs.replace(member, addresses=sorted_out.addresses),
        told(sorted_out.refused, seen_from),
    )


def hosts_here(seen_from: str, reached_at: str, announced: Iterable[Address]) -> frozenset[str]:
    """Which of the announced hosts stand for this machine, where the connection came from this
    machine itself; otherwise none."""
    # Two ends of one socket are written alike, and it is asked of each host that comes.
    if not seen_from or not (seen_from == reached_at or _is_loopback(seen_from)):
        return frozenset()
    hosts = ((address.host, plain(address.host)) for address in announced)
    return frozenset(text for text, host in hosts if host is not None and _is_here(host))


def _is_loopback(host: str) -> bool:
    address = plain(host) if host.startswith(("127.", ":")) else None
    return address is not None and address.is_loopback


def _is_here(host: IpAddress) -> bool:
    """The kernel would speak to it from itself. Nothing is sent. (To bind to it tells nothing where
    `ip_nonlocal_bind` is set, as beside a keepalived.)"""
    if host.is_loopback:
        return True
    family = socket.AF_INET6 if isinstance(host, IPv6Address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(host), 9))
            return plain(str(sock.getsockname()[0])) == host
    except OSError:
        return False
