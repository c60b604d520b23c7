"""How a run shows itself while it is waited for: redrawn on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Final, Protocol, TextIO

import click

from p2pdist.cli.amounts import size_text
from p2pdist.cli.prewarming.frame import Screen, frame, held_lines
from p2pdist.cli.prewarming.picture import Picture
from p2pdist.cli.prewarming.texts import plural, share, span
from p2pdist.model.jobs import DcStatus, JobStatus
from p2pdist.process.terminal import printable, steady

# A build log neither fills up nor looks dead.
LINE_EVERY_S: Final = 10.0
FAILURES_NAMED_MAX: Final = 20
LOG_COLUMNS: Final = 1000
TENTHS: Final = 10


class Display(Protocol):
    """Hears how a run stands, twice a second; `now_s` is monotonic."""

    def show(
        self, picture: Picture, away: Mapping[str, float], now_unix_s: float, now_s: float
    ) -> None: ...

    def close(self) -> None: ...


def display_for(run: str, *, quiet: bool) -> Display:
    if quiet:
        return Silent()
    return Redrawn(run) if sys.stderr.isatty() else Lines(run)


def screen_of(stream: TextIO) -> Screen:
    """Return what `stream` has room for: a log has room for every reason in full."""
    size = shutil.get_terminal_size((100, 24))
    fancy = (stream.encoding or "").lower().replace("-", "") == "utf8"
    return Screen(size.columns if stream.isatty() else LOG_COLUMNS, size.lines, fancy)


class Silent:
    def show(
        self, picture: Picture, away: Mapping[str, float], now_unix_s: float, now_s: float
    ) -> None: ...

    def close(self) -> None: ...


class Redrawn:
    """Draws over what it drew last; leaves nothing when it is closed."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._drawn = 0

    def show(
        self, picture: Picture, away: Mapping[str, float], now_unix_s: float, now_s: float
    ) -> None:
        screen = screen_of(sys.stderr)
        lines = frame(picture, self._run, screen, now_unix_s, away)[: screen.rows - 1]
        text = "".join(f"{steady(line)}\x1b[K\n" for line in lines)
        self._write(self._up() + text + "\x1b[J")
        self._drawn = len(lines)

    def close(self) -> None:
        """The end is told elsewhere, in full."""
        self._write(self._up() + "\x1b[J")
        self._drawn = 0

    def _up(self) -> str:
        return f"\x1b[{self._drawn}F" if self._drawn else ""

    @staticmethod
    def _write(text: str) -> None:
        """One write, so that nothing flickers; click drops colours for NO_COLOR."""
        sys.stderr.write(text if wants_color() else _plain(text))
        sys.stderr.flush()


class Lines:
    """A line per change, and one per datacenter every 10 s."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._states: dict[str, tuple[str, int]] = {}
        self._rows: dict[str, tuple[int, int]] = {}
        self._away: set[str] = set()
        self._failed: set[str] = set()
        self._named = 0
        self._said_s: float | None = None

    def show(
        self, picture: Picture, away: Mapping[str, float], now_unix_s: float, now_s: float
    ) -> None:
        for job in picture.jobs:
            self._job(job, picture)
        self._trackers(away)
        self._failures(picture)
        due = self._said_s is None or now_s - self._said_s >= LINE_EVERY_S
        for row in picture.dcs:
            step = (TENTHS * row.ready // row.hosts if row.hosts else TENTHS, row.failed)
            if due or self._rows.get(row.dc) != step:
                self._rows[row.dc] = step
                self._say(_row_text(row))
                self._said_s = now_s

    def close(self) -> None: ...

    def _job(self, job: JobStatus, picture: Picture) -> None:
        now = (job.state, job.wave)
        before = self._states.get(job.id)
        if before == now:
            return
        self._states[job.id] = now
        where = ", ".join(row.dc for row in job.dcs) or job.id
        if before is None or before[0] != job.state:
            self._say(f"{where}: {job.state}" + (f", {job.reason}" if job.reason else ""))
            if job.state == "held":
                for line in held_lines(picture, self._run)[-2:]:
                    self._say(line)
        if len(job.waves) > 1 and job.state == "running" and 0 < job.wave <= len(job.waves):
            part = share(job.waves[job.wave - 1])
            self._say(f"{where}: wave {job.wave} of {len(job.waves)} is open, {part} of the hosts")

    def _trackers(self, away: Mapping[str, float]) -> None:
        for url in away.keys() - self._away:
            self._say(f"tracker {url} is away; hosts go on, waiting for it")
        for url in self._away - away.keys():
            self._say(f"tracker {url} is back")
        self._away = set(away)

    def _failures(self, picture: Picture) -> None:
        failed = {host.host_id: host for host in picture.failed}
        for host_id, host in failed.items():
            if host_id not in self._failed and self._named < FAILURES_NAMED_MAX:
                self._named += 1
                self._say(f"{host.name} ({host.dc}) {host.state}: {host.code}: {host.reason}")
                if self._named == FAILURES_NAMED_MAX:
                    self._say("more failed hosts are counted only; -o json lists all at the end")
        self._failed = set(failed)

    @staticmethod
    def _say(text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)


def _row_text(row: DcStatus) -> str:
    parts = [f"{row.ready:,} of {plural(row.hosts, 'host')} ready"]
    if row.failed:
        parts.append(f"{row.failed:,} failed")
    if row.to_go:
        parts.append(f"{row.to_go:,} to go")
    if row.missing_bytes:
        parts.append(f"{size_text(row.missing_bytes)} missing at {size_text(row.rate)}/s")
    if row.to_go and row.eta_s is not None:
        parts.append(f"{span(row.eta_s)} left")
    return f"{row.dc}: {', '.join(parts)}"


def wants_color() -> bool:
    """https://no-color.org: any value that is not empty."""
    return not os.environ.get("NO_COLOR")


def _plain(text: str) -> str:
    """Without colours; the codes that move the cursor stay."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def echo(lines: list[str], *, err: bool = False) -> None:
    """Print lines; colours only where a terminal shows them."""
    stream = sys.stderr if err else sys.stdout
    color = None if wants_color() and stream.isatty() else False
    for line in lines:
        click.echo(steady(line), err=err, color=color)
