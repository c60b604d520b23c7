"""Podman and CRI-O: one drop-in file for containers/image, with an entry for each registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import tomlkit

from p2pdist.engines import early_starts, toml_blocks, toml_text
from p2pdist.engines.options import EarlyStarts, Options
from p2pdist.engines.processes import ask_to_reload, running_pid
from p2pdist.engines.targets import Plan, Target
from p2pdist.errors import ConfigError

MAIN: Final = "/etc/containers/registries.conf"
DROP_INS: Final = "/etc/containers/registries.conf.d"
OWN: Final = "50-p2pdist.conf"
CRIO_PID_FILES: Final = ("/var/run/crio/crio.pid", "/run/crio/crio.pid")
HEADER: Final = "# Made by `p2pdist runtime install`; `p2pdist runtime uninstall` takes it away.\n"


class Podman:
    name = "podman"

    def plan(self, options: Options) -> Plan:
        how = "Podman, Buildah and Skopeo read it at every pull: there is nothing to reload"
        return _plan(options, lambda: how, how, early_starts.PODMAN_READS)

    def shown(self, options: Options) -> Sequence[Target]:
        return [_target(options), _storage_target(options)]

    def writes(self, path: Path, options: Options) -> bool:
        return path in (_own(options), options.path(early_starts.STORAGE_CONF))


class Crio:
    name = "crio"

    def plan(self, options: Options) -> Plan:
        pid = running_pid(options.tree, [options.path(p) for p in CRIO_PID_FILES], "crio")
        who = f"crio (pid {pid})" if pid is not None else "crio, when it starts,"
        would = f"{who} would read it (SIGHUP)"
        reload = partial(ask_to_reload, pid, "crio")
        return _plan(options, reload, would, early_starts.RESTART_CRIO)

    def shown(self, options: Options) -> Sequence[Target]:
        return [_target(options), _storage_target(options)]

    def writes(self, path: Path, options: Options) -> bool:
        return path in (_own(options), options.path(early_starts.STORAGE_CONF))


def _own(options: Options) -> Path:
    return options.path(f"{DROP_INS}/{OWN}")


def _plan(options: Options, reload: Callable[[], str], reload_text: str, new: str) -> Plan:
    """`new`: what to say where early starts are."""
    _refuse_rivals(options)
    if options.early is None:
        return Plan([_target(options)], reload, reload_text)
    storage = _storage_target(options)
    is_there = early_starts.in_storage(options.tree.read(storage.path), options.early)
    return Plan([_target(options), storage], reload, reload_text, [] if is_there else [new])


def _storage_target(options: Options) -> Target:
    path = options.path(early_starts.STORAGE_CONF)
    early = options.early or EarlyStarts()

    def remove(now: bytes) -> bytes | None:
        toml_text.parse(now, path)
        text = toml_blocks.without_blocks(now.decode())
        toml_text.parse(text.encode(), path)
        return text.encode() if text.strip(toml_text.SPACE) else None

    return Target(
        path,
        lambda before: early_starts.add_to_storage(before, options, early, path),
        remove,
        marked=toml_blocks.marked,
    )


def _target(options: Options) -> Target:
    path = _own(options)
    return Target(
        path,
        lambda _: render(options),
        lambda now: _ours(now, path),
        marked=lambda now: now.startswith(HEADER.encode()),
    )


def render(options: Options) -> bytes:
    """The drop-in: each registry with the peer as its first mirror."""
    entries = [
        {"prefix": name, "location": name, "mirror": [_mirror(name, options)]}
        for name in options.registries
    ]
    return f"{HEADER}\n{tomlkit.dumps({'registry': entries})}".encode()


def _mirror(registry: str, options: Options) -> dict[str, Any]:
    """The peer as a mirror of `registry`; Podman refuses a colon in a path."""
    location = f"{options.address}/{registry.replace(':', '_')}"
    return {"location": location, "insecure": options.plain_http}


def _ours(now: bytes, path: Path) -> bytes | None:
    """The file is ours whole: what was put into it since has to find another place first."""
    if now.startswith(HEADER.encode()):
        return None
    raise ConfigError(f"{path} was written anew by somebody else; take it away by hand")


def _refuse_rivals(options: Options) -> None:
    """Of two entries for one prefix only the last file's counts: ours would hide the other's."""
    main = options.path(MAIN)
    directory = options.path(DROP_INS)
    tree = options.tree
    for path in [main, *(p for p in tree.listed(directory) if p.suffix == ".conf")]:
        raw = tree.read(path) if path.name != OWN else None
        if raw is None:
            continue
        document = toml_text.parse(raw, path)
        if isinstance(document.get("registries"), dict):
            raise ConfigError(
                f"{path} is in the old format ([registries.…]), which allows no mirrors and no "
                "other file beside it; write it as [[registry]] tables first"
            )
        for entry in toml_text.tables(document, "registry"):
            _refuse_entry(entry, path, options)


def _refuse_entry(entry: dict[str, Any], path: Path, options: Options) -> None:
    prefix = str(entry.get("prefix") or entry.get("location") or "")
    if prefix in options.registries:
        raise ConfigError(
            f"{path} has an entry for {prefix}, which ours would replace; add to that one:\n"
            f"[[registry.mirror]]\n{tomlkit.dumps(_mirror(prefix, options))}"
        )
