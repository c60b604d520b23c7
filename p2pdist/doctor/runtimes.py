"""Checks of the container engines of this host: do they ask the peer?"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from p2pdist.doctor.findings import Finding, passed, warned
from p2pdist.settings import Settings

DAEMON_JSON: Final = Path("/etc/docker/daemon.json")
CERTS_D: Final = Path("/etc/containerd/certs.d")
REGISTRIES_D: Final = Path("/etc/containers/registries.conf.d")
REGISTRIES_CONF: Final = Path("/etc/containers/registries.conf")
INSTALL: Final = "p2pdist runtime install --engine {}"


def check_runtimes(settings: Settings, root: Path = Path("/")) -> Iterator[Finding]:
    """One line for each engine that is installed here."""
    mirror = str(settings.peer.listen)
    looks: dict[str, tuple[str, Callable[[Path, str], bool]]] = {
        "docker": ("dockerd", _docker),
        "containerd": ("containerd", _containerd),
        "podman": ("podman", _containers_image),
        "crio": ("crio", _containers_image),
    }
    for engine, (program, look) in looks.items():
        if shutil.which(program) is None:
            continue
        if look(root, mirror):
            yield passed(engine, f"asks the peer at {mirror} first")
        else:
            yield warned(engine, f"does not ask the peer at {mirror}", INSTALL.format(engine))


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _docker(root: Path, mirror: str) -> bool:
    try:
        config = json.loads(_below(root, DAEMON_JSON).read_text("utf-8-sig"))
        mirrors = config.get("registry-mirrors", [])
        return any(str(url).rstrip("/") == f"http://{mirror}" for url in mirrors)
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        return False


def _containerd(root: Path, mirror: str) -> bool:
    hosts = _read(_below(root, CERTS_D) / "_default" / "hosts.toml").get("host", {})
    return isinstance(hosts, dict) and f"http://{mirror}" in hosts


def _containers_image(root: Path, mirror: str) -> bool:
    directory = _below(root, REGISTRIES_D)
    files = [_below(root, REGISTRIES_CONF), *sorted(directory.glob("*.conf"))]
    return any(
        str(held.get("location", "")).startswith(f"{mirror}/")
        for file in files
        for entry in _tables(_read(file), "registry")
        for held in _tables(entry, "mirror")
    )


def _tables(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    held = document.get(key)
    return [table for table in held if isinstance(table, dict)] if isinstance(held, list) else []


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
