"""What operators type: moments, shares, waves, lists."""

from __future__ import annotations

from datetime import datetime

import pytest

from p2pdist.cli.prewarming.words import (
    check_count,
    listed_images,
    parse_moment,
    parse_share,
    parse_waves,
)

NOW_S = datetime.fromisoformat("2026-11-24T21:00:00+00:00").timestamp()


@pytest.mark.parametrize(
    ("text", "after_s"),
    [
        ("+30m", 2400.0),
        ("30m", 2400.0),
        ("90", 690.0),
        ("2026-11-24T22:00Z", 3600.0),
        ("2026-11-24 23:00+01:00", 3600.0),
        ("2026-11-24T21:00:00.500Z", 0.5),
    ],
)
def test_a_moment_is_a_time_or_counts_from_the_base(text: str, after_s: float) -> None:
    assert parse_moment(text, NOW_S + 600, NOW_S) == NOW_S + after_s


def test_a_time_without_a_zone_is_local() -> None:
    local = datetime.fromtimestamp(NOW_S + 60).isoformat()

    assert parse_moment(local, NOW_S, NOW_S) == NOW_S + 60


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("soon", "neither a duration"),
        ("", "neither a duration"),
        ("2026-13-01", "is no time"),
        ("2026-11-24T20:00Z", "is over"),
        ("2036-11-24", "more than a year ahead"),
        ("400d", "more than a year ahead"),
        ("-5m", "neither a duration"),
    ],
)
def test_other_moments_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_moment(text, NOW_S, NOW_S)


@pytest.mark.parametrize(("text", "share"), [("99%", 0.99), ("0.5", 0.5), ("0%", 0.0), ("1", 1.0)])
def test_shares_are_percent_or_a_ratio(text: str, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["101%", "-1", "nan", "inf", "half", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no share"):
        parse_share(text)


def test_waves_grow_to_all_hosts() -> None:
    assert parse_waves("1%, 10%,100%") == [0.01, 0.1, 1.0]
    for text in ("0%,100%", "10%,10%,100%", "50%,10%", "10%"):
        with pytest.raises(ValueError, match="wave"):
            parse_waves(text)
    with pytest.raises(ValueError, match="at most"):
        parse_waves(",".join(f"{n}%" for n in range(1, 101)))


def test_a_list_has_comments_and_empty_lines() -> None:
    assert listed_images("a:1 # one\n\n# none\n  b:2\r\n") == ["a:1", "b:2"]


def test_images_are_counted_once() -> None:
    assert check_count(["a", "b", "a"]) == ["a", "b"]
    with pytest.raises(ValueError, match="no image"):
        check_count([])
    with pytest.raises(ValueError, match="at most 64"):
        check_count([f"a:{n}" for n in range(65)])
