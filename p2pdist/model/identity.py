"""Who a certificate is for: a role and a host id, in one URI among its alternative names.

    p2pdist://peer/0123456789abcdef0123456789abcdef

A scheme of our own, not `spiffe:`: that would name a trust domain, which we have none of (what is
believed is what the CA of the cluster signed), and would promise tools more than these names keep.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pdist.model.ids import HostId, parse_host_id
from p2pdist.model.members import Member

SCHEME: Final = "p2pdist://"


class IdentityRole(enum.StrEnum):
    """The roles of hosts, and people who operate them: those are no host of the swarm."""

    PEER = "peer"
    PROXY = "proxy"
    TRACKER = "tracker"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a certificate says of who shows it."""

    role: IdentityRole
    host_id: HostId

    def __str__(self) -> str:
        return f"{self.role} {self.host_id}"

    @property
    def uri(self) -> str:
        return f"{SCHEME}{self.role}/{self.host_id}"

    def against(self, member: Member) -> str:
        """Return why `member` is not who the certificate is for; empty: it is."""
        if member.role.value != self.role.value:
            article = "an" if self.role is IdentityRole.OPERATOR else "a"
            hello = f"the hello for a {member.role.value}"
            return f"the certificate is for {article} {self.role}, {hello}"
        if member.host_id != self.host_id:
            return f"the certificate is for host {self.host_id}, the hello for {member.host_id}"
        return ""


def parse_identity(uri: str) -> Identity:
    """Read one URI of ours; raise ValueError for any other form."""
    role, slash, host_id = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not slash or role not in set(IdentityRole):
        raise ValueError(f"not an identity of ours: {uri[:80]!r}")
    return Identity(IdentityRole(role), parse_host_id(host_id))


def identity_among(uris: Sequence[str]) -> Identity:
    """Return the one identity that the URIs of a certificate name, whatever else they name.

    Raise ValueError where there is none, or more than one.
    """
    ours = [uri for uri in uris if uri.lower().startswith(SCHEME)]
    if len(ours) != 1:
        raise ValueError(f"the certificate names {len(ours)} identities of ours, not one")
    return parse_identity(ours[0])
