"""A run as lines of a terminal: a row per datacenter, the waves, who is late and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import click

from p2pdist.cli.amounts import size_text
from p2pdist.cli.prewarming.picture import Picture, is_failed, total
from p2pdist.cli.prewarming.texts import (
    columns,
    cut,
    dim,
    images_text,
    moment,
    plural,
    share,
    span,
    width_of,
)
from p2pdist.model.jobs import DcStatus, HostStatus, JobState, JobStatus
from p2pdist.process.terminal import printable

BAR_MAX: Final = 40
BAR_MIN: Final = 8
BAR: Final = ""
"""The title of its column."""
_FIRST_TO_GO: Final = ("PROXIES", "MISSING", "TO GO")
_COLORS: Final[Mapping[JobState, str]] = {
    "scheduled": "blue",
    "running": "cyan",
    "held": "yellow",
    "done": "green",
    "partly": "red",
    "cancelled": "yellow",
}


@dataclass(frozen=True, slots=True)
class Screen:
    columns: int = 80
    rows: int = 24
    fancy: bool = True
    """Whether it can show more than ASCII."""


def frame(
    picture: Picture,
    run: str,
    screen: Screen,
    now_unix_s: float,
    away: Mapping[str, float] = MappingProxyType({}),
) -> list[str]:
    """Return the whole picture, no line longer than the screen; `away` is tracker -> seconds."""
    lines = [*_head(picture, run, screen, now_unix_s), "", *dc_lines(picture, screen)]
    lines += wave_lines(picture, screen)
    lines += held_lines(picture, run)
    for url, seconds in away.items():
        text = f"tracker {url} is away for {span(seconds)}; hosts go on, waiting for it"
        lines.append(click.style(text, fg="yellow"))
    room = max(2, min(10, screen.rows - len(lines) - 4))
    if problems := host_lines([*picture.failed, *picture.behind], room, screen):
        lines += ["", *problems]
    return [fit(line, screen.columns - 1) for line in lines]


def fit(line: str, width: int) -> str:
    """Cut a line that is too long; its colours go with it."""
    return line if width_of(line) <= width else cut(click.unstyle(line), width)


def _head(picture: Picture, run: str, screen: Screen, now_unix_s: float) -> list[str]:
    first = picture.jobs[0]
    state = click.style(picture.state, fg=_COLORS[picture.state], bold=True)
    began_s = min((job.started_unix_s for job in picture.jobs if job.started_unix_s), default=0.0)
    facts = [state, printable(run)]
    if began_s:
        over_s = max(job.ended_unix_s for job in picture.jobs) if picture.ended else now_unix_s
        facts.append(span(over_s - began_s))
    if deadline_s := picture.deadline_unix_s:
        facts.append(_deadline(picture, deadline_s, now_unix_s))
    dot = " · " if screen.fancy else " | "
    return [click.style(images_text(first.images), bold=True), dot.join(facts)]


def _deadline(picture: Picture, deadline_s: float, now_unix_s: float) -> str:
    left_s = deadline_s - now_unix_s
    text = f"deadline {moment(deadline_s, now_unix_s)}"
    if any(job.deadline_missed for job in picture.jobs):
        return click.style(f"{text}, missed", fg="red", bold=True)
    if picture.ended or left_s < 0:
        return text
    eta_s = max((row.eta_s or 0.0 for row in picture.dcs), default=0.0)
    late = eta_s > left_s
    text += f", {span(left_s)} left" + (f", {span(eta_s)} to go" if late else "")
    return click.style(text, fg="red", bold=True) if late else text


# --- datacenters ----------------------------------------------------------------------------------


def dc_lines(picture: Picture, screen: Screen) -> list[str]:
    """Return a row per datacenter and, where there are several, their sum; a narrow screen goes
    without some columns, never without rate and time to go."""
    rows = picture.dcs
    if not rows:
        return [dim("no host yet")]
    if len(rows) > 1:
        rows = [*rows, total(rows)]
    left_out = {BAR} if any(row.unpacked for row in rows) else {BAR, "IN RUNTIME"}

    def table(bar_width: int = 0) -> list[str]:
        cells = [_row(row, bar_width, screen, ended=picture.ended) for row in rows]
        titles = [title for title in cells[0] if title not in left_out]
        sides = "".join("l" if title in ("DC", BAR) else "r" for title in titles)
        shown = [[row[title] for title in titles] for row in cells]
        return columns([[dim(title) for title in titles], *shown], sides)

    def spare() -> int:
        return screen.columns - 1 - max(map(width_of, table()))

    for title in _FIRST_TO_GO:
        if spare() < 0:
            left_out.add(title)
    # Two go between it and its neighbour.
    if (bar_max := spare() - 2) < BAR_MIN:
        return table()
    left_out.remove(BAR)
    return table(min(BAR_MAX, bar_max))


def _row(row: DcStatus, bar_width: int, screen: Screen, *, ended: bool) -> dict[str, str]:
    """Return title -> cell, in the order of the columns."""
    whole = row.ready == row.hosts
    going = not ended and row.to_go > 0
    return {
        "DC": printable(row.dc),
        "READY": click.style(f"{row.ready:,}/{row.hosts:,}", fg="green" if whole else None),
        "IN RUNTIME": f"{row.unpacked:,}",
        "FAILED": click.style(f"{row.failed:,}", fg="red", bold=True) if row.failed else dim("0"),
        "TO GO": f"{row.to_go:,}" if row.to_go else dim("0"),
        "PROXIES": f"{row.proxies_ready}/{row.proxies}" if row.proxies else dim("-"),
        BAR: bar(row, bar_width, screen),
        "MISSING": size_text(row.missing_bytes) if row.missing_bytes else dim("-"),
        "RATE": f"{size_text(row.rate)}/s" if going else dim("-"),
        "ETA": span(row.eta_s) if going and row.eta_s is not None else dim("-"),
    }


def bar(row: DcStatus, width: int, screen: Screen) -> str:
    """Draw how much of the bytes lie there; full only when every host is ready, and the part of
    the failed hosts in red."""
    if width == 0:
        return ""
    done = row.ready / row.hosts if row.hosts else 1.0
    if row.total_bytes and row.ready < row.hosts:
        done = max(done, min(0.999, 1 - row.missing_bytes / row.total_bytes))
    full, empty = ("━", "─") if screen.fancy else ("#", "-")
    bad = min(width, -(-width * row.failed // row.hosts)) if row.hosts and row.failed else 0
    good = min(int(width * done), width - bad)
    color = "green" if row.ready == row.hosts else "cyan"
    rest = dim(empty * (width - good - bad))
    return click.style(full * good, fg=color) + rest + click.style(full * bad, fg="red")


# --- waves, holds, hosts --------------------------------------------------------------------------


def wave_lines(picture: Picture, screen: Screen) -> list[str]:
    """Return a line per tracker whose job has waves: those behind, the open one, those to come."""
    waved = [job for job in picture.jobs if len(job.waves) > 1]
    names = [_dcs_of(job) for job in waved]
    width = max(map(len, names), default=0)
    return [
        f"{dim('waves')}  {name:<{width}}  {_waves(job, screen)}"
        for job, name in zip(waved, names, strict=True)
    ]


def _waves(job: JobStatus, screen: Screen) -> str:
    past, now, future = ("✔", "●", "○") if screen.fancy else ("+", "*", ".")
    texts = []
    for number, part in enumerate(job.waves, 1):
        if number < job.wave or job.state == "done":
            texts.append(click.style(f"{past} {share(part)}", fg="green"))
        elif number == job.wave:
            texts.append(click.style(f"{now} {share(part)}", fg=_COLORS[job.state], bold=True))
        else:
            texts.append(dim(f"{future} {share(part)}"))
    return "   ".join(texts)


def held_lines(picture: Picture, run: str) -> list[str]:
    held = [job for job in picture.jobs if job.state == "held"]
    if not held:
        return []
    lines = [f"held in {_dcs_of(job)}: {printable(job.reason)}" for job in held]
    return [
        *(click.style(line, fg="yellow", bold=True) for line in lines),
        f"  open the next wave anyway: p2pdist prewarm resume {run}",
        f"  try the failed hosts again: p2pdist prewarm retry {run}",
    ]


def host_lines(hosts: Sequence[HostStatus], room: int, screen: Screen) -> list[str]:
    """Return the first of `hosts` with what keeps them, and how many there are besides."""
    if not hosts:
        return []
    rows = [_host(host) for host in hosts[:room]]
    lines = columns(rows, "lllrl")
    if len(hosts) > room:
        lines.append(dim(f"and {plural(len(hosts) - room, 'more host')}"))
    return [fit(line, screen.columns - 1) for line in lines]


def _host(host: HostStatus) -> list[str]:
    color = "red" if is_failed(host) else "yellow" if host.code or host.state == "lost" else None
    tries = f" (try {host.tries + 1})" if host.tries and not is_failed(host) else ""
    code = f"{host.code}: " if host.code else ""
    return [
        printable(host.name) or host.host_id[:12],
        dim(printable(host.dc)),
        click.style(host.state, fg=color),
        size_text(host.missing_bytes) if host.missing_bytes else "",
        printable(f"{code}{host.reason}{tries}".strip()),
    ]


def _dcs_of(job: JobStatus) -> str:
    return printable(", ".join(row.dc for row in job.dcs)) or printable(job.id)
