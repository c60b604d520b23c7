"""`p2pdist status`: what the daemons of this host are doing."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from p2pdist.cli.amounts import age_text, size_text
from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.lazy_status import describe_mounts, mounts_of_host, shown_facts
from p2pdist.cli.mount import STATE_DIR
from p2pdist.process.terminal import columns_of, folded, printable

DEFAULT_ADMINS: Final = (
    "http://127.0.0.1:5309",
    "http://127.0.0.1:5109",
    "http://127.0.0.1:5209",
    "http://127.0.0.1:5409",
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
@click.option(
    "--mounts-dir",
    type=click.Path(path_type=Path),
    default=STATE_DIR,
    show_default=True,
    help="Where what belongs to mounts of this host lies.",
)
def status(admins: tuple[str, ...], output: str, mounts_dir: Path) -> None:
    """Show what the daemons of this host are doing: bytes by source, swarms, cache, trouble.

    Also what is read of images that are not all here: by containers, where a snapshotter runs, and
    of each mount that `p2pdist mount` made (root only).

    \b
    Examples:
      p2pdist status
      p2pdist status -o json --admin http://127.0.0.1:5309
    """
    asked = admins or DEFAULT_ADMINS
    found = asyncio.run(_ask_all(asked))
    mounted = [] if admins else mounts_of_host(mounts_dir)
    if not found:
        if output == "table":
            _print(describe_mounts(mounted, columns_of(sys.stdout)))
        raise CommandError(
            f"no daemon answers {_places(admins)}",
            Exit.UPSTREAM,
            "start one (`p2pdist peer`), or name its admin address with --admin",
        )
    if output == "json":
        told = {"schema_version": 1, "daemons": found, "mounts": mounted}
        click.echo(json.dumps(told, indent=2))
        return
    show(found)
    _print(describe_mounts(mounted, columns_of(sys.stdout)))


def _places(admins: tuple[str, ...]) -> str:
    if admins:
        return f"at {', '.join(url.removeprefix('http://') for url in admins)}"
    ports = ", ".join(url.rpartition(":")[2] for url in DEFAULT_ADMINS)
    return f"on this host (ports {ports})"


def _print(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)


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
    elif daemon["role"] == "snapshotter":
        facts += shown_facts(daemon)
    else:
        facts += _node_facts(daemon).items()
    facts += _secret(daemon)
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
        "links": f"{_links(daemon)}, tracker {_tracker(daemon)}",
        "serves": _serves(daemon),
        "blobs": f"{swarms['whole']} whole, {swarms['active']} on their way",
        "cache": size_text(daemon["cache_bytes"]),
        "received": _by_label(daemon["bytes_received"]),
        "sent": _by_label(daemon["bytes_sent"]),
        "trouble": ", ".join(_troubles(daemon)) or "none",
    }


def _secret(daemon: dict[str, Any]) -> list[tuple[str, str]]:
    """The cluster secrets that it believes; an older version does not say."""
    from p2pdist.model.cluster_secrets import shown

    told = (daemon.get("cluster_secret") or {}).get("fingerprints")
    return [("secret", shown(told))] if told else []


def _serves(daemon: dict[str, Any]) -> str:
    if "registries" not in daemon:
        return "unknown"
    return "1 registry" if daemon["registries"] == 1 else f"{daemon['registries']} registries"


def _links(daemon: dict[str, Any]) -> str:
    """Links in clear are worth a word only to a host that has a certificate."""
    links = daemon["links"]
    clear = links - daemon.get("links_sealed", 0) if daemon.get("identity") else 0
    return f"{links} ({clear} in clear)" if clear else str(links)


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
