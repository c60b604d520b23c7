"""What took the time is said, the longest first, and what took none is not."""

from __future__ import annotations

from typing import Any

from p2pdist.cli.stories.why import SMOOTH, sentences
from p2pdist.swarm.core.event_log import Entry, Kind, Lack, Source, Story

MB = 1_000_000
HOST = "c" * 32


def told(**changed: Any) -> Story:
    plain: dict[str, Any] = {
        "digest": "sha256:" + "a" * 64,
        "size_bytes": 100 * MB,
        "wanted": True,
        "age_s": 60.0,
        "outcome": "whole",
        "ended_s": 10.0,
        "sources": [Source(HOST, "dc", "", 10, 50 * MB), Source("d" * 32, "dc", "", 10, 50 * MB)],
        "lacks": {},
        "held_s": 0.0,
        "waited_s": 0.0,
        "peak_bytes_per_s": 0.0,
        "entries": [Entry(0.0, Kind.JOINED), Entry(0.01, Kind.MAP)],
        "left_out": 0,
    }
    return Story(**plain | changed)


def test_a_smooth_pull_is_called_so() -> None:
    assert sentences(told()) == [SMOOTH]


def test_what_took_less_than_a_tenth_is_not_said() -> None:
    assert sentences(told(lacks={"offer": 0.9}, held_s=0.9)) == [SMOOTH]


def test_the_longest_comes_first() -> None:
    first, second = sentences(told(lacks={"offer": 2.0, "hashes": 5.0}))

    assert first.startswith("Nothing came for 5.0 s (50% of the time): the map did not grow")
    assert second.startswith("Nothing came for 2.0 s (20% of the time): nobody offered")


def test_the_host_that_was_waited_for_most_is_named() -> None:
    silences = [
        Entry(1.0, Kind.SILENCE, "e" * 32, Lack.ANSWER, for_s=1.0),
        Entry(2.0, Kind.SILENCE, HOST, Lack.ANSWER, for_s=3.0),
    ]

    (said,) = sentences(told(lacks={"answer": 4.0}, entries=[Entry(0.0, Kind.MAP), *silences]))

    assert said.endswith(f"mostly of peer {HOST[:12]}.")


def test_the_time_until_the_map_says_why() -> None:
    def until_map(*before: Entry) -> str:
        entries = [Entry(1.0, Kind.JOINED), *before, Entry(4.0, Kind.MAP)]
        (said,) = sentences(told(lacks={"map": 3.0}, entries=entries))
        return said

    asked = Entry(1.1, Kind.NEIGHBOUR, HOST, "proxy")
    assert until_map() == "3.0 s until the map's head: nobody could be asked."
    assert until_map(asked) == "3.0 s until the map's head: nobody who was asked had it."
    coming = until_map(asked, Entry(1.2, Kind.COMING))
    assert coming == "3.0 s until the map's head: a proxy was still beginning to read it."


def test_the_pace_is_said_once() -> None:
    (said,) = sentences(told(held_s=8.0, lacks={"pace": 7.0}))

    assert said == "The pace of bulk held it back for 8.0 s (80% of the time)."


def test_who_brought_most_is_named_with_its_rate() -> None:
    main = Source(HOST, "dc", "", 30, 90 * MB, first_s=1.0, last_s=10.0)

    (said,) = sentences(told(sources=[main, Source("d" * 32, "dc", "", 3, 10 * MB)]))

    assert said == f"90% came from peer {HOST[:12]}, at 10.0 MB/s for 9.0 s."


def test_nothing_fetched_is_said() -> None:
    assert "lay here" in sentences(told(wanted=False, sources=[]))[0]
    assert "lay here already" in sentences(told(sources=[]))[0]


def test_a_failure_comes_first_with_its_reason() -> None:
    entries = [Entry(0.0, Kind.JOINED), Entry(9.0, Kind.FAILED, text="no source")]

    said = sentences(told(outcome="failed", entries=entries, lacks={"offer": 5.0}))

    assert said[0] == "It failed: no source."
