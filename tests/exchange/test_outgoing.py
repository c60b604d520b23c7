"""The order of runs, on one link and across links, with time as a number."""

from __future__ import annotations

from collections import deque

from p2pdist.exchange.outgoing import HOLD_S, TRICKLE_S, BulkHold, OutgoingRun, OutgoingRuns

FILE = 5


def run_of(request_id: int, ended: list[int], *, bulk: bool, slices: int = 1) -> OutgoingRun:
    spans = deque((i, i, 1) for i in range(slices))
    return OutgoingRun(
        request_id, lambda _: ended.append(request_id), FILE, bulk=bulk, chunks=spans
    )


def small_of(request_id: int) -> OutgoingRun:
    return OutgoingRun(request_id, lambda _: None, b"x", small=True, chunks=deque([(0, 0, 1)]))


def begun(runs: OutgoingRuns, now_s: float) -> OutgoingRun | None:
    run = runs.next(now_s)
    if run is not None:
        runs.begin(run, now_s)
    return run


def test_an_urgent_run_overtakes_bulk_that_has_begun() -> None:
    runs, ended = OutgoingRuns(BulkHold(), 8), list[int]()
    runs.add(run_of(1, ended, bulk=True, slices=2))
    first = begun(runs, 0.0)
    assert first is not None
    first.chunks.popleft()
    runs.add(run_of(2, ended, bulk=False))

    urgent = begun(runs, 0.0)

    assert urgent is not None
    assert urgent.request_id == 2
    urgent.chunks.popleft()
    assert begun(runs, 0.0) is None
    assert ended == [2]
    again = begun(runs, HOLD_S)
    assert again is first


def test_bulk_of_all_links_waits_while_one_sends_what_is_urgent() -> None:
    hold, ended = BulkHold(), list[int]()
    busy, other = OutgoingRuns(hold, 8), OutgoingRuns(hold, 8)
    busy.add(run_of(1, ended, bulk=False, slices=9))
    other.add(run_of(2, ended, bulk=True, slices=9))
    assert begun(other, 0.9) is not None

    assert begun(busy, 1.0) is not None
    assert begun(other, 1.0) is None
    assert other.held_s(1.0) == HOLD_S

    assert begun(other, 1.0 + HOLD_S) is not None


def test_held_bulk_trickles() -> None:
    hold = BulkHold()
    runs = OutgoingRuns(hold, 8)
    runs.add(run_of(1, [], bulk=True, slices=1000))
    sent = 0
    for step in range(1000):
        hold.urgent_sent(step / 100)
        sent += begun(runs, step / 100) is not None

    assert sent == 10 / TRICKLE_S


def test_bulk_that_waits_for_the_upload_budget_has_not_trickled() -> None:
    hold = BulkHold()
    runs = OutgoingRuns(hold, 8)
    runs.add(run_of(1, [], bulk=True))
    hold.urgent_sent(0.0)

    assert runs.next(0.1) is not None
    assert begun(runs, 0.2) is not None
    assert runs.next(0.2) is None


def test_a_small_body_goes_first_but_holds_up_no_bulk() -> None:
    runs = OutgoingRuns(BulkHold(), 8)
    runs.add(run_of(1, [], bulk=True))
    runs.add(small_of(2))

    small = begun(runs, 0.0)
    assert small is not None
    assert small.request_id == 2
    small.chunks.popleft()

    bulk = begun(runs, 0.0)
    assert bulk is not None
    assert bulk.request_id == 1
    assert runs.held_s(0.0) == 0.0


def test_bulk_does_not_fill_the_place_of_urgent_runs() -> None:
    runs = OutgoingRuns(BulkHold(), 2)
    for request_id in (1, 2):
        runs.add(run_of(request_id, [], bulk=True))

    assert runs.full(bulk=True)
    assert not runs.full(bulk=False)


def test_the_end_tells_every_run_once() -> None:
    runs, ended = OutgoingRuns(BulkHold(), 8), list[int]()
    runs.add(run_of(1, ended, bulk=True))
    runs.add(run_of(2, ended, bulk=False))

    runs.end()
    runs.end()

    assert sorted(ended) == [1, 2]
    assert not runs
