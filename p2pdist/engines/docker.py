"""Docker: `registry-mirrors` in daemon.json, taken up by a reload."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from p2pdist.engines import early_starts, json_text, toml_text
from p2pdist.engines.early_starts import Version, told_version
from p2pdist.engines.options import EarlyStarts, Options
from p2pdist.engines.processes import ask_to_reload, command_line, running_pid
from p2pdist.engines.targets import Plan, Target
from p2pdist.errors import ConfigError
from p2pdist.process.tree import Tree, absolute

KEY: Final = "registry-mirrors"
DRIVER: Final = "storage-driver"
CONTAINERD_CONFIG: Final = "/etc/containerd/config.toml"
"""Of the containerd that Docker uses; with one of its own it has no snapshotter of ours."""
BOM: Final = "\ufeff"
# A reload takes milliseconds; a daemon that cannot be asked gets this long.
FORGET_S: Final = 3.0
FORGET_POLL_S: Final = 0.05
PID_FILES: Final = ("/var/run/docker.pid", "/run/docker.pid")


class Docker:
    name = "docker"

    def __init__(
        self,
        config_file: Path | None = None,
        pid_file: Path | None = None,
        version_of: Callable[[str, Options], Version | None] = told_version,
    ) -> None:
        """Other places than Docker's own, where its daemon was given some."""
        self._config_file = config_file
        self._pid_file = pid_file
        self._version_of = version_of

    def plan(self, options: Options) -> Plan:
        path = self._path(options)
        pid = self._pid(options)
        if pid is not None:
            refuse_flags(command_line(pid))
        target = self._target(options, pid)
        notes = [
            "Docker asks its mirror for Docker Hub's images only; others go through the peer "
            f"as {options.address}/REGISTRY/NAME"
        ]
        with contextlib.suppress(ConfigError):  # broken since: whoever edits it says so
            if options.early is not None and not has_early(options.tree.read(path), path):
                notes.append(early_starts.RESTART_DOCKER)
        who = f"dockerd (pid {pid})" if pid is not None else "dockerd, when it starts,"
        return Plan(
            [target],
            lambda: ask_to_reload(pid, "dockerd"),
            f"{who} would read {path} (SIGHUP, no restart)",
            notes,
        )

    def shown(self, options: Options) -> Sequence[Target]:
        """daemon.json has no place for a mark: the mirror's URL, or our storage, has to do."""
        path = self._path(options)
        target = self._target(replace(options, early=EarlyStarts()), self._pid(options))
        return [
            replace(
                target,
                marked=lambda now: names_mirror(now, options.mirror, path) or has_early(now, path),
            )
        ]

    def _target(self, options: Options, pid: int | None) -> Target:
        path = self._path(options)

        def added(before: bytes | None) -> bytes:
            after = add(before, options, path)
            if options.early is None or has_early(before, path):
                return after
            self._check_early(_read(after, path)[1], options, options.early, pid, path)
            return add_early(after, path)

        def removed(now: bytes) -> bytes | None:
            early = options.early is not None
            return remove(remove_early(now, path) if early else now, options.mirror, path)

        return Target(
            path,
            added,
            removed,
            let_go=lambda now, after: let_go(now, after) if pid is not None else None,
            wait_let_go=lambda: wait_forgotten(options.mirror, _socket(options, pid)),
        )

    def _check_early(
        self,
        config: dict[str, Any],
        options: Options,
        early: EarlyStarts,
        pid: int | None,
        path: Path,
    ) -> None:
        """Raise ConfigError where Docker would not start, or not see what it has."""
        version = self._version_of("dockerd", options)
        if version is not None and version < early_starts.DOCKER_MIN:
            raise ConfigError(
                f"Docker {version[0]}.{version[1]} is too old for early starts: 24 or later can "
                "keep its images in containerd"
            )
        if not keeps_images_in_containerd(config):
            raise ConfigError(
                f"{path} does not have features.containerd-snapshotter: what Docker keeps in its "
                "own storage would be out of sight with early starts. Move to containerd's first: "
                '{"features": {"containerd-snapshotter": true}}'
            )
        if (held := config.get(DRIVER)) is not None:
            raise ConfigError(
                f"{path} has the {DRIVER} {held!r}, which early starts would replace; take it out "
                "first if that is meant"
            )
        if any(word.split("=")[0] in ("--storage-driver", "-s") for word in command_line(pid or 0)):
            raise ConfigError(
                "dockerd was started with --storage-driver, and refuses the setting in daemon.json "
                "beside it; take the flag out of its service"
            )
        containerd = options.path(CONTAINERD_CONFIG)
        known = toml_text.parse(options.tree.read(containerd) or b"", containerd)
        if not early_starts.knows_plugin(known, early):
            raise ConfigError(
                f"{containerd} does not name the snapshotter at {early.socket}, and Docker would "
                "not start: `p2pdist runtime install --engine containerd --early-starts` does that"
            )

    def writes(self, path: Path, options: Options) -> bool:
        return path == self._path(options)

    def _path(self, options: Options) -> Path:
        given = self._config_file
        return absolute(given) if given else options.path("/etc/docker/daemon.json")

    def _pid(self, options: Options) -> int | None:
        if self._pid_file is not None:  # chosen by the caller, wherever it lies
            return running_pid(Tree(Path("/")), [absolute(self._pid_file)], "dockerd")
        return running_pid(options.tree, [options.path(p) for p in PID_FILES], "dockerd")


