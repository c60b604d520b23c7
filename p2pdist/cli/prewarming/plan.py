"""What a job would move, in a few lines, before a byte is moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from p2pdist.cli.amounts import size_text
from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.prewarming.texts import headed, images_text, moment, plural, span
from p2pdist.cli.prewarming.trackers import Planned
from p2pdist.model.jobs import DcPlan, JobSpec
from p2pdist.process.terminal import printable

_DEADLINE = "the deadline"


def plan_lines(spec: JobSpec, planned: Sequence[Planned], now_unix_s: float) -> list[str]:
    """Return the table and the warnings, what is worst last and in red."""
    rows = [row for one in planned for row in one.plan.dcs]
    hosts, ready = sum(row.hosts for row in rows), sum(row.ready for row in rows)
    whom = "proxies" if spec.proxies_only else plural(hosts, "host")
    title = f"{images_text([str(image) for image in spec.images])} for {whom}"
    lines = [click.style(title, bold=True) + (f", {ready:,} ready already" if ready else "")]
    if spec.at_unix_s:
        lines[0] += f", from {moment(spec.at_unix_s, now_unix_s)} on"
    if rows:
        titles = ["DC", "HOSTS", "READY", "HOSTS FETCH", "ENTERS DC", "LINK TIME", "HOST TIME"]
        table = headed(titles, [_row(row) for row in sorted(rows, key=_dc)], "lrrrrrr")
        lines += [f"  {line}" for line in table]
    warnings = dict.fromkeys(text for one in planned for text in one.plan.warnings)
    lines += [
        click.style(f"warning: {printable(text)}", fg="yellow")
        for text in warnings
        if not text.startswith(_DEADLINE)
    ]
    if spec.deadline_unix_s:
        lines.append(_deadline_line(spec, planned, now_unix_s))
    return lines


def deadline_fails(planned: Sequence[Planned]) -> bool:
    return any(one.plan.deadline_holds is False for one in planned)


def plan_json(spec: JobSpec, planned: Sequence[Planned]) -> dict[str, Any]:
    needs = [one.plan.needs_s for one in planned if one.plan.needs_s is not None]
    return {
        "schema_version": 1,
        "dry_run": True,
        "images": [str(image) for image in spec.images],
        "digests": [image.digest for image in spec.images],
        "dcs": [msgspec.to_builtins(row) for one in planned for row in one.plan.dcs],
        "needs_s": max(needs, default=None),
        "deadline_unix_s": spec.deadline_unix_s or None,
        "deadline_holds": _holds(planned),
        "warnings": list(dict.fromkeys(text for one in planned for text in one.plan.warnings)),
        "exit_code": int(Exit.TIMEOUT if deadline_fails(planned) else Exit.DONE),
    }


def _holds(planned: Sequence[Planned]) -> bool | None:
    said = {one.plan.deadline_holds for one in planned}
    return False if False in said else None if None in said else True


def _deadline_line(spec: JobSpec, planned: Sequence[Planned], now_unix_s: float) -> str:
    left_s = spec.deadline_unix_s - max(now_unix_s, spec.at_unix_s)
    left = f"{span(left_s)} is left until {moment(spec.deadline_unix_s, now_unix_s)}"
    slowest = max(planned, key=lambda one: one.plan.needs_s or 0.0)
    needs_s = slowest.plan.needs_s
    if deadline_fails(planned):
        needed = f"{span(needs_s)} at least is needed {_why(spec, slowest)}" if needs_s else ""
        text = f"the deadline cannot hold: {needed + ', ' if needed else ''}{left}"
        return click.style(text, fg="red", bold=True)
    if needs_s is None:
        return f"deadline: {left}; without --rate or --dc-rate nothing says how long it takes"
    return click.style(
        f"the deadline can hold: {span(needs_s)} at least is needed, {left}", fg="green"
    )


def _why(spec: JobSpec, slowest: Planned) -> str:
    """Name the datacenter and the limit that take longest."""
    rows = [row for row in slowest.plan.dcs if max(row.link_s or 0, row.hosts_s or 0) > 0]
    if not rows:
        return ""
    row = max(rows, key=lambda row: max(row.link_s or 0, row.hosts_s or 0))
    if (row.link_s or 0) >= (row.hosts_s or 0):
        return f"({size_text(row.outside_bytes)} into {row.dc} at {size_text(spec.dc_rate)}/s)"
    size = size_text(row.largest_host_bytes)
    waves = ", wave by wave" if len(spec.waves) > 1 else ""
    return f"({size} to a host in {row.dc} at {size_text(spec.rate)}/s{waves})"


def _row(row: DcPlan) -> list[str]:
    return [
        printable(row.dc),
        f"{row.hosts:,}",
        f"{row.ready:,}",
        size_text(row.host_bytes),
        size_text(row.outside_bytes),
        "no limit" if row.link_s is None else span(row.link_s),
        "no limit" if row.hosts_s is None else span(row.hosts_s),
    ]


def _dc(row: DcPlan) -> str:
    return row.dc
