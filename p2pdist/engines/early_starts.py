"""Early starts: what an engine's files say of the snapshotter, in place of its own storage."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from p2pdist.engines import toml_blocks, toml_text
from p2pdist.engines.options import EarlyStarts, Options
from p2pdist.errors import ConfigError

NAME: Final = "p2pdist"
"""The snapshotter's, in the files of containerd and Docker."""
OVERLAYFS: Final = "overlayfs"
"""containerd's own; any other is somebody's choice."""
Version = tuple[int, int]
CONTAINERD_MIN: Final = (1, 6)
CONTAINERD_3: Final = (2, 0)
"""Since then it asks only a snapshotter that a file of version 3 names."""
DOCKER_MIN: Final = (24, 0)
ASK_S: Final = 10.0
STORAGE_CONF: Final = "/etc/containers/storage.conf"
USUAL_STORAGE_CONF: Final = "/usr/share/containers/storage.conf"
"""What Podman reads where the other one is not there, and only there."""
STORAGE: Final = {
    "driver": "overlay",
    "runroot": "/run/containers/storage",
    "graphroot": "/var/lib/containers/storage",
}
"""Podman's own, which it does not know any more where a file is without them."""

# Where the CRI plugin has its snapshotter, by the version of the configuration file.
CRI_TABLES: Final = {
    2: ("plugins", "io.containerd.grpc.v1.cri", "containerd"),
    3: ("plugins", "io.containerd.cri.v1.images"),
}
PLUGIN_TABLE: Final = ("proxy_plugins", NAME)

RESTART_CONTAINERD: Final = (
    "early starts are new in config.toml: once `p2pdist doctor --role snapshotter` sees the "
    "snapshotter listen, restart containerd once, when it suits you (containers go on running); "
    "until then nothing changes"
)
RESTART_DOCKER: Final = (
    "early starts are new in daemon.json: restart dockerd once, when it suits you. Containers and "
    "images of its former storage are out of sight from then until this is taken back; images are "
    "fetched whole unless snapshotter.whole_namespaces is empty (docs/streaming.md)"
)
PODMAN_READS: Final = (
    "early starts: root's engines look for layers in the snapshotter's image store from now on; "
    "those of other users cannot read it, and need a storage.conf of their own"
)
RESTART_CRIO: Final = "early starts are new in storage.conf: restart crio once, when it suits you"
UNDONE: Final = {
    "containerd": "early starts are out of config.toml: restart containerd once, and stop the "
    "snapshotter after it",
    "docker": "early starts are out of daemon.json: restart dockerd once. Containers that it made "
    "by them are out of its sight then",
    "podman": "early starts are out of storage.conf: pull images anew whose layers stood in the "
    "snapshotter's store; their containers do not start without them",
    "crio": "early starts are out of storage.conf: drain this host and restart crio; images whose "
    "layers stood in the snapshotter's store are pulled anew",
}


