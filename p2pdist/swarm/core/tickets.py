"""Who may have blobs that only some may read: by tickets of proxies, shown over a link.

A ticket is for one repository and one host (`model.statements.Ticket`). It is looked at when a host
says that it wants a blob; from then on that host may have this blob over this link: whoever was let
once could have taken all of it at once.
"""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from p2pdist.model.ids import Digest
from p2pdist.model.private_digests import Scope, is_private, scope_of

TICKET_S_MAX: Final = 300.0
"""What is longer good counts as long."""
SCOPES_MAX: Final = 1024
"""Repositories: of this host, and shown over one link. What was asked for last is kept."""
GRANTS_MAX: Final = 1024
"""Blobs that one host exchanges with this one at a time; whose was forgotten says so again."""


class OwnTickets:
    """Those that this host may show. Pure: time enters as monotonic `now_s`."""

    def __init__(self) -> None:
        self._held: LRUCache[Scope, tuple[bytes, float]] = LRUCache(SCOPES_MAX)

    def hold(self, scope: Scope, record: bytes, until_s: float) -> None:
        self._held[scope] = record, until_s

    def to_show(self, digest: Digest, now_s: float) -> bytes | None:
        """Return the record of the ticket for a blob, while it is good."""
        record, until_s = self._held.get(scope_of(digest), (None, 0.0))
        return record if now_s < until_s else None


class LinkTickets:
    """Those that were shown over one link, either way, and what its other end may have by them."""

    __slots__ = ("_granted", "_heard", "_shown")

    def __init__(self) -> None:
        self._shown: LRUCache[Scope, bytes] = LRUCache(SCOPES_MAX)
        self._heard: LRUCache[Scope, float] = LRUCache(SCOPES_MAX)
        self._granted: LRUCache[Digest, None] = LRUCache(GRANTS_MAX)

    def to_show(self, digest: Digest, record: bytes) -> bool:
        """Whether the other end has not seen `record` yet; it is shown now."""
        scope = scope_of(digest)
        if self._shown.get(scope) == record:
            return False
        self._shown[scope] = record
        return True

    def heard(self, scope: Scope, until_s: float) -> None:
        """The other end showed a ticket that is good until then."""
        self._heard[scope] = max(until_s, self._heard.get(scope, 0.0))

    def grant(self, digest: Digest, now_s: float) -> bool:
        """The other end wants a blob; return whether it may have it."""
        if not self.granted(digest) and now_s >= self._heard.get(scope_of(digest), 0.0):
            return False
        self._granted[digest] = None
        return True

    def granted(self, digest: Digest) -> bool:
        return digest in self._granted


def may_have(tickets: LinkTickets | None, digest: Digest) -> bool:
    """Whether a blob, if it is private, was granted over a link. `tickets`: of the link; None: its
    other end is not proved, or knows no tickets."""
    return not is_private(digest) or (tickets is not None and tickets.granted(digest))
