"""What a host makes of what others say to it, before and while a blob is in motion."""

from __future__ import annotations

import pytest

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import (
    Interest,
    MapRecord,
    Offer,
    Refuse,
    RefuseReason,
    Request,
    Uninterest,
    Working,
)
from p2pdist.model.ids import Digest, MapId, RequestId, digest_of
from p2pdist.model.members import Role
from p2pdist.model.statements import Seal
from p2pdist.swarm.core.event_log import Kind
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.host_orders import CloseLink, CountFault, Order, Provide
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.trust import BAN_FIRST_S, STRIKES_MAX
from tests.swarm.core.hosts import Orders, host, link_to
from tests.swarm.core.test_host import SIZE, in_motion, known_map

ONE = digest_of(b"one")
WRONG_HASH = PeerFault("wrong", reason="hash")


def up(core: HostCore, letter: str = "a", role: Role = Role.PEER) -> LinkState:
    link = link_to(letter, role)
    core.link_up(link)
    return link


def ordered(core: HostCore) -> list[Order]:
    core.validate()
    orders = Orders(core)
    orders.take(link_to("z"))
    return orders.other


def provides(core: HostCore) -> list[Order]:
    return [order for order in ordered(core) if isinstance(order, Provide)]


# --- interest -------------------------------------------------------------------------------------


def test_who_wants_what_is_not_in_motion_is_heard_once_it_is() -> None:
    core = host()
    link = up(core)
    core.hear(link, Interest(ONE), 0.0)
    assert ordered(core) == [Provide(ONE, bulk=False)]

    blob = in_motion(core, ONE, held=0b1)
    core.hear_wishes(blob, 0.1)
    core.act(0.1)

    assert blob.wishes() == {link.host_id: Interest(ONE)}
    assert Orders(core).said(link, MapRecord) != []


def test_a_peer_has_nothing_brought_in_for_others() -> None:
    core = host()
    in_motion(core, ONE)

    core.hear(up(core), Interest(ONE), 0.0)

    assert provides(core) == []


def test_a_proxy_brings_in_what_is_wanted_until_it_is_whole() -> None:
    core = host(is_proxy=True)
    blob = in_motion(core, ONE, held=0b1)
    core.hear(up(core), Interest(ONE, bulk=True), 0.0)
    assert provides(core) == [Provide(ONE, bulk=True)]

    chunk_map = known_map(ONE)
    seal = Seal(ONE, chunk_map.map_id, chunk_map.geometry.chunk_count, chunk_map.root())
    chunk_map.apply(seal, b"seal")
    blob.map_followed(chunk_map, 0xFF, 0.1)
    assert blob.complete
    core.hear(up(core, "b"), Interest(ONE), 0.2)

    assert provides(core) == []
    assert set(blob.wishes()) == {"a" * 32, "b" * 32}


@pytest.mark.parametrize("moving", [False, True])
def test_what_may_not_be_served_is_not_provided_and_the_wish_is_kept(moving: bool) -> None:
    served: set[Digest] = set()
    core = host(is_proxy=True, servable=served.__contains__)
    blob = in_motion(core, ONE) if moving else None
    link = up(core)
    core.hear(link, Interest(ONE), 0.0)
    assert provides(core) == []
    assert blob is None or not blob.wishes()

    served.add(ONE)
    blob = blob or in_motion(core, ONE)
    core.hear_wishes(blob, 0.1)

    assert set(blob.wishes()) == {link.host_id}


def test_a_failed_blob_is_provided_anew_and_who_waited_is_heard_again() -> None:
    core = host()
    early, late = up(core, "a"), up(core, "b")
    blob = in_motion(core, ONE)
    core.hear(early, Interest(ONE), 0.0)
    blob.fail("broken", 0.1)

    core.hear(late, Interest(ONE), 0.2)

    assert provides(core) == [Provide(ONE, bulk=False)]
    core.remember_wishes(blob)
    core.let_go(blob, 0.3)
    again = in_motion(core, ONE)
    core.hear_wishes(again, 0.3)
    assert set(again.wishes()) == {early.host_id, late.host_id}


def test_who_wants_it_no_more_is_not_heard_later() -> None:
    core = host()
    link = up(core)
    core.hear(link, Interest(ONE), 0.0)
    core.hear(link, Uninterest(ONE), 0.1)

    blob = in_motion(core, ONE)
    core.hear_wishes(blob, 0.2)

    assert not blob.wishes()


