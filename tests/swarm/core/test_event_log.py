"""The log of what happens to blobs: bounded, and true in its sums."""

from __future__ import annotations

import tracemalloc

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import digest_of
from p2pdist.swarm.core.event_log import (
    BLOBS_MAX,
    ENTRIES_MAX,
    FIRST_MAX,
    SILENCE_S,
    SOURCES_MAX,
    STRETCH_S,
    TEXT_MAX,
    BlobLog,
    EventLog,
    Kind,
    Lack,
    Story,
)

DIGEST = digest_of(b"layer")
MB = 1_000_000
# Ends are not among them: the first one counts, and says nothing of bounds.
KINDS = [kind for kind in Kind if kind not in (Kind.WHOLE, Kind.FAILED, Kind.LET_GO)]


def opened(began_s: float = 100.0) -> BlobLog:
    return BlobLog(DIGEST, MB, began_s)


def nobody() -> tuple[Lack, str]:
    return Lack.NEIGHBOUR, ""


def answer() -> tuple[Lack, str]:
    return Lack.ANSWER, "slow"


def test_times_count_from_when_it_was_taken_up() -> None:
    log = opened(100.0)

    log.note(Kind.JOINED, 100.25)

    (entry,) = log.story(103.0).entries
    assert (entry.at_s, log.story(103.0).age_s) == (0.25, 3.0)


def test_the_same_again_is_counted_and_not_repeated() -> None:
    log = opened()

    for i in range(1000):
        log.received("a", "dc", 10, 100.0 + i * STRETCH_S / 1000, str)

    (entry,) = log.story(101.0).entries
    assert (entry.count, entry.nbytes) == (1000, 10_000)
    assert round(entry.until_s, 6) == 0.999


def test_after_a_stretch_it_is_an_entry_of_its_own() -> None:
    log = opened()

    log.note(Kind.REFUSED, 100.0, host="a")
    log.note(Kind.REFUSED, 100.0 + 1.01 * STRETCH_S, host="a")

    assert [entry.count for entry in log.story(102.0).entries] == [1, 1]


def test_stretches_grow_so_that_an_hour_from_many_hosts_has_room() -> None:
    log = opened(0.0)

    for second in range(3600):
        for host in range(24):
            log.received(f"h{host}", "dc", 1, second + 0.5, str)

    story = log.story(3600.0)
    assert sum(source.nbytes for source in story.sources) == 3600 * 24
    assert story.left_out == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.text(max_size=8),
            st.text(max_size=400),
            st.floats(0, 1e5),
        ),
        max_size=60,
    ),
    st.integers(1, 40),
)
def test_no_course_of_events_is_too_long(
    events: list[tuple[Kind, str, str, float]], times: int
) -> None:
    log, now_s = opened(0.0), 0.0
    for i in range(times):
        for kind, host, text, step_s in events:
            now_s += step_s
            log.note(kind, now_s, host=f"{host}{i}", text=text)

    story = log.story(now_s)
    assert len(story.entries) <= ENTRIES_MAX
    assert len(story.entries) + story.left_out <= len(events) * times
    assert all(len(entry.text) <= TEXT_MAX for entry in story.entries)
    at_s = [entry.at_s for entry in story.entries]
    assert at_s == sorted(at_s)
    assert msgspec.json.decode(msgspec.json.encode(story), type=Story) == story


def test_the_first_entries_stay_and_the_last() -> None:
    log = opened(0.0)

    for i in range(2 * ENTRIES_MAX):
        log.note(Kind.NEIGHBOUR, float(i), host=str(i))

    story = log.story(2000.0)
    hosts = [int(entry.host) for entry in story.entries]
    assert hosts[:FIRST_MAX] == list(range(FIRST_MAX))
    assert hosts[-1] == 2 * ENTRIES_MAX - 1
    assert len(hosts) == ENTRIES_MAX
    assert story.left_out == ENTRIES_MAX


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, MB)), max_size=400))
def test_all_bytes_have_a_source(came: list[tuple[int, int]]) -> None:
    log = opened(0.0)
    for i, (host, nbytes) in enumerate(came):
        log.received(f"h{host}", "dc", nbytes, i / 10, str)

    sources = log.story(1e6).sources
    assert len(sources) <= SOURCES_MAX + 1
    assert sum(source.nbytes for source in sources) == sum(nbytes for _, nbytes in came)
    assert sum(source.chunks for source in sources) == len(came)


