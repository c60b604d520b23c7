"""Blobs that only some may read: who shows what, and what a host gives to whom."""

from __future__ import annotations

import pytest

from p2pdist.exchange.frames import Frame, Interest, Offer, Others, Retract, Ticket, WhoElse
from p2pdist.model.ids import Digest, HostId, MapId, digest_of
from p2pdist.model.members import Address, Member, Role
from p2pdist.model.private_digests import scope_of
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.host_orders import Provide
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.tickets import (
    GRANTS_MAX,
    SCOPES_MAX,
    LinkTickets,
    OwnTickets,
    may_have,
)
from tests.swarm.core.hosts import PLACE, Orders, host, link_to


def private(scope: int, blob: int) -> Digest:
    return Digest(f"private:{scope:032x}{blob:032x}")


BLOB, SIBLING, OTHERS = private(1, 1), private(1, 2), private(2, 1)
PUBLIC = digest_of(b"layer")
SIZE_BYTES = 4 << 20
RECORD, NEWER = b"a ticket", b"a newer ticket"


def proved(letter: str, role: Role = Role.PEER) -> LinkState:
    member = Member(HostId(letter * 32), role, PLACE, (Address("10.0.0.1", 5001),))
    return LinkState(member, lambda: 0, speaks_who_else=True, tickets=LinkTickets())


# --- what this host shows -------------------------------------------------------------------------


def reading(*links: LinkState, record: bytes | None = RECORD) -> tuple[HostCore, Orders]:
    """A host that has a ticket until 100 s and asks `links` for a blob."""
    core = host()
    if record is not None:
        core.tickets.hold(scope_of(BLOB), record, 100.0)
    blob = core.take_up(BLOB, SIZE_BYTES, 0.0)
    for link in links:
        blob.attach(link, 1.0)
    return core, Orders(core)


def test_a_ticket_goes_before_the_first_interest_in_a_repository_and_once() -> None:
    link = proved("b")
    core, orders = reading(link)
    assert orders.take(link) == [Ticket(RECORD), Interest(BLOB)]

    core.take_up(SIBLING, SIZE_BYTES, 2.0).attach(link, 2.0)
    assert orders.take(link) == [Interest(SIBLING)]

    core.tickets.hold(scope_of(BLOB), NEWER, 300.0)
    core.blobs[BLOB].attach(link, 3.0)
    assert orders.take(link) == [Ticket(NEWER), Interest(BLOB)]
    core.validate()


def test_nobody_who_is_not_proved_hears_of_a_private_blob() -> None:
    link = link_to("b")
    core, orders = reading(link)

    assert orders.take(link) == []
    assert not core.blobs[BLOB].neighbours.asking.any


@pytest.mark.parametrize(("record", "at_s"), [(None, 1.0), (RECORD, 100.0)])
def test_without_a_ticket_that_is_good_nobody_is_asked(record: bytes | None, at_s: float) -> None:
    link = proved("b")
    core, orders = reading(record=record)

    core.blobs[BLOB].attach(link, at_s)
    assert orders.take(link) == []


def test_a_blob_that_everybody_may_read_needs_none() -> None:
    link = link_to("b")
    core, orders = reading()

    core.take_up(PUBLIC, SIZE_BYTES, 0.0).attach(link, 1.0)
    assert orders.take(link) == [Interest(PUBLIC)]


# --- what this host gives -------------------------------------------------------------------------


def holding(*, is_proxy: bool = False) -> tuple[HostCore, Orders]:
    core = host(is_proxy=is_proxy)
    for digest in (BLOB, SIBLING, OTHERS):
        core.take_up(digest, SIZE_BYTES, 0.0)
    return core, Orders(core)


def heard(core: HostCore, orders: Orders, link: LinkState, frame: Interest, now_s: float) -> bool:
    """Whether it was let in."""
    core.hear(link, frame, now_s)
    said: list[Frame] = orders.take(link)
    assert said in ([], [Retract(frame.digest)])
    core.validate()
    assert may_have(link.tickets, frame.digest) == (not said)
    return not said


def test_who_showed_a_ticket_gets_what_is_of_its_repository_while_it_is_good() -> None:
    core, orders = holding()
    link, other = proved("b"), proved("c")
    core.hear_ticket(link, scope_of(BLOB), 10.0)

    assert heard(core, orders, link, Interest(BLOB), 9.9)
    assert not heard(core, orders, link, Interest(OTHERS), 9.9)
    assert not heard(core, orders, other, Interest(BLOB), 9.9)
    assert core.unlet_total == 2
    assert not heard(core, orders, link, Interest(SIBLING), 10.0)


def test_a_blob_that_was_begun_goes_on_after_the_end_of_the_ticket() -> None:
    core, orders = holding()
    link = proved("b")
    core.hear_ticket(link, scope_of(BLOB), 10.0)
    assert heard(core, orders, link, Interest(BLOB), 1.0)

    assert heard(core, orders, link, Interest(BLOB, bulk=True), 1000.0)


def test_an_older_ticket_takes_nothing_from_a_newer_one() -> None:
    core, orders = holding()
    link = proved("b")
    core.hear_ticket(link, scope_of(BLOB), 20.0)
    core.hear_ticket(link, scope_of(BLOB), 10.0)

    assert heard(core, orders, link, Interest(BLOB), 15.0)


@pytest.mark.parametrize("proven", [True, False])
def test_who_showed_none_wishes_in_vain(proven: bool) -> None:
    """Neither now nor once the blob is here."""
    core = host(is_proxy=True)
    orders = Orders(core)
    link = proved("b") if proven else link_to("b")
    core.link_up(link)

    assert not heard(core, orders, link, Interest(BLOB), 1.0)
    assert not any(isinstance(order, Provide) for order in orders.other)
    core.hear_wishes(core.take_up(BLOB, SIZE_BYTES, 2.0), 2.0)
    assert orders.take(link) == []


def test_who_else_reads_it_is_told_to_readers_only() -> None:
    core, orders = holding(is_proxy=True)
    reader, another, stranger = proved("b"), proved("c"), proved("d")
    for link in (reader, another):
        core.hear_ticket(link, scope_of(BLOB), 10.0)
    assert heard(core, orders, reader, Interest(BLOB), 1.0)

    for link, told in ((another, (reader.member,)), (stranger, ())):
        core.hear(link, WhoElse(BLOB), 2.0)
        assert orders.take(link) == [Others(BLOB, told)]


def test_what_a_stranger_offers_of_it_is_not_asked_for() -> None:
    core, orders = holding()
    stranger = proved("c")
    core.link_up(stranger)

    core.hear(stranger, Offer(BLOB, MapId(bytes(16)), ((0, 4),)), 1.0)
    core.act(1.0)
    assert orders.take(stranger) == []


# --- bounds ---------------------------------------------------------------------------------------


def test_what_is_remembered_is_bounded() -> None:
    own, link = OwnTickets(), LinkTickets()
    digests = [private(n, 0) for n in range(SCOPES_MAX + 1)]
    for digest in digests:
        own.hold(scope_of(digest), RECORD, 10.0)
        link.heard(scope_of(digest), 10.0)
        assert link.grant(digest, 1.0)
    assert own.to_show(digests[0], 1.0) is None
    assert own.to_show(digests[-1], 1.0) == RECORD
    assert not link.granted(digests[0])
    assert sum(map(link.granted, digests)) == GRANTS_MAX


def test_a_public_blob_is_anybodys() -> None:
    assert may_have(None, PUBLIC)
    assert not may_have(None, BLOB)
    assert not may_have(LinkTickets(), BLOB)