def test_a_wish_that_was_taken_back_beside_a_failed_blob_is_forgotten_too() -> None:
    core = host()
    link = up(core)
    in_motion(core, ONE).fail("broken", 0.0)
    core.hear(link, Interest(ONE), 0.1)
    core.hear(link, Uninterest(ONE), 0.2)

    core.let_go(core.blobs[ONE], 0.3)
    again = in_motion(core, ONE)
    core.hear_wishes(again, 0.3)

    assert not again.wishes()


def test_the_wishes_of_a_link_end_with_it_but_not_with_the_one_before() -> None:
    core = host()
    before, now = up(core), up(core)
    core.link_down(before, 0.0, gone=False)
    core.hear(now, Interest(ONE), 0.1)
    core.link_down(before, 0.2, gone=False)
    blob = in_motion(core, ONE)
    core.hear_wishes(blob, 0.3)
    assert set(blob.wishes()) == {now.host_id}

    other = digest_of(b"other")
    core.hear(now, Interest(other), 0.4)
    core.link_down(now, 0.5, gone=True)
    up(core)
    again = in_motion(core, other)
    core.hear_wishes(again, 0.6)
    assert not again.wishes()


# --- whose word counts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_proxy", "configured", "role", "believed"),
    [
        (False, True, Role.PROXY, True),
        (False, False, Role.PROXY, False),  # its role is its own word
        (True, False, Role.PROXY, True),  # of another datacenter
        (True, False, Role.PEER, False),
    ],
)
def test_who_may_have_a_reader_wait_on_its_word(
    is_proxy: bool, configured: bool, role: Role, believed: bool
) -> None:
    link = link_to("a", role)
    core = host(is_proxy=is_proxy, proxies={link.host_id} if configured else set())
    core.link_up(link)
    blob = in_motion(core, ONE)

    core.hear(link, Working(ONE), 0.0)

    kinds = [entry.kind for entry in blob.log.story(1.0).entries]
    assert (Kind.COMING in kinds) == believed


def test_what_is_said_of_a_blob_that_is_not_in_motion_changes_nothing() -> None:
    core = host()
    link = up(core)
    for frame in (
        Offer(ONE, MapId(b"m" * 16), ((0, 1),)),
        Working(ONE),
        Refuse(RequestId(7), RefuseReason.UNKNOWN),
    ):
        core.hear(link, frame, 0.0)

    assert ordered(core) == []


def test_a_refusal_counts_for_the_link_that_was_asked() -> None:
    core = host()
    source, other = up(core, "a"), up(core, "b")
    blob = in_motion(core, ONE)
    blob.join(0.0)
    blob.attach(source, 0.0)
    core.hear(source, Offer(ONE, MapId(b"m" * 16), ((0, 1),)), 0.0)
    core.act(0.0)
    (request,) = Orders(core).said(source, Request)
    assert isinstance(request, Request)

    core.hear(other, Refuse(request.request_id, RefuseReason.UNKNOWN), 0.1)
    assert len(core.requests) == 1
    core.hear(source, Refuse(request.request_id, RefuseReason.UNKNOWN), 0.2)

    assert len(core.requests) == 0
    core.validate()


# --- faults ---------------------------------------------------------------------------------------


def test_a_wrong_frame_is_its_senders_fault() -> None:
    core = host()
    link = up(core)
    in_motion(core, ONE)

    core.hear(link, Offer(ONE, MapId(b"m" * 16), ((SIZE, 1),)), 0.0)

    counted, closed = ordered(core)
    assert isinstance(counted, CountFault)
    assert isinstance(closed, CloseLink)
    assert core.trust.banned(link.host_id, 0.1)


def test_wrong_bytes_may_be_an_accident() -> None:
    core = host()
    link, blob = up(core), in_motion(core, ONE)
    for n in range(1, STRIKES_MAX + 1):
        blob.arrived(link, core.new_request_id(), 0, 0.0, good=False)
        closed = [order for order in ordered(core) if isinstance(order, CloseLink)]
        assert len(closed) == (n == STRIKES_MAX)


def test_of_a_host_that_is_banned_already_nothing_more_counts() -> None:
    core = host()
    link = up(core)
    core.punish(link, PeerFault("wrong", reason="map"), 0.0)
    ordered(core)

    core.punish(link, PeerFault("wrong", reason="map"), BAN_FIRST_S / 2)

    assert ordered(core) == []
    assert core.trust.bans_total == 1


def test_a_proxy_of_ours_is_parted_from_and_not_banned() -> None:
    link = link_to("a", Role.PROXY)
    core = host(proxies={link.host_id})
    core.link_up(link)
    for _ in range(STRIKES_MAX):
        core.punish(link, WRONG_HASH, 0.0)

    assert ordered(core)[-1] == CloseLink(link, "wrong")
    assert not core.trust.banned(link.host_id, 0.1)
