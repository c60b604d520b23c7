"""How a run ended: for people in a few lines, for scripts as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click
import msgspec

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.prewarming.frame import (
    Screen,
    dc_lines,
    fit,
    held_lines,
    host_lines,
    wave_lines,
)
from p2pdist.cli.prewarming.picture import Picture
from p2pdist.cli.prewarming.texts import headed, images_text, moment, plural, span, width_of
from p2pdist.cli.prewarming.trackers import Filed
from p2pdist.model.jobs import HostStatus, JobStatus
from p2pdist.process.terminal import printable

HOSTS_NAMED_MAX: Final = 20


def outcome_lines(picture: Picture, run: str, code: Exit, screen: Screen) -> list[str]:
    """Return the last words on a run that was waited for."""
    what, where = _verdict(picture, run, code)
    one_line = f"{what} {where}"
    lines = [one_line] if width_of(one_line) < screen.columns else [what, f"  {where}"]
    if code is not Exit.DONE or len(picture.dcs) > 1:
        lines += ["", *dc_lines(picture, screen), *wave_lines(picture, screen)]
    if problems := host_lines([*picture.failed, *picture.behind], HOSTS_NAMED_MAX, screen):
        lines += ["", *problems]
    if picture.failed and picture.state != "held":
        lines += ["", f"try the failed hosts again: p2pdist prewarm retry {run}"]
    elif not picture.settled:
        lines += ["", f"it goes on: p2pdist prewarm show --wait {run}"]
    return lines


def _verdict(picture: Picture, run: str, code: Exit) -> tuple[str, str]:
    """What became of which image, and on how many hosts."""
    ready, hosts = (sum(getattr(row, of) for row in picture.dcs) for of in ("ready", "hosts"))
    name = click.style(images_text(picture.jobs[0].images), bold=True)
    took_s = max(job.ended_unix_s for job in picture.jobs) - min(
        job.started_unix_s or job.created_unix_s for job in picture.jobs
    )
    where = f"{ready:,} of {plural(hosts, 'host')}"
    if code is Exit.DONE:
        dcs = plural(len(picture.dcs), "datacenter")
        what = click.style("ready", fg="green", bold=True)
        return (
            f"{what}  {name}",
            f"on all {plural(hosts, 'host')} of {dcs} in {span(took_s)}  ({run})",
        )
    if code is Exit.TIMEOUT:
        text = "deadline missed"
    else:
        text = {"held": "held", "cancelled": "cancelled"}.get(picture.state, "not everywhere")
    return click.style(text, fg="red", bold=True) + f"  {name}", f"ready on {where}  ({run})"


def complaint_lines(picture: Picture, run: str, code: Exit, now_unix_s: float) -> list[str]:
    """Return what stderr gets where it did not end well, whatever stdout has."""
    ready, hosts = (sum(getattr(row, of) for row in picture.dcs) for of in ("ready", "hosts"))
    missing = f"{hosts - ready:,} of {plural(hosts, 'host')} not ready"
    if code is Exit.TIMEOUT:
        at = moment(picture.deadline_unix_s, now_unix_s)
        return [f"p2pdist: the deadline, {at}, was missed: {missing}"]
    if picture.state == "held":
        return [f"p2pdist: {line.strip()}" for line in held_lines(picture, run)]
    return [f"p2pdist: {picture.state}: {missing}"]


def run_json(picture: Picture, filed: Sequence[Filed], run: str, code: Exit) -> dict[str, Any]:
    """Return the final object; `hosts` of the statuses must be all of them."""
    jobs = [
        {
            "id": status.id,
            "tracker": one.tracker.base_url,
            "state": status.state,
            "reason": status.reason,
            "wave": status.wave,
            "waves": status.waves,
            "dcs": [row.dc for row in status.dcs],
            "filed_by": status.filed_by or None,
            "created_unix_s": status.created_unix_s,
            "started_unix_s": status.started_unix_s or None,
            "ended_unix_s": status.ended_unix_s or None,
        }
        for one, status in zip(filed, picture.jobs, strict=True)
    ]
    first = picture.jobs[0]
    return {
        "schema_version": 1,
        "run": run,
        "state": picture.state,
        "exit_code": int(code),
        "images": first.images,
        "digests": first.digests,
        "deadline_unix_s": picture.deadline_unix_s or None,
        "deadline_missed": any(job.deadline_missed for job in picture.jobs) or code is Exit.TIMEOUT,
        "jobs": jobs,
        "dcs": [msgspec.to_builtins(row) for row in picture.dcs],
        "failed": [_host_json(host) for host in picture.failed],
        "to_go": [_host_json(host) for host in picture.behind],
    }


def _host_json(host: HostStatus) -> dict[str, Any]:
    """All keys, those with defaults as well: scripts index them."""
    return {name: getattr(host, name) for name in host.__struct_fields__}


def listing(pictures: Mapping[str, Picture], now_unix_s: float, screen: Screen) -> list[str]:
    """Return the lines of `prewarm ls`: run -> how it stands."""
    titles = ["JOB", "STATE", "AGE", "READY", "FAILED", "IMAGES", "DC", "BY"]
    rows = [_row(picture, run, now_unix_s) for run, picture in pictures.items()]
    lines: list[str] = []
    for shown in range(len(titles), len(titles) - 3, -1):  # what is last goes for want of room
        lines = headed(titles[:shown], [row[:shown] for row in rows], "llrrrlll"[:shown])
        if max(map(width_of, lines)) < screen.columns:
            break
    return [fit(line, screen.columns - 1) for line in lines]


def _filed_by(job: JobStatus, run: str) -> str:
    """What it calls itself, and whose certificate it showed."""
    proved = " ".join(word[:8] for word in job.filed_by.split())
    return printable(", ".join(filter(None, (job.note.removesuffix(f" {run}"), proved))))


def _row(picture: Picture, run: str, now_unix_s: float) -> list[str]:
    rows = picture.dcs
    hosts, ready, failed = (
        sum(getattr(row, of) for row in rows) for of in ("hosts", "ready", "failed")
    )
    made_s = min(job.created_unix_s for job in picture.jobs)
    first = picture.jobs[0]
    return [
        run,
        picture.state,
        span(now_unix_s - made_s),
        f"{ready:,}/{hosts:,}",
        click.style(f"{failed:,}", fg="red") if failed else "0",
        images_text(first.images),
        ",".join(printable(row.dc) for row in rows) or "-",
        _filed_by(first, run) or "-",
    ]
