"""Checks of a host whose containers are to start before their layers are here."""

from __future__ import annotations

import glob
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from p2pdist.doctor.findings import Finding, failed, passed, warned
from p2pdist.settings import Settings

CONTAINERD: Final = "etc/containerd/config.toml"
DOCKER: Final = "etc/docker/daemon.json"
ROOT: Final = 0
CONFIG_BYTES_MAX: Final = 1 << 20
IMPORTS_MAX: Final = 64
TAKEOVER_LINUX: Final = (6, 9)
"""Since then a worker that takes over has the requests of the one before sent again."""
REACH_S: Final = 2.0
PLUGIN: Final = "docs/streaming.md, Containers, has the lines for containerd's config.toml"


async def check_snapshotter(settings: Settings, root: Path = Path("/")) -> list[Finding]:
    """Kernel, mirror and engines; `root`: where the files of the host are."""
    found = list(_kernel(root))
    found.append(await _mirror(settings.snapshotter.mirror))
    return [*found, *_engines(settings.snapshotter.socket, root)]


# --- kernel -------------------------------------------------------------------------------------


def _kernel(root: Path) -> Iterator[Finding]:
    if (root / "dev/fuse").exists():
        yield passed("fuse", "/dev/fuse is there")
    else:
        yield failed("fuse", "there is no /dev/fuse", "modprobe fuse, and have it loaded at boot")
    known = _text(root / "proc/filesystems").split()
    if "overlay" in known:
        yield passed("overlayfs", "the kernel has it")
    else:
        fix = "modprobe overlay, and have it loaded at boot"
        yield failed("overlayfs", "the kernel does not list it", fix)
    yield _takeover(_text(root / "proc/sys/kernel/osrelease").strip())


def _takeover(release: str) -> Finding:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and (int(numbers[1]), int(numbers[2])) >= TAKEOVER_LINUX:
        return passed("kernel", f"Linux {release}: what reads for containers may be replaced")
    text = f"Linux {release or 'unknown'}: containers break if the process that reads for them ends"
    return warned("kernel", text, "take Linux 6.9 or later; snapshotter.unpack shortens the time")


# --- mirror -------------------------------------------------------------------------------------


async def _mirror(url: str) -> Finding:
    place = urlsplit(url)
    fix = "start the peer of this host, or set snapshotter.mirror to its peer.listen"
    timeout = aiohttp.ClientTimeout(total=REACH_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{place.scheme}://{place.netloc}/v2/") as answer,
        ):
            if answer.status == 200:
                return passed("mirror", f"{url} answers")
            return failed("mirror", f"{url} answers {answer.status}", fix)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        return failed("mirror", f"{url} does not answer: {reason}", fix, remote=True)


# --- engines ------------------------------------------------------------------------------------


def _engines(socket: Path, root: Path) -> Iterator[Finding]:
    yield _listens(socket)
    config = _containerd_config(root)
    name = _plugin_of(config, socket)
    if name is None:
        text = f"containerd has no proxy plugin of type snapshot at {socket}"
        yield warned("containerd", text, PLUGIN)
        return
    users = [user for user, chosen in _choices(config, root) if chosen == name]
    if not users:
        text = f"it knows {name} at {socket}, and nothing has {name} as its snapshotter"
        yield warned("containerd", text, PLUGIN)
    for user in users:
        yield passed("containerd", f"{user} starts containers by {name}")


def _listens(socket: Path) -> Finding:
    try:
        status = os.stat(socket)
    except PermissionError:
        return warned("socket", f"{socket} is for root alone", "run the doctor as root")
    except OSError:
        return warned("socket", f"nothing is at {socket}", "start it: `p2pdist snapshotter`")
    if not stat.S_ISSOCK(status.st_mode):
        return failed("socket", f"{socket} is no socket", "move it away, or set snapshotter.socket")
    if status.st_mode & 0o077 or status.st_uid != ROOT:
        fix = f"restart the snapshotter; who connects to {socket} decides what root mounts"
        return failed("socket", f"others than root may connect to {socket}", fix)
    return passed("socket", f"{socket}, for root alone")


def _containerd_config(root: Path) -> dict[str, Any]:
    """Its file with those that it imports, the later over the earlier, as containerd has it."""
    config = _toml(root / CONTAINERD)
    imports = config.get("imports")
    patterns = [p for p in imports if isinstance(p, str)] if isinstance(imports, list) else []
    paths = [path for p in patterns for path in sorted(glob.glob(str(root / p.lstrip("/"))))]
    for path in paths[:IMPORTS_MAX]:
        config = _merged(config, _toml(Path(path)))
    return config


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        before = found.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        found[key] = _merged(before, value) if both and before is not None else value
    return found


def _plugin_of(config: Mapping[str, Any], socket: Path) -> str | None:
    plugins = config.get("proxy_plugins")
    for name, plugin in (plugins if isinstance(plugins, dict) else {}).items():
        kind, address = _at(plugin, "type"), _at(plugin, "address")
        if kind == "snapshot" and str(address).removeprefix("unix://") == str(socket):
            return str(name)
    return None


def _choices(config: Mapping[str, Any], root: Path) -> Iterator[tuple[str, object]]:
    """Who starts containers here, and by which snapshotter."""
    of_1, of_2 = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"
    yield "Kubernetes", _at(config, "plugins", of_1, "containerd", "snapshotter")
    yield "Kubernetes", _at(config, "plugins", of_2, "snapshotter")
    try:
        docker = json.loads(_text(root / DOCKER).removeprefix("\ufeff") or "{}")
    except (ValueError, RecursionError):
        docker = {}
    yield "Docker", _at(docker, "storage-driver")


def _at(document: object, *keys: str) -> object:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except (ValueError, RecursionError):
        return {}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(CONFIG_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
