"""`p2pdist status`: what the daemons of this host are doing."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.runtime.terminal import columns_of, folded, printable

DEFAULT_ADMINS: Final = (
    "http://127.0.0.1:5309",
    "http://127.0.0.1:5109",
    "http://127.0.0.1:5209",
)
TIMEOUT_S: Final = 3.0


@click.command()
@click.option(
    "--admin",
    "admins",
    multiple=True,
    metavar="URL",
    help="Admin address of a daemon, as often as needed; else those of this host.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(admins: tuple[str, ...], output: str) -> None:
    """Show what the daemons of this host are doing: bytes by source, swarms, cache, trouble.

    \b
    Examples:
      p2pdist status
      p2pdist status -o json --admin http://127.0.0.1:5309
    """
    asked = admins or DEFAULT_ADMINS
    found = asyncio.run(_ask_all(asked))
    if not found:
        raise CommandError(
            f"no daemon answers at {', '.join(url.removeprefix('http://') for url in asked)}",
            Exit.UPSTREAM,
            "start one (`p2pdist peer`), or name its admin address with --admin",
        )
    if output == "json":
        click.echo(json.dumps({"schema_version": 1, "daemons": found}, indent=2))
        return
    show(found)


def show(daemons: list[dict[str, Any]]) -> None:
    """Print a block for each daemon."""
    columns = columns_of(sys.stdout)
    for daemon in daemons:
        click.echo("\n".join(describe(daemon, columns)) + "\n")


async def _ask_all(urls: tuple[str, ...]) -> list[dict[str, Any]]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def ask(url: str) -> dict[str, Any] | None:
            try:
                async with session.get(f"{url.rstrip('/')}/api/v1/status") as answer:
                    body = await answer.json() if answer.status == 200 else None
            except (aiohttp.ClientError, TimeoutError, ValueError):
                return None
            return body if isinstance(body, dict) else None

        answers = await asyncio.gather(*(ask(url) for url in urls))
    return [answer for answer in answers if answer is not None]


def describe(daemon: dict[str, Any], columns: int | None = None) -> list[str]:
    """A block of aligned lines about one daemon, folded to `columns`."""
    facts = [("host", f"{daemon['host_id'][:12]} in {daemon['dc']}")]
    draining = "  DRAINING" if daemon.get("draining") else ""
    facts.append(("up", f"{age_text(daemon['uptime_s'])}{draining}"))
    if daemon["role"] == "tracker":
        facts.append(("hosts", str(daemon["hosts_connected"])))
        facts.append(("swarms", str(daemon["swarms"]["active"])))
        facts.append(("leases", str(daemon["leases"])))
    else:
        facts += _node_facts(daemon).items()
    facts += _pulls(daemon.get("recent_pulls", []))
    facts += _degraded(daemon.get("degraded", []))
    lines = [printable(_title(daemon))]
    for name, text in facts:
        lines += folded(f"  {name:<10}", printable(text), columns)
    return lines


def _title(daemon: dict[str, Any]) -> str:
    if daemon["role"] == "proxy" and "mirror" in daemon:
        return "proxy, and the peer of this host"
    return str(daemon["role"])


def _pulls(pulls: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """From where the last images came, the last one first."""
    facts = []
    for pull in pulls:
        tag = f":{pull['tag']}" if pull["tag"] else ""
        facts.append(("pulled", f"{pull['image']}{tag}, {age_text(pull['ago_s'])} ago"))
        cut = f", {pull['cut']} cut short" if pull["cut"] else ""
        facts.append(("", f"from {_by_label(pull['bytes_by_source'], 'manifests only')}{cut}"))
    return facts


def _degraded(troubles: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What keeps the daemon from working as it should, each with what to do about it."""
    facts = []
    for trouble in troubles:
        text = f"{trouble['reason']} for {age_text(trouble['for_s'])}: {trouble['detail']}"
        facts += [("DEGRADED", text), ("", f"fix: {trouble['fix']}")]
    return facts


def _node_facts(daemon: dict[str, Any]) -> dict[str, str]:
    swarms = daemon["swarms"]
    return {
        "links": f"{daemon['links']}, tracker {_tracker(daemon)}",
        "serves": _serves(daemon),
        "blobs": f"{swarms['whole']} whole, {swarms['active']} on their way",
        "cache": size_text(daemon["cache_bytes"]),
        "received": _by_label(daemon["bytes_received"]),
        "sent": _by_label(daemon["bytes_sent"]),
        "trouble": ", ".join(_troubles(daemon)) or "none",
    }


def _serves(daemon: dict[str, Any]) -> str:
    if "registries" not in daemon:
        return "unknown"
    return "1 registry" if daemon["registries"] == 1 else f"{daemon['registries']} registries"


def _tracker(daemon: dict[str, Any]) -> str:
    if daemon["tracker_connected"]:
        return "up"
    return "AWAY" if _named(daemon, "trackers") else "none named"


def _named(daemon: dict[str, Any], what: str) -> bool:
    """Whether its settings name any; a daemon of an older version does not say."""
    return bool(daemon.get("named", {}).get(what, 1))


def _troubles(daemon: dict[str, Any]) -> list[str]:
    """All that is not as it should be, the present before what was counted since the start."""
    shown = [trouble["reason"] for trouble in daemon.get("degraded", [])]
    if _tracker(daemon) == "AWAY" and "tracker_away" not in shown:
        shown.append("tracker away")
    if daemon["role"] == "peer" and not _named(daemon, "proxies"):
        shown.append("no proxy named")
    elif daemon["role"] == "peer" and daemon["swarms"]["active"] and not daemon["links"]:
        shown.append("no link, and blobs on their way")
    counted = {
        "bans": daemon["bans"],
        "hedges": daemon["hedges"],
        "stalls": daemon["stalls"],
        **{f"rejected ({reason})": n for reason, n in daemon["rejected"].items()},
    }
    return [*shown, *(f"{n} {name}" for name, n in counted.items() if n)]


def _by_label(numbers: dict[str, int], nothing: str = "nothing yet") -> str:
    parts = [f"{label} {size_text(nbytes)}" for label, nbytes in numbers.items() if nbytes]
    return ", ".join(parts) or nothing


def age_text(seconds: float) -> str:
    """`42 s`, `17 min`, `5 h`, `3 d`: rounded down, from two of the larger unit on."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds // length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def size_text(nbytes: float) -> str:
    """`12.3 MB`: decimal units, as registries and runtimes show them."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"
