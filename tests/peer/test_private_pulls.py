"""What a peer believes of what proxies say of private blobs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from p2pdist.model.ids import Digest, HostId, digest_of
from p2pdist.model.private_digests import Scope, scope_of
from p2pdist.model.statements import Keyring, Signer, Ticket
from p2pdist.oci.names import ImageName
from p2pdist.peer.private_pulls import PrivatePull, PrivatePulls
from p2pdist.registry.ports import PullContext
from p2pdist.swarm.core.tickets import OwnTickets
from p2pdist.swarm.records import OpenedRecords

SIGNER, OWN = Signer.generate(), HostId("a" * 32)
PRIVATE = Digest(f"private:{'1' * 64}")
PULL = PrivatePull(ImageName("registry.test", "alice/app"), digest_of(b"x"), 1, PullContext("1"))
GOOD = SIGNER.sign(Ticket(scope_of(PRIVATE), OWN, 1))


class _Taken(Exception):
    """The blob was opened."""


def _activate(digest: Digest, size_bytes: int) -> None:
    raise _Taken(digest)


class Parts:
    """Of a peer on which that blob lies whole, for somebody."""

    def __init__(self) -> None:
        self.tickets = OwnTickets()
        node = SimpleNamespace(
            records=OpenedRecords(Keyring([SIGNER.public_key_bytes])),
            core=SimpleNamespace(tickets=self.tickets),
            store=SimpleNamespace(get={PRIVATE: SimpleNamespace(complete=True)}.get),
            activate=_activate,
        )
        finder = cast(Any, None)
        self.pulls = PrivatePulls(cast(Any, node), finder, lambda: OWN, patience_s=1.0)

    def opens(self, record: bytes | None) -> bool:
        ticket = None if record is None else (PRIVATE, record)
        try:
            assert self.pulls.open(PULL, ticket, cast(Any, None)) is None
        except _Taken:
            return True
        return False


@pytest.mark.parametrize(
    "record",
    [
        b"",
        SIGNER.sign(Ticket(scope_of(PRIVATE), HostId("b" * 32), 1)),
        SIGNER.sign(Ticket(Scope(bytes(16)), OWN, 1)),
        Signer.generate().sign(Ticket(scope_of(PRIVATE), OWN, 1)),
    ],
    ids=["none", "another host", "another repository", "no proxy's key"],
)
async def test_a_ticket_that_is_no_good_opens_nothing_then_and_later(record: bytes) -> None:
    parts = Parts()

    assert not parts.opens(record)
    assert not parts.opens(None), "what came with it is not believed either"
    assert parts.tickets.to_show(PRIVATE, 0.0) is None


async def test_what_a_good_one_named_is_known_without_a_proxy() -> None:
    parts = Parts()
    assert not parts.opens(None)

    assert parts.opens(GOOD)
    assert parts.tickets.to_show(PRIVATE, 0.0) == GOOD
    assert parts.opens(None)
