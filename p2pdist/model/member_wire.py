"""Members as nodes name them to each other: bounded, by IP addresses, and checked when they come.

Host names stay out: nobody is to be led to a resolver by what another host says. A host that tells
others names alone is named by trackers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Annotated, Final

import msgspec

from p2pdist.model.ids import parse_host_id
from p2pdist.model.members import Address, Member, Place, Role

MEMBERS_MAX: Final = 24
ADDRESSES_MAX: Final = 8
PLACE_CHARS_MAX: Final = 255
MEMBERS_BYTES_MAX: Final = 16 * 1024
"""24 hosts of two addresses take 3 kB."""

_Members = Annotated[list[Member], msgspec.Meta(max_length=MEMBERS_MAX)]
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Members)


def nameable(member: Member) -> Member | None:
    """`member` as it may be named; None: it is no peer, or has no address of that kind."""
    addresses = tuple(a for a in member.addresses if _is_fit(a))[:ADDRESSES_MAX]
    if member.role is not Role.PEER or not addresses or not _is_short(member.place):
        return None
    return Member(member.host_id, member.role, member.place, addresses)


def members_to_wire(members: Sequence[Member]) -> bytes:
    """Encode `members`, each `nameable`; the last of them are left out beyond the bounds."""
    named = list(members[:MEMBERS_MAX])
    while len(data := _encoder.encode(named)) > MEMBERS_BYTES_MAX:
        named.pop()
    return data


def members_from_wire(data: bytes) -> tuple[Member, ...]:
    """Decode what another host said; raise ValueError for anything that may not be named."""
    members: list[Member] = _decoder.decode(data)
    for member in members:
        parse_host_id(member.host_id)
        if member != nameable(member):
            raise ValueError(f"{member.host_id} cannot be named")
    return tuple(members)


def _is_fit(address: Address) -> bool:
    try:
        there = ip_address(address.host)
    except ValueError:
        return False
    if "%" in address.host:  # an interface of that host, and any text behind it
        return False
    return 0 < address.port < 1 << 16 and not (there.is_unspecified or there.is_multicast)


def _is_short(place: Place) -> bool:
    return max(len(place.dc), len(place.rack)) <= PLACE_CHARS_MAX
