"""Alarms come in their order, and long lists a slice at a time."""

from __future__ import annotations

from p2pdist.tracker.core.jobs.alarms import SLICE, SLICE_PAUSE_S, Alarms
from p2pdist.tracker.core.jobs.target import Target


def targets(count: int) -> list[Target]:
    return [Target(str(number), "", "dc", "", 0) for number in range(count)]


def test_alarms_go_off_in_the_order_of_their_times_then_as_they_were_set() -> None:
    alarms, said = Alarms(), list[str]()
    alarms.at(2.0, lambda _: said.append("c"))
    alarms.at(1.0, lambda _: said.append("a"))
    alarms.at(1.0, lambda _: said.append("b"))

    alarms.run_due(0.9)
    assert said == []
    assert alarms.next_s() == 1.0
    alarms.run_due(2.0)
    assert said == ["a", "b", "c"]
    assert alarms.next_s() is None


def test_work_is_told_when_it_is_done_not_when_it_was_due() -> None:
    alarms, at = Alarms(), list[float]()
    alarms.at(1.0, at.append)

    alarms.run_due(5.0)

    assert at == [5.0]


def test_an_alarm_that_sets_itself_again_goes_off_a_slice_at_a_time() -> None:
    alarms, times = Alarms(), list[float]()

    def again(now_s: float) -> None:
        times.append(now_s)
        alarms.at(now_s, again)

    alarms.at(0.0, again)
    alarms.run_due(0.0)

    assert len(times) == SLICE


def test_a_long_list_is_gone_through_slice_by_slice_and_then_told() -> None:
    alarms, seen, told = Alarms(), list[str](), list[float]()
    everybody = targets(2 * SLICE + 50)
    alarms.each(everybody, lambda target, _: seen.append(target.host_id), told.append)
    alarms.each(targets(1), lambda target, _: seen.append("next"))

    alarms.run_due(0.0)
    assert (len(seen), told) == (SLICE, [])
    alarms.run_due(SLICE_PAUSE_S / 2)
    assert len(seen) == SLICE
    assert alarms.next_s() == SLICE_PAUSE_S
    alarms.run_due(SLICE_PAUSE_S)
    alarms.run_due(2 * SLICE_PAUSE_S)

    assert seen == [*(target.host_id for target in everybody), "next"]
    assert told == [2 * SLICE_PAUSE_S]
    assert alarms.next_s() is None


def test_an_empty_list_is_done_at_once() -> None:
    alarms, told = Alarms(), list[float]()
    alarms.each([], lambda *_: None, told.append)

    alarms.run_due(3.0)

    assert told == [3.0]
