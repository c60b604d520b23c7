"""Which hosts the tracker takes in: what it names to others was looked at once, here."""

from __future__ import annotations

from typing import Final

from p2pdist.errors import NoIdentity, PeerFault
from p2pdist.model.members import Member
from p2pdist.process import audit
from p2pdist.process.certificates import identity_in
from p2pdist.process.identity_holder import IdentityHolder

ADDRESSES_MAX: Final = 8
# RFC 1035: a host name has at most 253 characters; names of places are held to the same.
NAME_LENGTH_MAX: Final = 253


def check_member(member: Member) -> None:
    """Raise PeerFault for a member that the tracker should not name to others."""
    place = member.place
    names = (place.dc, place.rack, *(address.host for address in member.addresses))
    if not place.dc or len(member.addresses) > ADDRESSES_MAX:
        raise PeerFault("a host without a datacenter or with too many addresses")
    if any(len(name) > NAME_LENGTH_MAX or not name.isprintable() for name in names):
        raise PeerFault("a host with a malformed place or address")
    if any(not address.host or not 0 < address.port < 65536 for address in member.addresses):
        raise PeerFault("a host with a malformed address")


def check_identity(own: IdentityHolder | None, certificate: bytes | None, member: Member) -> None:
    """Raise NoIdentity where `member`, by its hello, is not who the certificate of its connection
    is for; `own` is the tracker's identity, and says whether there has to be one."""
    if own is None:
        return
    if certificate is None:
        if own.required:
            raise NoIdentity("this tracker takes hosts with a certificate only")
        return
    if why := own.current.against(certificate, member):
        raise NoIdentity(why)


def who_shown(certificate: bytes | None) -> str:
    """Who the audit log calls the other end of a connection that showed this, in DER."""
    try:
        return audit.NOBODY if certificate is None else str(identity_in(certificate))
    except ValueError:
        return audit.NOBODY