def told_version(program: str, options: Options) -> Version | None:
    """What `program` of this host says that it is; None where that cannot be known."""
    if options.tree.top != Path("/") or (found := shutil.which(program)) is None:
        return None
    try:
        told = subprocess.run(  # noqa: S603 - the engine of this host
            [found, "--version"], capture_output=True, timeout=ASK_S, text=True, check=False
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    match = re.search(r"(?<![\w/.])v?(\d{1,4})\.(\d{1,4})\.", told)
    return (int(match[1]), int(match[2])) if match else None


# --- containerd ---------------------------------------------------------------------------------


def check_containerd(config: dict[str, Any], version: Version | None, path: Path) -> int:
    """Return the version of the file to write; raise ConfigError where it would not be followed."""
    if version is not None and version < CONTAINERD_MIN:
        raise ConfigError(
            f"containerd {version[0]}.{version[1]} is too old for early starts: 1.6 or later has "
            "all that they need"
        )
    form = config.get("version")
    if not config:
        if version is None:
            raise ConfigError(
                f"{path} is not there or empty, and which containerd will read it cannot be "
                "known here: put `containerd config default` of that one there first"
            )
        return 3 if version >= CONTAINERD_3 else 2
    if form == 2 and version is not None and version >= CONTAINERD_3:
        raise ConfigError(
            f"{path} has version 2, with which containerd {version[0]}.{version[1]} does not ask "
            "our snapshotter; `containerd config migrate` makes a version 3"
        )
    return int(form) if form in CRI_TABLES else 0


def add_to_containerd(text: str, early: EarlyStarts, path: Path) -> str:
    """Return config.toml with the plugin, chosen for Kubernetes. Raise ConfigError to refuse."""
    config = toml_text.parse(text.encode(), path)
    table = CRI_TABLES[config["version"]]
    held = toml_text.get(config, [*table, "snapshotter"])
    if held not in (None, "", OVERLAYFS, NAME):
        raise ConfigError(
            f"{path} has the snapshotter {held!r}: early starts would replace it, and images that "
            "need it would not start; take it out first if that is meant"
        )
    plugin = toml_text.get(config, PLUGIN_TABLE)
    if plugin is None:
        text = toml_blocks.with_values(text, PLUGIN_TABLE, _plugin(early), path)
    elif not _is_ours(plugin, early):
        raise ConfigError(
            f"{path} has a plugin {NAME} already, which is no snapshotter at {early.socket}; take "
            "it out, or name its socket with --snapshotter-socket"
        )
    return toml_blocks.with_values(text, table, _cri(config["version"]), path)


def in_containerd(config: dict[str, Any], early: EarlyStarts) -> bool:
    """Whether containerd would start containers by the snapshotter, once it has read this."""
    version = config.get("version")
    if not isinstance(version, int) or version not in CRI_TABLES:
        return False
    chosen = toml_text.get(config, [*CRI_TABLES[version], "snapshotter"])
    return chosen == NAME and knows_plugin(config, early)


def knows_plugin(config: dict[str, Any], early: EarlyStarts) -> bool:
    return _is_ours(toml_text.get(config, PLUGIN_TABLE), early)


def _plugin(early: EarlyStarts) -> dict[str, Any]:
    # containerd 2 asks with names of image and layer only where the plugin says that it wants them.
    exports = {"root": early.directory, "enable_remote_snapshot_annotations": "true"}
    return {"type": "snapshot", "address": early.socket, "exports": exports}


def _cri(version: int) -> dict[str, Any]:
    chosen: dict[str, Any] = {"snapshotter": NAME, "disable_snapshot_annotations": False}
    # The transfer service, which pulls for it since 2.1, has a list of snapshotters of its own.
    return chosen if version == 2 else chosen | {"use_local_image_pull": True}


def _is_ours(plugin: Any, early: EarlyStarts) -> bool:
    if not isinstance(plugin, dict) or plugin.get("type") != "snapshot":
        return False
    return str(plugin.get("address")).removeprefix("unix://") == early.socket


# --- Podman, CRI-O ------------------------------------------------------------------------------


def add_to_storage(before: bytes | None, options: Options, early: EarlyStarts, path: Path) -> bytes:
    """Return storage.conf with our image store. Raise ConfigError where engines would not run."""
    store = f"{early.directory}/images"
    if not options.tree.is_dir(options.path(store)):
        raise ConfigError(
            f"{store} is not there, and Podman does not run with a store that is not: set "
            "snapshotter.image_store = true and start `p2pdist snapshotter` first"
        )
    raw = before if before is not None else options.tree.read(options.path(USUAL_STORAGE_CONF))
    config = toml_text.parse(raw or b"", path)
    text = (raw or b"").decode()
    if not config:  # at most comments
        text = toml_blocks.with_values(text, ["storage"], STORAGE, path)
    _refuse_driver(config or {"storage": STORAGE}, path)
    held = toml_text.get(config, ["storage", "options", "additionalimagestores"])
    stores = [] if held is None else held
    if not isinstance(stores, list) or not all(isinstance(name, str) for name in stores):
        raise ConfigError(f"{path}: additionalimagestores is no list of directories")
    if store in stores:
        return text.encode()
    values = {"additionalimagestores": [*stores, store]}
    return toml_blocks.with_values(text, ["storage", "options"], values, path).encode()


def in_storage(raw: bytes | None, early: EarlyStarts) -> bool:
    """Whether storage.conf names our image store."""
    try:
        config = toml_text.parse(raw or b"", Path(STORAGE_CONF))
    except ConfigError:
        return False
    held = toml_text.get(config, ["storage", "options", "additionalimagestores"])
    return isinstance(held, list) and f"{early.directory}/images" in held


def _refuse_driver(config: dict[str, Any], path: Path) -> None:
    driver = toml_text.get(config, ["storage", "driver"])
    if driver not in ("overlay", "overlay2"):
        raise ConfigError(
            f"{path} has the storage driver {driver!r}; the snapshotter's store is one of overlay"
        )
