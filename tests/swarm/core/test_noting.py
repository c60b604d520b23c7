"""What the cores of a blob write into its log."""

from __future__ import annotations

import pytest

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import Offer, Request
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.ids import MapId, RequestId, digest_of
from p2pdist.model.members import Role
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.event_log import Kind, Lack
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.rescue import STALL_S
from tests.swarm.core.hosts import Orders, host, link_to
from tests.swarm.core.test_host import ONE, SIZE, in_motion, known_map

CHUNK = 256 * 1024
ALL = (1 << 8) - 1


def offer(blob: BlobCore, link: LinkState, now_s: float, first: int = 0, count: int = 8) -> None:
    blob.hear(link, Offer(ONE, MapId(b"m" * 16), ((first, count),)), now_s)


def asked(core: HostCore, blob: BlobCore, *letters: str) -> list[LinkState]:
    """The blob is read, and asked of these hosts, who all offer it."""
    links = [link_to(letter) for letter in letters]
    blob.wanting.open_reader(0.0)
    blob.join(0.0)
    for link in links:
        blob.attach(link, 0.0)
        offer(blob, link, 0.0)
    core.act(0.0)
    return links


def run_until(core: HostCore, until_s: float) -> None:
    while (due_s := core.next_deadline_s()) is not None and due_s <= until_s:
        core.handle_deadline(due_s)
        core.act(due_s)


def kinds(blob: BlobCore, now_s: float) -> dict[Kind, list[str]]:
    """The hosts of each kind of entry."""
    found: dict[Kind, list[str]] = {}
    for entry in blob.log.story(now_s).entries:
        found.setdefault(entry.kind, []).append(entry.host[:1])
    return found


def test_a_silent_neighbour_is_waited_for_by_name_and_given_up() -> None:
    core = host()
    blob = in_motion(core, ONE)
    asked(core, blob, "a")

    run_until(core, STALL_S + 0.5)

    story = blob.log.story(STALL_S + 0.5)
    assert kinds(blob, STALL_S + 0.5)[Kind.STALLED] == ["a"]
    assert story.lacks.keys() == {Lack.ANSWER}
    (silence,) = (entry for entry in story.entries if entry.kind is Kind.SILENCE)
    assert silence.host == "a" * 32
    assert silence.for_s == pytest.approx(STALL_S + 0.5)


def test_what_a_reader_waits_for_is_asked_of_another_one_too() -> None:
    core = host()
    blob = in_motion(core, ONE)
    asked(core, blob, "a", "b")

    run_until(core, 1.0)

    assert kinds(blob, 1.0)[Kind.HEDGED] in (["a"], ["b"], ["a", "b"], ["b", "a"])


def test_a_chunk_that_comes_twice_counts_once() -> None:
    core = host()
    orders, blob = Orders(core), in_motion(core, ONE)
    a, b = asked(core, blob, "a", "b")
    (request,) = orders.said(a, Request)
    assert isinstance(request, Request)

    blob.arrived(a, request.request_id, request.first, 0.1, good=True)
    blob.arrived(b, RequestId(99), request.first, 0.2, good=True)

    (source,) = blob.log.story(1.0).sources
    assert (source.host, source.label, source.nbytes) == ("a" * 32, "dc", CHUNK)


def test_wrong_bytes_are_no_payload() -> None:
    core = host()
    blob = in_motion(core, ONE)
    (a,) = asked(core, blob, "a")

    blob.arrived(a, RequestId(1), 0, 0.1, good=False)
    core.punish(link_to("z"), PeerFault("wrong", reason="hash"), 0.1)

    (source,) = blob.log.story(1.0).sources
    assert (source.nbytes, source.bad) == (0, 1)
    assert kinds(blob, 1.0)[Kind.PUNISHED] == ["a"]


def test_a_chunk_of_another_cut_is_nothing() -> None:
    core = host()
    blob = in_motion(core, ONE)
    (a,) = asked(core, blob, "a")

    blob.arrived(a, RequestId(1), 4000, 0.1, good=True)

    assert blob.log.story(1.0).sources == []


def test_what_lay_here_is_whole_at_once() -> None:
    core = host()
    blob = core.take_up(ONE, SIZE, 0.0)
    sealed = known_map(ONE)
    sealed.state = type(sealed.state).SEALED
    blob.map_followed(sealed, ALL, 0.0)

    story = blob.log.story(9.0)
    assert (story.outcome, story.ended_s, story.sources, story.lacks) == ("whole", 0.0, [], {})
    assert not story.wanted


def test_while_nothing_comes_it_is_said_for_lack_of_what() -> None:
    core = host()
    blob = core.take_up(ONE, SIZE, 0.0)
    blob.join(0.0)
    assert blob._lack() == (Lack.NEIGHBOUR, "")

    a = link_to("a", Role.PROXY)
    blob.attach(a, 1.0)
    assert blob._lack() == (Lack.MAP, "")

    blob.map_followed(known_map(ONE), 0, 2.0)
    assert blob._lack() == (Lack.OFFER, "")

    offer(blob, a, 3.0)
    core.act(3.0)
    assert blob._lack() == (Lack.ANSWER, a.host_id)

    blob.landed(ALL, 4.0)
    blob.link_down(a, 4.0, gone=True)
    blob.attach(link_to("b"), 4.0)
    assert blob._lack() == (Lack.HASHES, "")

    blob.log.turned_to("registry", 5.0, host="docker.io")
    assert blob._lack() == (Lack.REGISTRY, "")


def test_why_a_link_ended_is_told() -> None:
    core = host()
    blob = in_motion(core, ONE)
    blob.join(0.0)
    a = link_to("a")
    blob.attach(a, 0.0)

    core.link_down(a, 1.0, gone=True, why="does not read")

    (down,) = [entry for entry in blob.log.story(1.0).entries if entry.kind is Kind.DOWN]
    assert (down.host, down.text) == (a.host_id, "does not read")


def test_bulk_at_a_low_rate_is_held_back_by_its_pace() -> None:
    core = host()
    blob = in_motion(core, ONE)
    blob.wanting.order_bulk(TokenBucket(CHUNK, CHUNK, 0.0), 0.0)
    blob.join(0.0)
    a = link_to("a")
    blob.attach(a, 0.0)
    offer(blob, a, 0.0)
    core.act(0.0)

    run_until(core, 3.0)

    story = blob.log.story(3.0)
    assert 1.0 < story.held_s < 3.5
    assert kinds(blob, 3.0)[Kind.HELD]


def test_a_second_motion_has_a_story_of_its_own() -> None:
    core = host()
    first = core.take_up(ONE, SIZE, 0.0)
    first.fail("no source", 1.0)
    core.let_go(first, 2.0)
    core.take_up(ONE, SIZE, 3.0)
    core.take_up(digest_of(b"other"), SIZE, 4.0)

    outcomes = [log.outcome for log in core.events.logs() if log.digest == ONE]
    assert outcomes == ["under_way", "failed"]
