"""What a terminal shows: no line too long, nothing that steers it, and the truth in bars."""

from __future__ import annotations

from typing import Any

import click
import pytest

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.prewarming.frame import Screen, bar, frame
from p2pdist.cli.prewarming.picture import Picture
from p2pdist.cli.prewarming.progress import Lines
from p2pdist.cli.prewarming.texts import span, width_of
from p2pdist.model.jobs import DcStatus, HostStatus, JobStatus

NOW_S = 1_800_000_000.0
DC1 = DcStatus("dc1", 120, 120, 0, 0, 0, 10**10, 0, 0.0, None, 2, 2)
DC2 = DcStatus("dc2", 120, 12, 0, 3, 105, 10**10, 9 * 10**9, 512e6, 192.0, 1, 2)
SLOW = HostStatus("h1", "web-1", "dc2", "fetching", missing_bytes=10**9)
FAILED = HostStatus("h2", "web-2", "dc2", "failed", 5, "denied", "the registry said no", 3)
LOST = HostStatus("h3", "web-3", "dc2", "lost")


def job(**fields: Any) -> JobStatus:
    known: dict[str, Any] = {
        "id": "0123456789",
        "state": "running",
        "images": ["docker.io/library/app:1"],
        "digests": ["sha256:" + "0" * 64],
        "created_unix_s": NOW_S - 42,
        "started_unix_s": NOW_S - 42,
        "ended_unix_s": 0.0,
        "deadline_unix_s": 0.0,
        "deadline_missed": False,
        "wave": 1,
        "waves": [1.0],
        "dcs": [DC1],
    }
    return JobStatus(**(known | fields))


def shown(picture: Picture, screen: Screen | None = None, **away: float) -> list[str]:
    lines = frame(picture, "run-00000000", screen or Screen(120, 40), NOW_S, away)
    return [click.unstyle(line) for line in lines]


def test_each_datacenter_has_a_row_and_all_have_a_sum() -> None:
    rows = shown(Picture([job(), job(dcs=[DC2])]))[3:7]

    assert [row.split()[0] for row in rows] == ["DC", "dc1", "dc2", "all"]
    assert "12/120" in rows[2]
    assert "512.0 MB/s" in rows[2]
    assert rows[2].endswith("3:12")
    assert "132/240" in rows[3]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_no_line_is_longer_than_the_screen(columns: int) -> None:
    hosts = [FAILED, SLOW, LOST]
    waves = [0.01, 0.1, 1.0]
    held = job(state="held", reason="x" * 300, dcs=[DC2], hosts=hosts, waves=waves)

    lines = frame(Picture([job(), held]), "run-0", Screen(columns, 24), NOW_S, {"http://t": 9.0})

    assert max(map(width_of, lines)) < columns
    assert not [line for line in lines if "\n" in line]


@pytest.mark.parametrize("columns", [45, 60, 80])
def test_a_narrow_screen_shows_ready_failed_rate_and_time_to_go(columns: int) -> None:
    rows = shown(Picture([job(), job(dcs=[DC2])]), Screen(columns, 24))[3:7]

    assert {"READY", "FAILED", "RATE", "ETA"} <= set(rows[0].split())
    assert "12/120" in rows[2]
    assert "512.0 MB/s" in rows[2]
    assert rows[2].endswith("3:12")


def test_a_column_leaves_only_for_want_of_room() -> None:
    wide = shown(Picture([job(dcs=[DC2])]), Screen(120, 24))[3]
    narrow = shown(Picture([job(dcs=[DC2])]), Screen(60, 24))[3]

    assert {"PROXIES", "MISSING"} <= set(wide.split())
    assert "PROXIES" not in narrow.split()
    assert "MISSING" in narrow.split()


def test_failed_hosts_come_first_then_the_emptiest() -> None:
    text = "\n".join(shown(Picture([job(dcs=[DC2], hosts=[LOST, SLOW, FAILED])])))

    assert text.index("web-2") < text.index("web-1") < text.index("web-3")
    assert "denied: the registry said no" in text


def test_a_name_from_a_host_does_not_steer_the_terminal() -> None:
    bad = HostStatus("h", "\x1b[2Jx", "dc2", "failed", 0, "error", "\x1b]0;owned\x07")

    lines = frame(Picture([job(dcs=[DC2], hosts=[bad])]), "run-0", Screen(), NOW_S)

    assert not [line for line in lines if "\x1b[2J" in line or "\x1b]" in line or "\x07" in line]


def test_a_bar_is_full_only_when_every_host_is_ready() -> None:
    almost = DcStatus("dc1", 1000, 999, 0, 0, 1, 10**10, 1, 0.0, None)

    assert "─" in bar(almost, 20, Screen())
    assert click.unstyle(bar(DC1, 20, Screen())) == "━" * 20
    assert click.unstyle(bar(DC1, 20, Screen(fancy=False))) == "#" * 20
    assert len(click.unstyle(bar(DC2, 20, Screen()))) == 20


def test_waves_show_which_is_open() -> None:
    text = "\n".join(shown(Picture([job(wave=2, waves=[0.01, 0.1, 1.0])])))

    assert "✔ 1%   ● 10%   ○ 100%" in text


def test_a_deadline_that_the_rest_will_miss_shows_both_times() -> None:
    text = "\n".join(shown(Picture([job(dcs=[DC2], deadline_unix_s=NOW_S + 60)])))

    assert "1:00 left, 3:12 to go" in text


@pytest.mark.parametrize(
    ("states", "state", "code"),
    [
        (["done", "done"], "done", Exit.DONE),
        (["done", "partly"], "partly", Exit.PARTIAL),
        (["partly", "held"], "held", Exit.PARTIAL),
        (["done", "cancelled"], "cancelled", Exit.PARTIAL),
    ],
)
def test_the_worst_of_all_jobs_decides(states: list[str], state: str, code: Exit) -> None:
    picture = Picture([job(state=one) for one in states])

    assert (picture.state, picture.exit_code, picture.settled) == (state, code, True)


def test_one_job_that_goes_on_keeps_a_run_open() -> None:
    assert not Picture([job(state="held"), job(state="running")]).settled
    assert not Picture([job(state="done"), job(state="scheduled")]).settled


def test_a_datacenter_of_two_trackers_is_one_row() -> None:
    (row,) = Picture([job(), job()]).dcs

    assert (row.hosts, row.ready, row.total_bytes) == (240, 240, 2 * 10**10)


def test_a_log_has_a_line_per_change_and_one_every_10_s(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("run-0")
    running = Picture([job(dcs=[DC2])])

    for now_s in (0.0, 0.5, 9.5, 10.5):
        lines.show(running, {}, NOW_S, now_s)
    lines.show(Picture([job(dcs=[DC2], hosts=[FAILED])]), {}, NOW_S, 11.0)
    lines.show(Picture([job(dcs=[DC2], hosts=[FAILED])]), {}, NOW_S, 11.5)

    said = capsys.readouterr().err.splitlines()
    row = "dc2: 12 of 120 hosts ready, 3 failed, 105 to go, 9.0 GB missing at 512.0 MB/s, 3:12 left"
    failed = "web-2 (dc2) failed: denied: the registry said no"
    assert said == ["dc2: running", row, row, failed]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (42, "0:42"), (3723, "1:02:03"), (180_000, "2 d 2 h"), (-5, "0:00")],
)
def test_spans_read_like_clocks(seconds: float, text: str) -> None:
    assert span(seconds) == text
