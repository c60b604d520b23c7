"""`p2pdist debug story`: pulls that went well, waited, were held back or failed."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from p2pdist.cli.debug import story
from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.main import _fail
from p2pdist.cli.stories.ask import all_told
from p2pdist.cli.stories.text import describe, describe_known
from p2pdist.cli.stories.words import WORDS
from p2pdist.swarm.core.event_log import Entry, Kind, Lack, Source, Story
from p2pdist.swarm.stories import Known, Teller, Told
from tests.screens.golden import COLUMNS, is_screen

MB = 1_000_000
DIGEST = "sha256:2c7ab5de" + "0f" * 28
PROXY, NEAR, SLOW, LIAR = (letter * 32 for letter in "abcd")
PEER = Teller("peer", "a1a1e8833243" + "0" * 20, "dc1")


def told(
    outcome: str,
    ended_s: float | None,
    sources: list[Source],
    entries: list[Entry],
    *,
    wanted: bool = True,
    lacks: dict[str, float] | None = None,
    held_s: float = 0.0,
) -> Told:
    made = Story(
        DIGEST,
        412 * MB,
        wanted=wanted,
        age_s=780.0,
        outcome=outcome,
        ended_s=ended_s,
        sources=sources,
        lacks=lacks or {},
        held_s=held_s,
        waited_s=0.0,
        peak_bytes_per_s=118.0 * MB,
        entries=entries,
        left_out=0,
        began_unix_s=1_796_000_000.0,
    )
    return Told(PEER, [], [made])


JOINED = [
    Entry(0.0, Kind.OPENED),
    Entry(0.0, Kind.JOINED),
    Entry(0.004, Kind.NAMED, count=6),
    Entry(0.005, Kind.NEIGHBOUR, PROXY, "proxy"),
    Entry(0.006, Kind.NEIGHBOUR, NEAR, "rack"),
]
SOURCES = [
    Source(NEAR, "rack", "10.0.0.7:5301", 1200, 301 * MB, 0.31, 3.8),
    Source(PROXY, "proxy", "10.0.0.2:5101", 440, 111 * MB, 0.04, 3.9),
]


def test_a_pull_that_went_well() -> None:
    entries = [
        *JOINED,
        Entry(0.031, Kind.MAP, text="sealed", count=1640),
        Entry(0.04, Kind.CHUNKS, PROXY, "proxy", 440, 111 * MB, until_s=3.9),
        Entry(0.31, Kind.CHUNKS, NEAR, "rack", 1200, 301 * MB, until_s=3.8),
        Entry(3.92, Kind.WHOLE),
        Entry(3.93, Kind.LEFT),
    ]

    is_screen("story-well", describe(told("whole", 3.92, SOURCES, entries), COLUMNS))


def test_a_pull_that_waited_for_much() -> None:
    slow = Source(SLOW, "dc", "10.0.0.9:5301", 1300, 330 * MB, 3.0, 113.0)
    liar = Source(LIAR, "dc", "10.0.0.66:5301", bad=3)
    entries = [
        *JOINED,
        Entry(0.02, Kind.COMING),
        Entry(0.02, Kind.SILENCE, text=Lack.MAP, for_s=2.1),
        Entry(2.12, Kind.MAP, count=1640),
        Entry(2.2, Kind.BAD, LIAR, count=3),
        Entry(2.2, Kind.PUNISHED, LIAR, "hash", 3),
        Entry(2.3, Kind.DOWN, LIAR, "banned: chunk 81 with wrong bytes"),
        Entry(3.0, Kind.CHUNKS, SLOW, "dc", 1300, 330 * MB, until_s=113.0),
        Entry(20.5, Kind.SILENCE, SLOW, Lack.ANSWER, for_s=14.0),
        Entry(22.5, Kind.STALLED, SLOW),
        Entry(30.0, Kind.HEDGED, PROXY, count=4),
        Entry(31.0, Kind.REFUSED, NEAR, "busy", 7),
        Entry(90.0, Kind.OUTSIDE, "upstream", "starved"),
        Entry(90.1, Kind.CHUNKS, "", "upstream", 300, 82 * MB, until_s=113.5),
        Entry(114.0, Kind.WHOLE),
    ]
    sources = [slow, Source("", "upstream", "past the swarm", 300, 82 * MB, 90.1, 113.5), liar]
    lacks = {"map": 2.1, "answer": 14.0}

    shown = told("whole", 114.0, sources, entries, lacks=lacks)

    is_screen("story-slow", describe(shown, COLUMNS))


def test_a_pull_that_is_held_back_and_still_under_way() -> None:
    entries = [*JOINED, Entry(1.0, Kind.MAP, count=1640), Entry(1.1, Kind.HELD, for_s=700.0)]

    shown = told("under_way", None, SOURCES[1:], entries, held_s=700.0)

    is_screen("story-held", describe(shown, COLUMNS))


def test_a_pull_that_failed() -> None:
    entries = [*JOINED, Entry(5.0, Kind.FAILED, text="its map was revoked\x1b[2J")]

    is_screen("story-failed", describe(told("failed", 5.0, [], entries), COLUMNS))


def test_a_blob_that_lay_here() -> None:
    entries = [Entry(0.0, Kind.MAP, text="sealed", count=1640), Entry(0.0, Kind.HAD, count=1640)]

    is_screen("story-here", describe(told("whole", 0.0, [], entries, wanted=False), COLUMNS))


def test_the_list_of_what_is_remembered() -> None:
    blobs = [
        Known(DIGEST, 412 * MB, 42.0, "under_way", wanted=True, fetched_bytes=96 * MB),
        Known("sha256:" + "e" * 64, 3 * MB, 7300.0, "whole", wanted=True, fetched_bytes=3 * MB),
        Known("sha256:" + "f" * 64, 9 * MB, 86400.0, "let_go", wanted=False, fetched_bytes=0),
        Known(
            f"private:{'a' * 32}{'1' * 32}", 9 * MB, 60.0, "whole", wanted=True, fetched_bytes=MB
        ),
    ]

    is_screen("stories", describe_known(Told(PEER, blobs), COLUMNS))


def test_every_kind_has_its_words() -> None:
    shown = told("whole", 1.0, SOURCES, []).stories[0]
    assert WORDS.keys() == set(Kind)
    for kind in Kind:
        assert WORDS[kind](Entry(0.0, kind, NEAR), shown)


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([], Exit.UPSTREAM),
        ([Told(PEER)], Exit.NOT_FOUND),
        ([Told(PEER, [Known(DIGEST, 1, 1.0, "whole", True, 1)])], Exit.USAGE),
    ],
)
def test_what_is_not_told_ends_with_its_code(
    monkeypatch: pytest.MonkeyPatch, answers: list[Told], code: Exit
) -> None:
    left = iter([*answers, *[None] * 8])

    async def answer(*_: object) -> Told | None:
        return next(left)

    monkeypatch.setattr("p2pdist.cli.stories.ask._ask", answer)

    error = CliRunner().invoke(story, ["2c7ab5de"]).exception

    assert isinstance(error, Exception)
    assert _fail(error, debug=False) == code


async def test_nobody_there_is_said_with_the_places(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="no daemon tells stories") as caught:
        await all_told(["http://127.0.0.1:1"], ["2c7ab5de"])

    _fail(caught.value, debug=False)
    is_screen("story-nobody", capsys.readouterr().err.splitlines())
