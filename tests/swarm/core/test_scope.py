from __future__ import annotations

from p2pdist.swarm.core.scope import REST_S, Scope


def test_only_what_a_first_demand_reader_needs_is_wanted() -> None:
    scope = Scope()
    assert scope.whole

    scope.part_wanted()

    assert not scope.whole


def test_what_a_pull_began_is_finished_whoever_reads_it_then() -> None:
    scope = Scope()
    scope.part_wanted()
    scope.all_wanted()
    scope.part_wanted()
    scope.unread(0.0)

    assert scope.whole
    assert scope.rests_at_s is None


def test_an_order_that_is_taken_back_leaves_what_demand_readers_need() -> None:
    scope = Scope()
    scope.all_wanted()
    scope.order_ended()
    scope.part_wanted()

    assert not scope.whole


def test_it_rests_once_some_time_after_its_last_demand_reader() -> None:
    scope = Scope()
    scope.part_wanted()
    scope.unread(5.0)

    assert not scope.rest_due(5.0 + REST_S / 2)
    assert scope.rest_due(5.0 + REST_S)
    assert not scope.rest_due(5.0 + 2 * REST_S)


def test_a_reader_that_comes_in_time_keeps_it_from_resting() -> None:
    for comes in (Scope.part_wanted, Scope.all_wanted):
        scope = Scope()
        scope.part_wanted()
        scope.unread(5.0)
        comes(scope)

        assert scope.rests_at_s is None
        assert not scope.rest_due(5.0 + REST_S)
