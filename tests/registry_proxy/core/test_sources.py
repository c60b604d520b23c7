"""The order in which a proxy looks for a blob."""

from __future__ import annotations

from p2pdist.registry_proxy.core.following import BlobView
from p2pdist.registry_proxy.core.leasing import SOURCE_SILENCE_S
from p2pdist.registry_proxy.core.sources import (
    INTRODUCE_S,
    SWARM_SILENCE_S,
    AskOrigin,
    Event,
    FollowParents,
    FollowSwarm,
    Introduce,
    Introduced,
    Leased,
    Looked,
    Order,
    OriginTold,
    ReadRegistry,
    RegistryRead,
    SourcesCore,
    Stop,
    Wait,
)

NOTHING = BlobView(idle_s=3600.0)
WHOLE = BlobView(complete=True)
FAILED = BlobView(failed=True)


class Driven:
    def __init__(self, *, parents: bool = True) -> None:
        self.core = SourcesCore(parents=parents)
        self.now_s = 100.0

    def happens(self, event: Event, after_s: float = 0.0) -> Order:
        self.now_s += after_s
        order = self.core.handle(event, self.now_s)
        self.core.validate()
        return order


def test_the_swarm_is_first_then_the_parents_then_the_registry() -> None:
    driven = Driven()

    assert driven.happens(Leased(True, 2, NOTHING)) == FollowSwarm()
    assert driven.happens(Looked(NOTHING)) == Wait()
    assert driven.happens(Looked(NOTHING), SWARM_SILENCE_S) == Introduce(INTRODUCE_S)
    assert driven.happens(Introduced(True, NOTHING)) == FollowParents()
    assert driven.happens(Looked(NOTHING)) == Wait()
    assert driven.happens(Looked(NOTHING), SOURCE_SILENCE_S) == AskOrigin()
    assert driven.happens(OriginTold(True, NOTHING)) == ReadRegistry(alone=True)
    assert driven.happens(RegistryRead()) == Stop()


def test_a_swarm_that_holds_nothing_is_not_waited_for() -> None:
    assert Driven().happens(Leased(True, 0, NOTHING)) == Introduce(INTRODUCE_S)
    assert Driven(parents=False).happens(Leased(True, 0, NOTHING)) == AskOrigin()


def test_a_source_is_followed_as_long_as_it_brings_some() -> None:
    driven = Driven()
    driven.happens(Leased(True, 2, NOTHING))

    assert driven.happens(Looked(BlobView(idle_s=0.25)), SWARM_SILENCE_S) == Wait()
    assert driven.core.next_deadline_s() == driven.now_s - 0.25 + SWARM_SILENCE_S


def test_the_swarm_that_stands_still_is_left_for_the_registry_without_parents() -> None:
    driven = Driven(parents=False)
    driven.happens(Leased(True, 2, NOTHING))

    assert driven.happens(Looked(NOTHING), SWARM_SILENCE_S) == AskOrigin()


def test_parents_that_have_it_not_are_not_followed() -> None:
    driven = Driven()
    driven.happens(Leased(True, 0, NOTHING))

    assert driven.happens(Introduced(False, NOTHING)) == AskOrigin()


def test_who_reads_alone_has_both_leases() -> None:
    for leased, granted in ((True, False), (False, True), (False, False), (True, True)):
        driven = Driven(parents=False)
        driven.happens(Leased(leased, 0, NOTHING))

        order = driven.happens(OriginTold(granted, NOTHING))
        assert order == ReadRegistry(alone=leased and granted)


def test_what_is_whole_or_has_failed_needs_no_source() -> None:
    """Nobody is asked for it any more, however far the search has come."""
    for over in (WHOLE, FAILED):
        assert Driven().happens(Leased(True, 2, over)) == Stop()
        driven = Driven()
        driven.happens(Leased(True, 2, NOTHING))
        assert driven.happens(Looked(over)) == Stop()
        driven = Driven()
        driven.happens(Leased(True, 0, NOTHING))
        assert driven.happens(Introduced(True, over)) == Stop()
        driven = Driven(parents=False)
        driven.happens(Leased(True, 0, NOTHING))
        assert driven.happens(OriginTold(True, over)) == Stop()
