"""Which settings a daemon of this host has: its own word, else its unit's, else the file's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from p2pdist.doctor.findings import Finding, passed, warned
from p2pdist.doctor.network import ask_admin
from p2pdist.doctor.units import Unit, parse_unit
from p2pdist.errors import ConfigError
from p2pdist.model.members import Address
from p2pdist.settings import Settings, all_leaves
from p2pdist.settings_json import parse_settings
from p2pdist.settings_load import Loaded, load_settings

# systemd.unit(5), "Unit File Load Path": the first directory wins.
UNIT_DIRECTORIES: Final = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
)
UNIT_BYTES_MAX: Final = 64 * 1024
SETTINGS_BYTES_MAX: Final = 1 << 20
NAMED_MAX: Final = 4
# What this command always says for itself: where it looks.
_FLAG: Final = "flag "


def find_unit(role: str, root: Path = Path("/")) -> Unit | None:
    """The unit of a role with its drop-ins; None where there is none."""
    name = f"p2pdist-{role}.service"
    directories = [root / directory for directory in UNIT_DIRECTORIES]
    fragment = next((d / name for d in directories if (d / name).is_file()), None)
    if fragment is None:
        return None
    drop_ins: dict[str, Path] = {}
    for directory in directories:
        for path in directory.glob(f"{name}.d/*.conf"):
            drop_ins.setdefault(path.name, path)
    paths = [fragment, *(drop_ins[key] for key in sorted(drop_ins))]
    return parse_unit(name, filter(None, map(_read, paths)))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(UNIT_BYTES_MAX).decode(errors="replace")
    except OSError:
        return ""


def with_unit(
    loaded: Loaded, unit: Unit, environ: Mapping[str, str] | None = None
) -> tuple[Loaded, str]:
    """What a daemon that is started by `unit` would have, and flags of this command over it."""
    environ = os.environ if environ is None else environ
    config = None if unit.config is None else Path(unit.config)
    started = load_settings(config, flags=unit.flags, environ={**environ, **unit.environ})
    settings = overlaid(started.settings, loaded)
    return Loaded(settings, {**started.origins, **_flags(loaded)}), f"the unit {unit.name}"


def _flags(loaded: Loaded) -> dict[str, str]:
    return {name: origin for name, origin in loaded.origins.items() if origin.startswith(_FLAG)}


def overlaid(base: Settings, loaded: Loaded) -> Settings:
    """`base` under the flags that this command was given."""
    for name in _flags(loaded):
        section, _, key = name.partition(".")
        value = _value(loaded.settings, name)
        base = replace(base, **{section: replace(getattr(base, section), **{key: value})})
    return base


def _value(settings: Settings, name: str) -> Any:
    section, _, key = name.partition(".")
    return getattr(getattr(settings, section), key)


async def settings_in_force(
    loaded: Loaded, role: str, *, explicit: bool, root: Path = Path("/")
) -> tuple[Settings, list[Finding]]:
    """The settings to look at, and a line that says which those are.

    `explicit`: a file was named to be checked: that one counts, whatever runs. Raises ConfigError.
    """
    whose = "the file that was named" if explicit else "file, variables and defaults"
    if not explicit and (unit := find_unit(role, root)) is not None:
        loaded, whose = with_unit(loaded, unit)
    section = "proxy" if role == "all-in-one" else role  # which knows the tracker
    admin: Address = getattr(loaded.settings, section).admin_listen
    running = await _ask(admin)
    if running is None:
        return loaded.settings, [passed("settings", f"those of {whose}; no {role} runs at {admin}")]
    other = differing(running, loaded)
    if explicit:
        fix = f"restart the {role} with this file, or leave --config away to check what runs"
        text = f"those of {whose}; the {role} at {admin} runs with another {other}"
        return loaded.settings, [
            warned("settings", text, fix) if other else passed("settings", f"those of {whose}")
        ]
    own = replace(getattr(running, section), admin_listen=admin)  # by which it was found
    settings = overlaid(replace(running, **{section: own}), loaded)
    but = f", not those of {whose}: {other}" if other else ""
    return settings, [passed("settings", f"those of the {role} that runs at {admin}{but}")]


async def _ask(admin: Address) -> Settings | None:
    body = await ask_admin(admin, "/api/v1/settings", SETTINGS_BYTES_MAX)
    try:
        return None if body is None else parse_settings(body)
    except ConfigError:  # of another program
        return None


def differing(running: Settings, loaded: Loaded) -> str:
    """The names of what is set otherwise here, a few of them; what is a flag here is meant so."""
    names = [
        leaf.name
        for leaf in all_leaves()
        if leaf.name in loaded.origins
        and leaf.name not in _flags(loaded)
        and _value(running, leaf.name) != _value(loaded.settings, leaf.name)
    ]
    if running.upstream != loaded.settings.upstream:
        names.append("[[upstream]]")
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more
