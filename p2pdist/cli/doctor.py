"""`p2pdist doctor`: what would keep this host from working well, and the fix."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.options import config_option, load_from_flags, setting_flags
from p2pdist.process.terminal import columns_of, folded, printable
from p2pdist.settings import SECTIONS

if TYPE_CHECKING:
    from p2pdist.doctor.findings import Finding
    from p2pdist.settings import Settings
    from p2pdist.settings_load import Loaded

ROLES = ("peer", "proxy", "tracker", "all-in-one", "snapshotter")
PARTS = ("tracker", "proxy")
"""Of all-in-one; its proxy serves the mirror of a peer."""
COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}


@click.command()
@config_option
@click.option("--role", type=click.Choice(ROLES), default="peer", show_default=True)
@click.option("--quick", is_flag=True, help="Only: does the daemon answer and serve? Under 1 s.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@setting_flags(*SECTIONS)
def doctor(config: Path | None, role: str, quick: bool, output: str, **flags: Any) -> int:
    """Check this host for a role, before its daemon starts or while it runs.

    Looks at keys, certificates, ports, trackers and proxies (up to the proof that they have the
    same secret), clocks, registries (a token and a manifest), disk, limits, who can reach what
    listens here, and whether the container engines ask the peer. Of a snapshotter: kernel, mirror,
    and who starts containers by it. One line each: PASS, WARN or FAIL and the fix.
    Changes nothing.

    Without --config it looks at the settings of the daemon that runs here, else at those of its
    unit, else at file and variables; flags count in any case.

    \b
    Exit status: 0 no FAIL; 2 something here is set wrongly; 5 only daemons do not answer.
    Examples:
      p2pdist doctor --role proxy --config /etc/p2pdist/config.toml
      p2pdist doctor --quick                  for a container's health check
    """
    logging.getLogger().addHandler(logging.NullHandler())  # what is logged becomes a finding
    loaded = load_from_flags(config, flags)
    check = _quick(loaded.settings, role) if quick else examine(loaded, role, explicit=bool(config))
    findings = asyncio.run(check)
    if output == "json":
        listed = [asdict(finding) for finding in findings]
        click.echo(json.dumps({"schema_version": 1, "role": role, "findings": listed}, indent=2))
    else:
        click.echo("\n".join(finding_lines(findings, columns_of(sys.stdout))))
    return _exit_code(findings)


async def examine(loaded: Loaded, role: str, *, explicit: bool) -> list[Finding]:
    """Look at everything; `explicit`: at the settings of `loaded`, whatever runs here."""
    from p2pdist.doctor import believed, local, network, runtimes, upstreams
    from p2pdist.doctor.in_force import settings_in_force
    from p2pdist.model.members import Role
    from p2pdist.process import clock
    from p2pdist.registry.reading.entries import by_caller

    settings, found = await settings_in_force(loaded, role, explicit=explicit)
    if role == "snapshotter":
        return found + await _examine_snapshotter(settings)
    parts = PARTS if role == "all-in-one" else (role,)
    if role == "all-in-one":
        settings, made = local.with_found_keys(settings)
        found.append(made)
    if role != "all-in-one" or settings.cluster.secret_file is not None:
        found += local.check_keys(settings, "proxy" if "proxy" in parts else role)
    found += [local.check_identity(settings, Role(part), clock.unix_s()) for part in parts]
    mirror = role in ("peer", "all-in-one")
    looks: list[Coroutine[Any, Any, list[Finding]]] = [
        _listed(network.check_ports(settings, part)) for part in parts
    ]
    if role == "all-in-one":
        looks.append(network.check_mirror_port(settings))
        if await network.answers(settings.proxy.admin_listen):
            looks.append(network.check_own_proxy(settings))
    looks += [
        _listed(network.check_others(settings, part))
        for part in parts
        if role != "all-in-one" or await network.answers(getattr(settings, part).admin_listen)
    ]
    if "proxy" in parts:
        found += local.check_private_layers(settings, Role.PROXY, by_caller(settings))
        looks.append(upstreams.check_upstreams(settings))
    for part in parts:
        looks += [network.check_running(settings, part), believed.check_believed(settings, part)]
    for seen in await asyncio.gather(*looks):
        found += seen
    found += local.check_disk(settings, role)
    found += local.check_limits()
    for part in parts:
        found += local.check_exposure(settings, part)
    if mirror:
        found.append(local.check_mirror_exposure(settings))
        found += runtimes.check_runtimes(settings)
    return list(dict.fromkeys(found))


async def _examine_snapshotter(settings: Settings) -> list[Finding]:
    """It has no cluster secret, and speaks to nobody but the mirror and the engines of its host."""
    from p2pdist.doctor import lazy, local, network

    admin = settings.snapshotter.admin_listen
    found = [await network.check_port("snapshotter.admin_listen", admin, "snapshotter", admin)]
    found += await lazy.check_snapshotter(settings)
    found += await network.check_running(settings, "snapshotter")
    found += local.check_state(settings)
    found += local.check_limits()
    return [*found, *local.check_exposure(settings, "snapshotter")]


async def _listed(findings: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in findings]


async def _quick(settings: Settings, role: str) -> list[Finding]:
    from p2pdist.doctor.findings import failed, passed
    from p2pdist.doctor.network import answers

    section = "proxy" if role == "all-in-one" else role
    admin = getattr(settings, section).admin_listen
    if await answers(admin, "/readyz"):
        return [passed("ready", f"the {role} at {admin} serves")]
    fix = f"start it with `p2pdist {role}`, or look at its log"
    return [failed("ready", f"no {role} that serves at {admin}", fix, remote=True)]


def finding_lines(findings: Sequence[Finding], columns: int | None) -> list[str]:
    """The verdicts in one column, the checks in the next, the fix below what it mends."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        said = folded(
            f"{finding.level}  {finding.check:<{width}}  ", printable(finding.text), columns
        )
        level = click.style(finding.level, fg=COLOURS[finding.level], bold=True)
        lines += [level + said[0].removeprefix(finding.level), *said[1:]]
        if finding.fix:
            lines += folded(f"      {'':<{width}}  ", f"fix: {printable(finding.fix)}", columns)
    return lines


def _exit_code(findings: Iterable[Finding]) -> int:
    bad = [finding for finding in findings if finding.level == "FAIL"]
    if not bad:
        return Exit.DONE
    return Exit.UPSTREAM if all(finding.remote for finding in bad) else Exit.USAGE
