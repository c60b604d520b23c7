"""Which addresses an upstream may lead us to: public ones, and the private ones that are named.

Redirects, token realms and DNS answers are words of the other side. Without a list of places, one
registry inside would open every service inside to whatever it says.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_WEB_PORTS: Final = frozenset({80, 443})
_WITH_PORT: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")
# What an operator may have written while this was a flag; nobody names a host so.
_FLAG_WORDS: Final = frozenset({"true", "false", "yes", "no"})


@dataclass(frozen=True, slots=True)
class PrivatePlace:
    """A host or a network that may be reached although it is private."""

    text: str
    """As the operator wrote it."""
    host: str
    """A name in lower case; empty for an address or a network."""
    network: IpNetwork | None
    port: int | None
    """None: 80, 443 and the port of the upstream itself."""

    def __str__(self) -> str:
        return self.text

    def covers(self, host: str, address: IpAddress) -> bool:
        if self.network is None:
            return host == self.host
        return address in self.network


@dataclass(frozen=True, slots=True)
class Reach:
    """What one upstream may lead us to."""

    own_host: str
    """Of the URL that the operator wrote."""
    own_port: int
    places: tuple[PrivatePlace, ...] = ()

    def allows(self, host: str, port: int, address: IpAddress) -> bool:
        """Tell whether `host`, which has `address`, may be asked at `port`.

        Link-local addresses (cloud metadata), multicast and the unspecified one never; loopback and
        private ones (shared address space included) where the operator named them.
        """
        address = _embedded(address) or address
        if address.is_multicast or address.is_link_local or address.is_unspecified:
            return False
        if address.is_global:
            return True
        if address.is_reserved and address.version == 4:
            return False
        host = _bare_name(host)
        if (host, port) == (_bare_name(self.own_host), self.own_port) and self._own_is_named:
            return True
        return any(
            place.covers(host, address) and self._port_allowed(place, port) for place in self.places
        )

    @property
    def _own_is_named(self) -> bool:
        """Whoever writes an address, or a list of private places, means a private registry."""
        host = _bare_name(self.own_host)
        return bool(self.places) or host == "localhost" or parse_ip(host) is not None

    def _port_allowed(self, place: PrivatePlace, port: int) -> bool:
        if place.port is not None:
            return port == place.port
        return port == self.own_port or port in _WEB_PORTS


def parse_private_place(text: str) -> PrivatePlace:
    """Read `10.0.0.0/8`, `10.1.2.3`, `minio.corp`, each also with `:port` (IPv6 then in brackets).

    Raises ValueError for anything else.
    """
    wrong = ValueError(f"{text!r} is no host, address or network, such as minio.corp:9000")
    whole = _network(text)
    if whole is not None:
        return PrivatePlace(text, "", whole, None)
    match = _WITH_PORT.fullmatch(text)
    if match is None:
        raise wrong
    host = _bare_name(match[1] or match[2])
    port = int(match[3]) if match[3] else None
    if port is not None and not 0 < port <= 65535:
        raise wrong
    network = _network(host)
    if network is not None:
        return PrivatePlace(text, "", network, port)
    if match[1] or host in _FLAG_WORDS or _NAME.fullmatch(host) is None:
        raise wrong
    return PrivatePlace(text, host, None, port)


def parse_ip(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _network(text: str) -> IpNetwork | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _bare_name(host: str) -> str:
    """One text for each host: an IPv6 address can be written in many ways."""
    bare = host.lower().removesuffix(".")
    try:
        return str(ipaddress.IPv6Address(bare))
    except ValueError:
        return bare


def _embedded(address: IpAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64)."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
