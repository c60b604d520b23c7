"""`p2pdist replicas`: where an image lies, datacenter by datacenter, and who is behind."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.prewarming.options import (
    Desk,
    endpoint_option,
    open_resolver,
    open_trackers,
    output_option,
    tracker_options,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from p2pdist.cli.prewarming.standing import Standing

_COLORS: Final = {
    "in step": "green",
    "coming": "cyan",
    "behind": "yellow",
    "failed": "red",
    "cancelled": "yellow",
}


@click.command()
@click.argument("image")
@output_option
@tracker_options
@endpoint_option
def replicas(
    image: str,
    desk: Desk,
    endpoint: str,
    output: str,
) -> None:
    """Show where IMAGE lies, and which datacenters are behind what its tag names now.

    Read off the jobs of all trackers that brought it, those of replication rules as well. The lag
    is the age of the job that is to bring what the registry has now.

    Exit codes: 0 in step, 3 unknown image, 4 not authorised, 5 a tracker or the registry is out of
    reach (the others are shown), 7 not everywhere.

    \b
    Examples:
      p2pdist replicas registry.corp/shop/api:stable
      p2pdist replicas api:2.4 -o json | jq '.dcs[] | select(.state != "in step")'
    """
    from p2pdist.cli.prewarming.progress import echo
    from p2pdist.cli.prewarming.standing import standings
    from p2pdist.oci.reference import DEFAULT_TAG, Reference, parse_reference
    from p2pdist.process.clock import unix_s
    from p2pdist.process.terminal import printable

    try:
        parsed = parse_reference(image)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE, "see `p2pdist replicas --help`") from None
    # As jobs call it: by its tag, `latest` where none was typed, or by its digest alone.
    tag = None if parsed.digest else parsed.tag or DEFAULT_TAG
    reference = Reference(parsed.name, tag, parsed.digest)

    async def ask() -> tuple[str, list[Standing], Mapping[str, str]]:
        async with (
            open_trackers(desk) as opened,
            open_resolver(endpoint) as resolver,
        ):
            digest = await resolver.digest(reference)
            listed = await opened.jobs()
        jobs = [status for _, status in listed.jobs]
        return digest, standings(str(reference), digest, jobs, unix_s()), listed.away

    digest, rows, away = asyncio.run(ask())
    if output == "json":
        click.echo(json.dumps(_json(str(reference), digest, rows, away), indent=2))
    else:
        echo(standing_lines(str(reference), digest, rows))
    for why in away.values():
        click.echo(f"p2pdist: {printable(why)}; its datacenter is not shown", err=True)
    click.get_current_context().exit(int(_code(rows, away)))


def _code(rows: list[Standing], away: Mapping[str, str]) -> Exit:
    if away:
        return Exit.UPSTREAM
    return Exit.DONE if rows and all(row.state == "in step" for row in rows) else Exit.PARTIAL


def _json(
    image: str, digest: str, rows: list[Standing], away: Mapping[str, str]
) -> dict[str, object]:
    import dataclasses

    return {
        "schema_version": 1,
        "image": image,
        "digest": digest,
        "dcs": [dataclasses.asdict(row) for row in rows],
        "trackers_away": list(away),
        "exit_code": int(_code(rows, away)),
    }


def standing_lines(image: str, digest: str, rows: Sequence[Standing]) -> list[str]:
    """A row for each datacenter, under what the registry has."""
    from p2pdist.cli.prewarming.texts import dim, headed, span
    from p2pdist.process.terminal import printable

    lines = [
        f"{click.style(printable(image), bold=True)}  {dim('the registry has')} {_short(digest)}"
    ]
    if not rows:
        return [
            *lines,
            "no job has brought it anywhere: `p2pdist prewarm` and [[replicate]] rules do",
        ]
    table = [
        [
            printable(row.dc),
            click.style(row.state, fg=_COLORS[row.state]),
            _short(row.digest) if row.digest else dim("-"),
            f"{row.hosts_ready:,}/{row.hosts:,}" if row.hosts else dim("-"),
            f"{row.proxies_ready}/{row.proxies}" if row.proxies else dim("-"),
            dim("-") if not row.lag_s else span(row.lag_s),
        ]
        for row in rows
    ]
    titles = ["DC", "STATE", "DIGEST THERE", "HOSTS", "PROXIES", "LAG"]
    return [*lines, *headed(titles, table, "lllrrr")]


def _short(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"{algorithm}:{value[:12]}"