def test_a_silence_counts_for_what_was_lacking_in_it() -> None:
    log = opened(0.0)
    log.sought(0.0)

    log.looked(nobody, 0.5)
    log.looked(answer, 1.0)
    log.looked(answer, 3.0)
    log.progressed(answer, 3.25)

    story = log.story(4.0)
    assert story.lacks == {"neighbour": 1.0, "answer": 2.25, **silent(0.75)}
    (entry, _) = story.entries
    assert (entry.kind, entry.host, entry.text) == (Kind.SILENCE, "slow", "answer")
    assert (entry.at_s, entry.for_s) == (0.0, 3.25)


def silent(length_s: float) -> dict[str, float]:
    """What still lasts, and was never looked at."""
    return {"map": length_s}


def test_a_short_silence_is_none() -> None:
    log = opened(0.0)
    log.sought(0.0)

    for i in range(1, 100):
        log.progressed(nobody, i * SILENCE_S * 0.9)

    story = log.story(99 * SILENCE_S * 0.9)
    assert (story.lacks, story.entries) == ({}, [])


def test_what_nobody_seeks_is_never_silent() -> None:
    sent, over = opened(0.0), opened(0.0)
    over.sought(0.0)
    over.end(Kind.WHOLE, 1.0)

    for log in (sent, over):
        log.progressed(nobody, 2.0)
        log.looked(nobody, 9.0)
        log.progressed(nobody, 10.0)
        assert log.story(100.0).lacks == {}


def test_after_its_end_there_is_no_silence_until_it_is_sought_again() -> None:
    log = opened(0.0)
    log.sought(0.0)
    log.end(Kind.WHOLE, 0.25)
    log.end(Kind.LET_GO, 100.0)

    story = log.story(200.0)
    assert (story.outcome, story.ended_s, story.lacks) == ("whole", 0.25, {})

    log.sought(200.0)
    log.progressed(nobody, 202.0)
    again = log.story(202.0)
    assert (again.outcome, again.ended_s, again.lacks) == ("under_way", None, {"neighbour": 2.0})


def test_the_best_second() -> None:
    log = opened(0.0)
    for at_s, nbytes in [(0.1, 5), (0.9, 5), (1.5, 30), (2.5, 1)]:
        log.received("a", "dc", nbytes, at_s, str)

    assert log.story(3.0).peak_bytes_per_s == 30


def test_an_address_is_asked_for_once() -> None:
    addresses = iter(["10.0.0.1"])
    log = opened()
    for _ in range(5):
        log.received("a", "dc", 1, 100.0, lambda: next(addresses))

    assert [source.address for source in log.story(101.0).sources] == ["10.0.0.1"]


def begun(events: EventLog, count: int, *, wanted: bool, from_s: float = 0.0) -> list[BlobLog]:
    logs = [events.begin(DIGEST, i, from_s + i) for i in range(count)]
    for log in logs:
        if wanted:
            log.sought(log.began_s)
    return logs


def test_the_last_motions_are_kept() -> None:
    events = EventLog()
    begun(events, 3 * BLOBS_MAX, wanted=True)

    assert [log.size_bytes for log in events.logs()] == list(
        range(3 * BLOBS_MAX - 1, 2 * BLOBS_MAX - 1, -1)
    )


def test_what_only_goes_out_to_others_makes_room_first_then_what_is_over() -> None:
    events = EventLog()
    fetched = begun(events, BLOBS_MAX - 1, wanted=True)
    (sent,) = begun(events, 1, wanted=False, from_s=1000.0)
    fetched[5].end(Kind.WHOLE, 2000.0)

    begun(events, 1, wanted=True, from_s=3000.0)
    assert sent not in events.logs()
    assert fetched[5] in events.logs()
    begun(events, 1, wanted=True, from_s=3001.0)
    assert fetched[5] not in events.logs()
    begun(events, 1, wanted=True, from_s=3002.0)
    assert fetched[0] not in events.logs()


def test_what_lost_its_place_keeps_nothing_more() -> None:
    log = opened()
    log.note(Kind.JOINED, 100.0)
    log.close()

    for i in range(100):
        log.note(Kind.NEIGHBOUR, 100.0, host=str(i))
        log.received(str(i), "dc", 1, 100.0, str)

    story = log.story(101.0)
    assert (story.entries, story.sources, story.left_out) == ([], [], 0)


def test_it_takes_no_more_room_than_is_said() -> None:
    """16 MB for all."""
    tracemalloc.start()
    try:
        log = opened(0.0)
        for i in range(2 * ENTRIES_MAX):
            log.note(Kind.NEIGHBOUR, i * 1.5, host=f"{i:032x}", text=f"{i:0200d}")
            log.received(f"{i:032x}", "dc", 1, i * 1.5, lambda: "10.0.0.1:5301")
        nbytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(log.story(1e4).entries) == ENTRIES_MAX
    assert nbytes * BLOBS_MAX < 16 * MB
