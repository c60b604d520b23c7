"""A host without a tracker asks its proxy who else reads a blob, and the proxy names them."""

from __future__ import annotations

from p2pdist.exchange.frames import Interest, Others, WhoElse
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.swarm.core.acquaintances import NAMED
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.host_orders import JoinSwarm, Meet
from p2pdist.swarm.core.inquiry import ENOUGH, TRACKER_ANSWERS_S
from p2pdist.swarm.core.introducing import QUESTIONS_BURST, QUESTIONS_PER_S
from p2pdist.swarm.core.link_state import LinkState
from tests.swarm.core.hosts import PLACE, Orders, host

BLOB = Digest("sha256:" + "5" * 64)
PROXY = HostId("f" * 32)
SIZE_BYTES = 4 << 20


def link_to(number: int, role: Role = Role.PEER, place: Place = PLACE) -> LinkState:
    host_id = PROXY if role is Role.PROXY else HostId(f"{number:032x}")
    address = Address(f"10.0.{number >> 8}.{number & 255}", 5001)
    return LinkState(Member(host_id, role, place, (address,)), lambda: 0, speaks_who_else=True)


def proxy_link() -> LinkState:
    return link_to(0, Role.PROXY)


# --- the proxy ------------------------------------------------------------------------------------


def proxy_with(*readers: LinkState) -> HostCore:
    core = host(is_proxy=True)
    blob = core.take_up(BLOB, SIZE_BYTES, 0.0)
    for reader in readers:
        blob.hear_interest(reader, Interest(BLOB), 0.0)
    return core


def told(core: HostCore, link: LinkState, now_s: float = 1.0) -> set[HostId]:
    """Whom a proxy names."""
    orders = Orders(core)
    orders.take(link)
    core.hear(link, WhoElse(BLOB), now_s)
    (answer,) = orders.take(link)
    assert isinstance(answer, Others)
    assert answer.digest == BLOB
    core.validate()
    return {member.host_id for member in answer.members}


def test_a_proxy_names_readers_to_each_other() -> None:
    a, b, c = (link_to(number) for number in range(3))
    core = proxy_with(a, b, c)

    assert told(core, a) == {b.host_id, c.host_id}
    assert told(core, link_to(9)) == {a.host_id, b.host_id, c.host_id}


def test_however_many_read_it_names_some() -> None:
    readers = [link_to(number) for number in range(100)]

    assert len(told(proxy_with(*readers), readers[0])) == NAMED


def test_who_is_gone_or_left_without_any_of_it_is_not_named() -> None:
    a, died, left, dropped = (link_to(number) for number in range(4))
    core = proxy_with(a, died, left, dropped)

    core.link_down(died, 1.0, gone=True)
    core.blobs[BLOB].neighbours.lose_interest(left, 1.0)
    core.blobs[BLOB].take_retract(dropped, 1.0)

    assert told(core, a) == set()


def test_who_is_done_is_named_for_what_it_has() -> None:
    a, done = link_to(1), link_to(2)
    core = proxy_with(a, done)
    blob = core.blobs[BLOB]
    blob.neighbours.audience.host_holds(done, 0b1111, 1.0)

    blob.neighbours.lose_interest(done, 1.0)
    core.link_down(done, 2.0, gone=False)  # idle: the host is still there

    assert told(core, a) == {done.host_id}


def test_of_a_blob_that_does_not_move_nobody_is_named() -> None:
    core, link = host(is_proxy=True), link_to(1)

    assert told(core, link) == set()


def test_of_a_blob_that_may_not_be_handed_out_nobody_is_named() -> None:
    core, a, b = host(is_proxy=True, servable=lambda _: False), link_to(1), link_to(2)
    core.take_up(BLOB, SIZE_BYTES, 0.0).hear_interest(a, Interest(BLOB), 0.0)

    assert told(core, b) == set()


def test_a_peer_that_is_asked_names_nobody() -> None:
    core, a, b = host(), link_to(1), link_to(2)
    blob = core.take_up(BLOB, SIZE_BYTES, 0.0)
    blob.join(0.0)
    blob.hear_interest(a, Interest(BLOB), 0.0)

    assert told(core, b) == set()


def test_who_asks_too_often_hears_of_nobody_for_a_while() -> None:
    a, b, other = (link_to(number) for number in range(3))
    core = proxy_with(a, b, other)

    answers = [told(core, a) for _ in range(QUESTIONS_BURST + 5)]

    assert all(answers[:QUESTIONS_BURST])
    assert not any(answers[QUESTIONS_BURST + 1 :])
    assert told(core, other)
    assert told(core, a, now_s=1.0 + 2 / QUESTIONS_PER_S)


# --- who asks -------------------------------------------------------------------------------------


def reading(*, tracker_up: bool = False) -> tuple[HostCore, Orders, LinkState]:
    """A host that asks its proxy for a blob."""
    core = host(proxies={PROXY})
    core.tracker_moved(0.0, up=tracker_up)
    orders, proxy = Orders(core), proxy_link()
    blob = core.take_up(BLOB, SIZE_BYTES, 10.0)
    blob.join(10.0)
    blob.attach(proxy, 10.0)
    return core, orders, proxy


