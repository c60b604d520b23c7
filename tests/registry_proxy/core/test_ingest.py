"""Every rule of how a blob is read from its registries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.registry_proxy.core import ingest_events as events
from p2pdist.registry_proxy.core import ingest_orders as orders
from p2pdist.registry_proxy.core.ingest import (
    GIVE_WAY_S,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    SKIP_BYTES_MIN,
    TRIES_MAX,
    Phase,
)
from p2pdist.registry_proxy.core.ingest_events import IngestView
from tests.registry_proxy.core.ingesting import (
    CHUNKS,
    DOWN,
    EMPTY,
    FIRST,
    GEOMETRY,
    SECOND,
    SIZE,
    UNKNOWN,
    Driven,
    at,
)

WHOLE = replace(at(CHUNKS), complete=True)
SKIPPED_MIN = SKIP_BYTES_MIN // GEOMETRY.chunk_size_bytes
PAUSE = [orders.Join(), orders.Wait()]

# --- a blob from its first byte to its last -------------------------------------------------------


def test_a_whole_body_is_sealed() -> None:
    driven = Driven()
    driven.reads()

    assert driven.happens(events.Filled(1, 1, at_its_pace=True)) == []
    assert driven.happens(events.BodyLeft(CHUNKS)) == [orders.CloseBody()]
    assert driven.happens(events.BodyClosed(at(CHUNKS))) == [orders.Conclude()]
    assert driven.happens(events.Concluded(sealed=False, matches=True)) == [
        orders.Seal(),
        orders.Delivered(FIRST),
    ]
    assert driven.core.phase is Phase.OVER


def test_what_others_sealed_meanwhile_is_not_sealed_again() -> None:
    driven = Driven()
    driven.reads()
    driven.happens(events.BodyLeft(CHUNKS))
    driven.happens(events.BodyClosed(at(CHUNKS)))

    given = driven.happens(events.Concluded(sealed=True, matches=True))
    assert given == [orders.Delivered(FIRST)]


def test_what_has_not_the_digest_is_taken_back() -> None:
    driven = Driven()
    driven.reads()
    driven.happens(events.BodyLeft(CHUNKS))
    driven.happens(events.BodyClosed(at(CHUNKS)))

    assert driven.happens(events.Concluded(sealed=False, matches=False)) == [orders.Disprove(FIRST)]


def test_a_registry_that_sent_a_part_delivered_nothing() -> None:
    driven = Driven()
    driven.reads(at(10))
    driven.happens(events.BodyLeft(CHUNKS))
    driven.happens(events.BodyClosed(at(CHUNKS)))

    assert driven.happens(events.Concluded(sealed=False, matches=True)) == [orders.Seal()]


def test_what_is_whole_or_has_failed_or_has_another_size_is_left_alone() -> None:
    for view in (WHOLE, replace(EMPTY, failed=True), replace(EMPTY, overruled=True, fits=False)):
        driven = Driven()
        assert driven.starts(view) == []
        assert driven.core.phase is Phase.OVER


def test_without_the_leases_it_takes_part_in_the_swarm_at_once() -> None:
    assert orders.Join() in Driven(alone=False).starts()
    assert orders.Join() not in Driven().starts()


# --- what lies here -------------------------------------------------------------------------------


def test_what_lies_here_is_signed_where_it_has_the_digest() -> None:
    driven = Driven()

    assert driven.happens(events.Started(EMPTY, lies_here=True)) == [orders.OpenMap(fresh=True)]
    assert driven.happens(events.MapOpened(EMPTY)) == [orders.ReadLaid()]
    assert driven.happens(events.LaidRead(EMPTY, matches=True)) == [orders.SignLaid()]
    assert driven.happens(events.LaidSigned(WHOLE)) == []
    assert driven.core.phase is Phase.OVER


def test_what_lies_here_and_is_no_use_is_read_anew() -> None:
    asked = [orders.OpenBody(FIRST, 0)]
    for last in (events.LaidRead(EMPTY, matches=False), events.DiskFailed(EMPTY)):
        driven = Driven()
        driven.happens(events.Started(EMPTY, lies_here=True))
        driven.happens(events.MapOpened(EMPTY))
        assert driven.happens(last) == asked


# --- from gap to gap ------------------------------------------------------------------------------


def test_the_digest_runs_over_what_is_here_before_the_rest_is_asked_for() -> None:
    driven = Driven()

    assert driven.starts(at(10)) == [orders.HashOn(0, 10)]
    assert driven.happens(events.HashedOn(at(12))) == [orders.HashOn(10, 12)]
    assert driven.happens(events.HashedOn(at(12))) == [orders.OpenBody(FIRST, 12)]


def test_what_is_all_here_is_concluded_without_a_request() -> None:
    driven = Driven()
    driven.starts(at(CHUNKS))

    assert driven.happens(events.HashedOn(at(CHUNKS))) == [orders.OpenMap(fresh=False)]
    assert driven.happens(events.MapOpened(at(CHUNKS))) == [orders.Conclude()]


@pytest.mark.parametrize(
    ("here_until", "skips"),
    [(10, False), (11, False), (9 + SKIPPED_MIN, False), (10 + SKIPPED_MIN, True), (CHUNKS, True)],
)
def test_what_is_here_is_skipped_where_a_request_costs_less(here_until: int, skips: bool) -> None:
    driven = Driven()
    driven.reads()

    given = driven.happens(events.Filled(10, here_until, at_its_pace=True))
    assert given == ([orders.LeaveBody()] if skips else [])


def test_a_body_that_was_left_is_gone_on_with_at_the_next_gap() -> None:
    driven = Driven()
    driven.reads()
    driven.happens(events.Filled(10, 10 + SKIPPED_MIN, at_its_pace=True))
    there = at(10 + SKIPPED_MIN)

    assert driven.happens(events.BodyLeft(10)) == [orders.CloseBody()]
    assert driven.happens(events.BodyClosed(there)) == [orders.HashOn(10, 10 + SKIPPED_MIN)]
    assert driven.happens(events.HashedOn(there)) == [orders.OpenBody(FIRST, 10 + SKIPPED_MIN)]


def test_what_became_urgent_is_asked_for_anew() -> None:
    """The kernel was told to take in little of this body, which cannot be undone."""
    driven = Driven()
    driven.reads()

    assert driven.happens(events.Filled(3, 3, at_its_pace=False)) == [orders.LeaveBody()]


def test_a_blob_that_has_failed_is_not_read_to_its_end() -> None:
    driven = Driven()
    driven.reads()

    given = driven.happens(events.Filled(3, 3, at_its_pace=True, failed=True))
    assert given == [orders.LeaveBody()]
    driven.happens(events.BodyLeft(3))
    assert driven.happens(events.BodyClosed(replace(at(3), failed=True))) == []
    assert driven.core.phase is Phase.OVER


def test_a_chunk_that_rotted_is_not_hashed_behind_what_follows_it() -> None:
    """The digest would be wrong, and a good map taken back."""
    driven = Driven()
    driven.reads(at(10))
    driven.happens(events.Filled(20, CHUNKS - 1, at_its_pace=True))
    driven.happens(events.BodyLeft(20))

    assert driven.happens(events.BodyClosed(at(5))) == [orders.HashOn(0, 5)]


def test_what_was_completed_by_others_is_not_hashed() -> None:
    driven = Driven()
    driven.reads(at(10))
    driven.happens(events.Filled(20, CHUNKS, at_its_pace=True))
    driven.happens(events.BodyLeft(20))

    assert driven.happens(events.BodyClosed(WHOLE)) == []
    assert driven.core.phase is Phase.OVER


# --- two readers ----------------------------------------------------------------------------------


def test_without_the_leases_the_others_first_chunk_is_looked_out_for() -> None:
    driven = Driven(alone=False)
    driven.starts()

    assert driven.happens(events.BodyOpened(EMPTY, SIZE)) == [orders.Wait()]
    assert driven.core.next_deadline_s() == driven.now_s + GIVE_WAY_S
    assert driven.happens(events.Looked(EMPTY), GIVE_WAY_S / 2) == [orders.Wait()]
    assert driven.happens(events.Looked(EMPTY), GIVE_WAY_S) == [orders.OpenMap(fresh=True)]


def test_who_sees_another_bring_it_gives_way() -> None:
    driven = Driven(alone=False)
    driven.starts()
    driven.happens(events.BodyOpened(EMPTY, SIZE))

    assert driven.happens(events.Looked(at(1)), 0.2) == [orders.CloseBody()]
    assert driven.happens(events.BodyClosed(at(1))) == [orders.Wait()]
    assert driven.happens(events.Looked(WHOLE), 5.0) == []
    assert driven.core.phase is Phase.OVER


def test_another_that_falls_silent_is_waited_for_no_longer() -> None:
    driven = Driven(alone=False)
    driven.starts()
    driven.happens(events.BodyOpened(EMPTY, SIZE))
    driven.happens(events.Looked(at(1)), 0.2)
    driven.happens(events.BodyClosed(at(1)))

    silent = replace(at(4), idle_s=GIVE_WAY_S)
    assert driven.happens(events.Looked(silent), GIVE_WAY_S) == [orders.HashOn(0, 4)]


def test_who_has_the_leases_gives_way_to_what_came_already() -> None:
    driven = Driven()
    driven.starts()

    assert driven.happens(events.BodyOpened(at(1), SIZE)) == [orders.CloseBody()]


# --- failures -------------------------------------------------------------------------------------


def test_after_a_failure_the_next_name_is_tried() -> None:
    driven = Driven([FIRST, SECOND])
    assert driven.starts() == [orders.OpenBody(FIRST, 0)]

    assert driven.happens(events.Failed(EMPTY, DOWN)) == [orders.SayInterrupted(DOWN), *PAUSE]
    assert driven.waits() == [orders.OpenBody(SECOND, 0)]
    driven.happens(events.Failed(EMPTY, DOWN))
    assert driven.waits() == [orders.OpenBody(FIRST, 0)]


def test_the_pauses_grow_and_end_after_some_tries() -> None:
    driven = Driven()
    driven.starts()
    pauses_s = []
    for _ in range(TRIES_MAX - 1):
        driven.happens(events.Failed(EMPTY, DOWN))
        due_s = driven.core.next_deadline_s()
        assert due_s is not None
        pauses_s.append(due_s - driven.now_s)
        driven.waits()

    assert driven.happens(events.Failed(EMPTY, DOWN))[-1] == orders.Settle()
    assert RETRY_FIRST_S / 2 <= pauses_s[0] <= RETRY_FIRST_S < pauses_s[2] <= RETRY_MAX_S
    gave_out = orders.FailBlob("upstream gave out: no answer", None)
    assert driven.happens(events.Settled(EMPTY)) == [gave_out]
    assert driven.core.phase is Phase.OVER


def test_as_long_as_another_brings_some_the_registry_is_not_asked_again() -> None:
    driven = Driven()
    driven.starts()
    driven.happens(events.Failed(EMPTY, DOWN))

    for chunks in range(1, 20):
        assert driven.happens(events.Looked(replace(at(chunks), idle_s=0.1)), 1.0) == [
            orders.Wait()
        ]
    assert driven.happens(events.Looked(WHOLE)) == []


def test_a_blob_that_failed_in_the_pause_is_not_asked_for() -> None:
    driven = Driven()
    driven.starts()
    driven.happens(events.Failed(EMPTY, DOWN))

    assert driven.happens(events.Looked(replace(EMPTY, failed=True))) == []
    assert driven.core.phase is Phase.OVER


def test_no_map_is_opened_for_a_blob_that_failed_in_the_pause() -> None:
    driven = Driven()
    driven.reads()
    driven.happens(events.Failed(at(2), UpstreamError("chunk 2 differs"), differs=True))

    assert driven.happens(events.Looked(replace(at(2), failed=True))) == []


def test_another_size_that_was_proven_in_the_pause_ends_it() -> None:
    driven = Driven()
    driven.starts()
    driven.happens(events.Failed(EMPTY, DOWN))

    assert driven.waits(replace(EMPTY, overruled=True, fits=False)) == []
    assert driven.core.phase is Phase.OVER


def test_where_all_refuse_for_good_nobody_is_asked_again() -> None:
    driven = Driven([FIRST, SECOND])
    driven.starts()
    assert driven.happens(events.Failed(EMPTY, UNKNOWN))[1:] == PAUSE
    driven.waits()

    assert driven.happens(events.Failed(EMPTY, UNKNOWN))[1:] == [orders.Settle()]
    refused = orders.FailBlob("upstream gave out: not there", ErrorReason.UNKNOWN)
    assert driven.happens(events.Settled(EMPTY)) == [refused]


def test_a_refusal_of_what_lies_here_in_part_is_no_last_word() -> None:
    driven = Driven()
    driven.reads(at(10))

    assert driven.happens(events.Failed(at(10), UNKNOWN))[1:] == PAUSE


def test_an_outage_is_no_refusal() -> None:
    driven = Driven()
    driven.starts()

    assert driven.happens(events.Failed(EMPTY, DOWN))[1:] == PAUSE


def test_a_body_that_ends_early_is_a_failure_and_what_came_stays() -> None:
    driven = Driven()
    driven.reads()
    driven.happens(events.Filled(7, 7, at_its_pace=True))

    assert driven.happens(events.BodyLeft(7)) == [orders.CloseBody()]
    interrupted, *pause = driven.happens(events.BodyClosed(at(7)))
    assert isinstance(interrupted, orders.SayInterrupted)
    assert "ended at chunk 7" in str(interrupted.error)
    assert pause == PAUSE
    assert driven.waits(at(7)) == [orders.HashOn(0, 7)]


def test_a_map_that_vouches_for_other_bytes_is_not_used_again() -> None:
    driven = Driven()
    driven.reads(at(2))
    differs = UpstreamError("chunk 2 differs from its signed map")
    driven.happens(events.Failed(at(2), differs, differs=True))

    assert driven.waits(at(2)) == [orders.OpenMap(fresh=True)]
    assert driven.happens(events.MapOpened(EMPTY)) == [orders.OpenBody(FIRST, 0)]


def test_a_map_of_another_size_goes_before_anything_is_counted() -> None:
    driven = Driven()

    assert driven.starts(replace(at(50), fits=False)) == [orders.OpenMap(fresh=True)]


def test_another_size_that_comes_up_in_a_try_ends_the_try() -> None:
    driven = Driven()
    driven.reads()
    driven.happens(events.Filled(7, CHUNKS, at_its_pace=True))
    driven.happens(events.BodyLeft(7))

    given = driven.happens(events.BodyClosed(replace(at(7), fits=False)))
    assert isinstance(given[0], orders.SayInterrupted)
    assert given[1:] == PAUSE


def test_a_disk_that_fails_ends_it() -> None:
    driven = Driven()
    driven.reads()

    assert driven.happens(events.DiskFailed(EMPTY)) == [orders.StopStoring()]
    assert driven.core.phase is Phase.OVER


# --- sizes ----------------------------------------------------------------------------------------


def test_a_body_of_another_size_refutes_only_its_name() -> None:
    driven = Driven([FIRST, SECOND])
    driven.starts()

    given = driven.happens(events.BodyOpened(EMPTY, SIZE + 1))
    assert given == [orders.Refute(FIRST, SIZE + 1), orders.CloseBody()]
    assert driven.happens(events.BodyClosed(EMPTY)) == [orders.OpenBody(SECOND, 0)]


def test_a_body_whose_size_is_not_told_is_read() -> None:
    driven = Driven()
    driven.starts()

    assert driven.happens(events.BodyOpened(EMPTY, None)) == [orders.OpenMap(fresh=True)]


def test_our_own_map_of_a_size_that_nobody_has_is_taken_back() -> None:
    driven = Driven()
    driven.reads()

    given = driven.happens(events.TooLong())
    assert given == [orders.Refute(FIRST, None), orders.CloseBody()]
    assert driven.happens(events.BodyClosed(at(CHUNKS))) == [orders.Settle()]
    ours = replace(at(CHUNKS), ours=True)
    assert driven.happens(events.Settled(ours)) == [orders.TakeBack()]


def test_anothers_map_of_a_size_that_nobody_has_stays() -> None:
    driven = Driven()
    driven.reads()
    driven.happens(events.TooLong())
    driven.happens(events.BodyClosed(at(CHUNKS)))

    (failed,) = driven.happens(events.Settled(at(CHUNKS)))
    assert isinstance(failed, orders.FailBlob)


def test_a_blob_that_others_completed_meanwhile_does_not_fail() -> None:
    driven = Driven()
    driven.starts()
    driven.happens(events.Failed(EMPTY, UNKNOWN))

    assert driven.happens(events.Settled(WHOLE)) == []
    assert driven.core.phase is Phase.OVER


def test_a_blob_fails_once() -> None:
    driven = Driven()
    driven.starts()
    driven.happens(events.Failed(EMPTY, UNKNOWN))

    assert driven.happens(events.Settled(IngestView(failed=True))) == []
