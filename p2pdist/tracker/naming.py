"""As whom the tracker names a host to others: with those of its addresses alone that are proved."""

from __future__ import annotations

from collections.abc import Callable, Collection

from p2pdist.exchange.seen import proved_member
from p2pdist.model.members import Member, Role
from p2pdist.model.private_places import IpAddress, IpNetwork
from p2pdist.model.proved_addresses import plain
from p2pdist.tracker.connection import Connection


class Naming:
    """Any host may announce addresses in `networks`; `federated`: where the trackers are that this
    one was told to ask."""

    def __init__(
        self, networks: Collection[IpNetwork], federated: Callable[[], Collection[IpAddress]]
    ) -> None:
        self._networks = networks
        self._federated = federated

    def of(self, connection: Connection, member: Member) -> tuple[Member, str]:
        """Return `member` with what it proved, and what to tell it of the rest."""
        ends = connection.peername, connection.sockname
        return proved_member(member, *ends, self._networks)

    def elsewhere(self, connection: Connection, member: Member) -> Member:
        """The host of another datacenter that the tracker at the other end asks for.

        Nobody here sees that host. Its own tracker has, and is believed where it is known as one:
        by a certificate, or by an address of those that are asked from here.
        """
        shown = connection.certificate is not None and connection.member.role is Role.TRACKER
        if shown or plain(connection.peer) in self._federated():
            return member
        return self.of(connection, member)[0]