def add(before: bytes | None, options: Options, path: Path) -> bytes:
    """Return daemon.json with the mirror first; raise ConfigError where that would break Docker."""
    if before is None or not before.strip():
        return (json.dumps({KEY: [options.mirror]}, indent=4) + "\n").encode()
    text, config = _read(before, path)
    held = config.get(KEY, [])
    if not isinstance(held, list) or not all(isinstance(url, str) for url in held):
        raise ConfigError(f"{path}: {KEY} is not a list of URLs; Docker would not start with it")
    _refuse_ignored(config, options)
    if [url.rstrip("/") for url in held[:1]] == [options.mirror]:
        return before
    bom = BOM if text.startswith(BOM) else ""
    edited = json_text.put_first(
        json_text.take_out(text.removeprefix(BOM), KEY, options.mirror), KEY, options.mirror
    )
    wanted = {**config, KEY: [options.mirror, *(url for url in held if url != options.mirror)]}
    assert json.loads(edited) == wanted, "the edit changed something else"
    return (bom + edited).encode()


def remove(now: bytes, mirror: str, path: Path) -> bytes | None:
    """Return daemon.json without the mirror; None when nothing is left in it."""
    text, _ = _read(now, path)
    bom = BOM if text.startswith(BOM) else ""
    edited = json_text.take_out(text.removeprefix(BOM), KEY, mirror)
    return (bom + edited).encode() if json_text.members(edited) else None


def add_early(before: bytes, path: Path) -> bytes:
    """Return daemon.json with our snapshotter as its storage."""
    text, config = _read(before, path)
    bom = BOM if text.startswith(BOM) else ""
    edited = json_text.put(text.removeprefix(BOM), DRIVER, early_starts.NAME)
    assert json.loads(edited) == {**config, DRIVER: early_starts.NAME}, "it changed something else"
    return (bom + edited).encode()


def remove_early(now: bytes, path: Path) -> bytes:
    """Return daemon.json without our snapshotter."""
    if not has_early(now, path):
        return now
    text, _ = _read(now, path)
    bom = BOM if text.startswith(BOM) else ""
    return (bom + json_text.drop(text.removeprefix(BOM), DRIVER)).encode()


def has_early(raw: bytes | None, path: Path) -> bool:
    """Whether daemon.json has our snapshotter as its storage."""
    config = _read(raw, path)[1] if raw is not None and raw.strip() else {}
    return config.get(DRIVER) == early_starts.NAME


def keeps_images_in_containerd(config: dict[str, Any]) -> bool:
    features = config.get("features")
    return isinstance(features, dict) and features.get("containerd-snapshotter") is True


def names_mirror(now: bytes, mirror: str, path: Path) -> bool:
    """Whether daemon.json lists `mirror`, as it is written by `add`."""
    held = _read(now, path)[1].get(KEY) if now.strip() else None
    return isinstance(held, list) and mirror in held


def let_go(now: bytes, after: bytes | None) -> bytes | None:
    """Docker 20.10 keeps its mirrors when it reloads a file that does not name any: for a moment
    the file has to say that there are none. None: what comes after says so itself."""
    text = (after or b"{}").decode("utf-8-sig")
    if any(member.key == KEY for member in json_text.members(text)):
        return None
    return json_text.empty(now.decode("utf-8-sig"), KEY).encode()


def wait_forgotten(mirror: str, socket_path: Path) -> None:
    """Return once dockerd does not name `mirror` any more, or `FORGET_S` is over."""
    until_s = time.monotonic() + FORGET_S
    while time.monotonic() < until_s:
        mirrors = _mirrors_in_force(socket_path)
        if mirrors is not None and mirror not in mirrors:
            return
        time.sleep(FORGET_POLL_S)


def _mirrors_in_force(socket_path: Path) -> list[str] | None:
    """What `docker info` says; None where it cannot be asked."""
    connection = http.client.HTTPConnection("docker", timeout=FORGET_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(FORGET_S)
        connection.sock.connect(str(socket_path))
        connection.request("GET", "/info")
        info = json.loads(connection.getresponse().read())
        return [str(url).rstrip("/") for url in info["RegistryConfig"]["Mirrors"] or []]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def _socket(options: Options, pid: int | None) -> Path:
    """Where dockerd listens: as its command line says, else Docker's own place."""
    argv = command_line(pid) if pid is not None else []
    for flag, value in itertools.pairwise([*argv, ""]):
        address = flag.partition("=")[2] if flag.startswith(("-H=", "--host=")) else value
        if flag.split("=")[0] in ("-H", "--host") and address.startswith("unix://"):
            return Path(address.removeprefix("unix://"))
    return options.path("/var/run/docker.sock")


def refuse_flags(argv: list[str]) -> None:
    """Raise ConfigError where the daemon has the setting as a flag: twice is an error."""
    if any(word.split("=")[0] == "--registry-mirror" for word in argv):
        raise ConfigError(
            "dockerd was started with --registry-mirror, and refuses the setting in daemon.json "
            "beside it; take the flag out of its service, or put the peer's URL there"
        )


def _read(raw: bytes, path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = raw.decode()
        json_text.members(text.removeprefix(BOM))
        config = json.loads(text.removeprefix(BOM))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is broken, mend it first: {error}") from None
    assert isinstance(config, dict)
    return text, config


def _refuse_ignored(config: dict[str, Any], options: Options) -> None:
    """With the containerd store, a hosts.toml that names several hosts wins over the mirrors."""
    if not keeps_images_in_containerd(config):
        return
    hosts_file = options.path("/etc/docker/certs.d/docker.io/hosts.toml")
    try:
        raw = options.tree.read(hosts_file) or b""
        hosts = tomllib.loads(raw.decode()).get("host", {})
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(hosts, dict) and len(hosts) > 1:
        raise ConfigError(
            f"{hosts_file} names {len(hosts)} hosts, so Docker's containerd store ignores {KEY}; "
            f'add [host."{options.mirror}"] at its top instead'
        )
