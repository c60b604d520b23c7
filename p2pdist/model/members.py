"""Who is who: roles, places and addresses of hosts."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from p2pdist.model.ids import HostId

PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 1


class Role(enum.StrEnum):
    PEER = "peer"
    PROXY = "proxy"
    TRACKER = "tracker"


class Distance(enum.IntEnum):
    """How far another host is; smaller is nearer."""

    RACK = 0
    DC = 1
    ELSEWHERE = 2


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a host stands. Names are the operator's; an empty rack is a rack of its own."""

    dc: str
    rack: str = ""

    def distance(self, other: Place) -> Distance:
        if self.dc != other.dc:
            return Distance.ELSEWHERE
        return Distance.RACK if self.rack and self.rack == other.rack else Distance.DC


class Address(msgspec.Struct, frozen=True, array_like=True):
    """An IP address or host name and a TCP port (1 to 65535)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One host as others see it: identity, role, place and exchange addresses (nearest first)."""

    host_id: HostId
    role: Role
    place: Place
    addresses: tuple[Address, ...] = ()
