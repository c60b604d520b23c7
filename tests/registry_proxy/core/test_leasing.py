"""Every rule of how a lease is got."""

from __future__ import annotations

from p2pdist.model.control import LeaseAnswer, digest_key
from p2pdist.model.ids import digest_of
from p2pdist.registry_proxy.core.following import BlobView
from p2pdist.registry_proxy.core.leasing import (
    ASK_AGAIN_S,
    ASK_ORIGIN_S,
    ASK_S,
    IN_VAIN_S,
    SOURCE_SILENCE_S,
    Answered,
    Ask,
    Copy,
    Event,
    Kind,
    LeaseCore,
    Looked,
    NotReached,
    Order,
    Phase,
    Reached,
    Started,
    Use,
    Wait,
)
from tests.tracker.hosts import member

KEY = digest_key(digest_of(b"layer"))
REFUSED = LeaseAnswer(1, KEY, 0, 60.0, holder=member(1))
GRANTED = LeaseAnswer(2, KEY, 5, 60.0, holders=3)
NOTHING = BlobView()
WHOLE = BlobView(complete=True)


class Driven:
    """Time stands still unless a test moves it."""

    def __init__(self, kind: Kind = Kind.DATACENTER) -> None:
        self.core = LeaseCore(kind)
        self.now_s = 100.0

    def happens(self, event: Event, after_s: float = 0.0) -> Order:
        self.now_s += after_s
        order = self.core.handle(event, self.now_s)
        self.core.validate()
        return order

    def copies(self) -> None:
        assert self.happens(Started(NOTHING)) == Ask(ASK_S)
        assert self.happens(Answered(REFUSED, NOTHING)) == Copy(member(1))
        assert self.happens(Reached(NOTHING)) == Wait()


def test_a_grant_is_used_and_given_back_once() -> None:
    driven = Driven()
    driven.happens(Started(NOTHING))

    assert driven.happens(Answered(GRANTED, NOTHING)) == Use(5, 3)
    assert driven.core.end() == 5
    assert driven.core.end() is None


def test_another_datacenter_gets_more_time_to_answer() -> None:
    assert Driven(Kind.ORIGIN).happens(Started(NOTHING)) == Ask(ASK_ORIGIN_S)


def test_nobody_is_asked_about_what_is_whole() -> None:
    driven = Driven()

    assert driven.happens(Started(WHOLE)) == Use()
    assert driven.core.end() is None


def test_without_a_tracker_a_proxy_goes_ahead() -> None:
    driven = Driven()
    driven.happens(Started(NOTHING))

    assert driven.happens(Answered(None, NOTHING)) == Use()


def test_a_refusal_that_names_nobody_is_no_reason_to_wait() -> None:
    driven = Driven()
    driven.happens(Started(NOTHING))

    assert driven.happens(Answered(LeaseAnswer(1, KEY, 0, 60.0), NOTHING)) == Use()


def test_what_the_holder_brings_to_the_end_needs_no_lease() -> None:
    driven = Driven()
    driven.copies()

    assert driven.happens(Looked(WHOLE), 0.3) == Use()


def test_a_holder_is_waited_for_as_long_as_it_brings_some() -> None:
    driven = Driven()
    driven.copies()
    for _ in range(10):
        driven.now_s += SOURCE_SILENCE_S
        assert driven.happens(Looked(BlobView(idle_s=0.1))) == Wait()

    assert driven.core.next_deadline_s() == driven.now_s - 0.1 + SOURCE_SILENCE_S


def test_the_tracker_is_asked_again_when_the_holder_is_gone() -> None:
    driven = Driven()
    driven.copies()

    assert driven.happens(Looked(NOTHING, source_gone=True), 0.1) == Wait()
    assert driven.core.next_deadline_s() == driven.now_s + ASK_AGAIN_S
    assert driven.happens(Looked(NOTHING), ASK_AGAIN_S / 2) == Wait()
    assert driven.happens(Looked(NOTHING), ASK_AGAIN_S) == Ask(ASK_S)
    assert driven.happens(Answered(GRANTED, NOTHING)) == Use(5, 3)


def test_what_comes_while_the_next_question_waits_ends_it() -> None:
    driven = Driven()
    driven.copies()
    driven.happens(Looked(NOTHING, source_gone=True), 0.1)

    assert driven.happens(Looked(WHOLE)) == Use()


def test_a_holder_that_cannot_be_reached_is_asked_for_again() -> None:
    driven = Driven()
    driven.happens(Started(NOTHING))
    driven.happens(Answered(REFUSED, NOTHING))

    assert driven.happens(NotReached(NOTHING)) == Wait()
    assert driven.core.phase is Phase.PAUSING


def test_a_silent_holder_is_not_waited_for() -> None:
    """A lease spares a second reading of the registry; it is no condition of a pull."""
    driven = Driven()
    driven.copies()

    silent = BlobView(idle_s=3600.0)
    assert driven.happens(Looked(silent), SOURCE_SILENCE_S) == Use(holder_silent=True)
    assert driven.core.end() is None


def test_a_holder_that_brought_some_gets_its_time_again() -> None:
    """Slow is not silent: the registry would be read twice."""
    driven = Driven()
    driven.copies()
    some = BlobView(prefix_chunks=1)
    driven.happens(Looked(some, source_gone=True), IN_VAIN_S)
    driven.happens(Looked(some), ASK_AGAIN_S)
    driven.happens(Answered(REFUSED, some))

    assert driven.happens(NotReached(some)) == Wait()


def test_before_the_registry_who_read_it_last_is_asked() -> None:
    driven = Driven(Kind.ORIGIN)
    driven.happens(Started(NOTHING))
    granted = LeaseAnswer(2, KEY, 7, 60.0, holder=member(4))

    assert driven.happens(Answered(granted, NOTHING)) == Copy(member(4))
    assert driven.happens(Reached(NOTHING)) == Wait()
    assert driven.happens(Looked(BlobView(idle_s=9.0)), SOURCE_SILENCE_S) == Use(7)
    assert driven.core.end() == 7


def test_whoever_read_it_last_and_is_gone_holds_nobody_up() -> None:
    driven = Driven(Kind.ORIGIN)
    driven.happens(Started(NOTHING))
    driven.happens(Answered(LeaseAnswer(2, KEY, 7, 60.0, holder=member(4)), NOTHING))

    assert driven.happens(NotReached(NOTHING)) == Use(7)


def test_a_grant_is_given_back_by_who_is_cancelled_before_its_use() -> None:
    driven = Driven(Kind.ORIGIN)
    driven.happens(Started(NOTHING))
    driven.happens(Answered(LeaseAnswer(2, KEY, 7, 60.0, holder=member(4)), NOTHING))

    assert driven.core.end() == 7
    driven.core.validate()


def test_a_lease_of_the_datacenter_leaves_its_last_holder_to_the_swarm() -> None:
    driven = Driven()
    driven.happens(Started(NOTHING))

    granted = LeaseAnswer(2, KEY, 7, 60.0, holder=member(4), holders=1)
    assert driven.happens(Answered(granted, NOTHING)) == Use(7, 1)