def wait(core: HostCore, until_s: float, *, answered: bool = False) -> None:
    """Let all turns and deadlines pass until then; `answered`: by a tracker, as it is asked."""
    core.act(10.0)
    while (due_s := core.next_deadline_s()) is not None and due_s <= until_s:
        core.handle_deadline(max(10.0, due_s))
        core.act(max(10.0, due_s))
        if answered and any(isinstance(order, JoinSwarm) for order in core.orders):
            core.tracker_named(BLOB)
    core.validate()


def asked(orders: Orders, link: LinkState) -> int:
    """How often it was asked who else is there, since it was looked at last."""
    return sum(isinstance(frame, WhoElse) for frame in orders.take(link))


def met(orders: Orders) -> list[HostId]:
    found = [order for order in orders.other if isinstance(order, Meet)]
    return [member.host_id for order in found for member in order.members]


def others(*links: LinkState) -> Others:
    return Others(BLOB, tuple(link.member for link in links))


def test_without_a_tracker_the_proxy_is_asked_at_once_and_those_it_names_are_met() -> None:
    core, orders, proxy = reading()
    a, b = link_to(1), link_to(2)

    wait(core, 10.01)
    assert asked(orders, proxy) == 1
    core.hear(proxy, others(a, b), 10.02)

    orders.take(proxy)
    assert met(orders) == [a.host_id, b.host_id]


def test_with_a_tracker_that_answers_no_proxy_is_asked() -> None:
    core, orders, proxy = reading(tracker_up=True)
    core.tracker_named(BLOB)

    wait(core, 60.0, answered=True)

    assert asked(orders, proxy) == 0


def test_a_tracker_that_does_not_answer_is_waited_for_only_so_long() -> None:
    core, orders, proxy = reading(tracker_up=True)

    wait(core, 10.0 + 0.9 * TRACKER_ANSWERS_S)
    assert asked(orders, proxy) == 0
    wait(core, 10.0 + 1.1 * TRACKER_ANSWERS_S)
    assert asked(orders, proxy) >= 1


def test_when_the_tracker_dies_the_proxy_is_asked() -> None:
    core, orders, proxy = reading(tracker_up=True)
    core.tracker_named(BLOB)
    wait(core, 20.0, answered=True)
    assert asked(orders, proxy) == 0

    core.tracker_moved(20.0, up=False)
    core.act(20.0)
    wait(core, 21.1)

    assert asked(orders, proxy) >= 1


def test_when_the_tracker_is_back_and_names_somebody_the_proxy_is_left_alone() -> None:
    core, orders, proxy = reading()
    wait(core, 12.0)
    assert asked(orders, proxy) >= 1

    core.tracker_moved(12.0, up=True)
    core.tracker_named(BLOB)
    wait(core, 90.0, answered=True)

    assert asked(orders, proxy) == 0


def test_it_is_asked_again_ever_more_seldom() -> None:
    core, orders, proxy = reading()

    wait(core, 70.0)

    assert 8 <= asked(orders, proxy) <= 16


def test_who_knows_enough_peers_asks_for_no_more() -> None:
    core, orders, proxy = reading()
    for number in range(ENOUGH):
        core.blobs[BLOB].attach(link_to(number), 10.0)

    wait(core, 40.0)

    assert asked(orders, proxy) == 0


def test_only_a_proxy_of_our_settings_that_was_asked_is_believed() -> None:
    core, orders, proxy = reading()
    a, stranger = link_to(1), Member(HostId("e" * 32), Role.PROXY, PLACE)
    core.hear(proxy, others(a), 10.0)  # nobody asked
    wait(core, 10.01)
    assert asked(orders, proxy) == 1

    core.hear(LinkState(stranger, lambda: 0, speaks_who_else=True), others(a), 10.1)
    core.hear(link_to(3), others(a), 10.1)
    orders.take(proxy)
    assert not met(orders)

    core.hear(proxy, others(a), 10.1)
    core.hear(proxy, others(link_to(4)), 10.2)  # one answer to one question
    orders.take(proxy)
    assert met(orders) == [a.host_id]


def test_hosts_of_other_datacenters_and_known_ones_are_not_met() -> None:
    core, orders, proxy = reading()
    known, abroad, new = link_to(1), link_to(2, place=Place("dc2")), link_to(3)
    core.blobs[BLOB].attach(known, 10.0)
    wait(core, 10.01)

    core.hear(proxy, others(known, abroad, new), 10.1)

    orders.take(proxy)
    assert met(orders) == [new.host_id]


def test_an_older_proxy_is_never_asked() -> None:
    core, orders, proxy = reading()
    older = LinkState(Member(PROXY, Role.PROXY, PLACE), lambda: 0)
    core.link_down(proxy, 10.0, gone=True)
    core.blobs[BLOB].attach(older, 10.0)

    wait(core, 60.0)

    assert asked(orders, older) == 0


def test_a_proxy_asks_nobody() -> None:
    core = host(is_proxy=True, proxies={PROXY})
    orders, parent = Orders(core), proxy_link()
    blob = core.take_up(BLOB, SIZE_BYTES, 10.0)
    blob.join(10.0)
    blob.attach(parent, 10.0)

    wait(core, 60.0)

    assert asked(orders, parent) == 0


def test_who_left_the_swarm_asks_nobody() -> None:
    core, orders, proxy = reading()
    core.let_go(core.blobs[BLOB], 10.0)

    wait(core, 60.0)

    assert asked(orders, proxy) == 0
