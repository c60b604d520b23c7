"""Hosts and keys for the tracker's tests."""

from __future__ import annotations

import hashlib

from p2pdist.model.control import Delta, SwarmKey
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role


def key(name: str = "blob") -> SwarmKey:
    return SwarmKey(f"sha256:{hashlib.sha256(name.encode()).hexdigest()}")


def host_id(number: int) -> HostId:
    return HostId(f"{number:032x}")


def member(number: int, place: str = "dc1/r1", role: Role = Role.PEER) -> Member:
    """`place` is `datacenter/rack`; the number is host id and port."""
    dc, _, rack = place.partition("/")
    address = Address("127.0.0.1", 1000 + number)
    return Member(host_id(number), role, Place(dc, rack), (address,))


def seed(swarm_key: SwarmKey) -> Delta:
    return Delta(swarm_key, 8, True)
