"""What an installation is about: the mirror, the registries, and where the engine's files lie."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.oci.reference import canonical_upstream
from p2pdist.process.tree import Tree, absolute

DEFAULT_MIRROR: Final = "http://127.0.0.1:5300"
_MIRROR: Final = re.compile(r"(https?)://([^/?#@]+):([0-9]{1,5})/?", re.IGNORECASE)
REPOSITORY_PREFIX_MAX: Final = 128
"""A name has at most 255 characters with the mirror's address in front of it."""
SOCKET_BYTES_MAX: Final = 107
"""unix(7): `sun_path` without its end."""
DIRECTORY_BYTES_MAX: Final = 1024
"""Far below PATH_MAX, for there is much below it."""


@dataclass(frozen=True, slots=True)
class EarlyStarts:
    """Where the snapshotter of the host is, as its engines see it."""

    socket: str = "/run/p2pdist/snapshotter.sock"
    """The setting snapshotter.socket."""
    directory: str = "/var/lib/p2pdist/snapshotter"
    """`snapshotter` below host.state_dir."""


@dataclass(frozen=True, slots=True)
class Options:
    mirror: str = DEFAULT_MIRROR
    registries: tuple[str, ...] = ("docker.io",)
    """For engines that need an entry for each registry: Podman and CRI-O."""
    tags_from_origin: bool = False
    """containerd: ask the registry itself what a tag stands for."""
    root: Path = Path("/")
    early: EarlyStarts | None = None
    """Containers start before their layers are here; None: as ever."""

    @property
    def address(self) -> str:
        """The mirror as `host:port`."""
        return self.mirror.partition("//")[2]

    @property
    def plain_http(self) -> bool:
        return self.mirror.startswith("http://")

    @property
    def tree(self) -> Tree:
        return Tree(absolute(self.root))

    def path(self, name: str) -> Path:
        """An engine's file by its absolute name, below `root`."""
        return absolute(self.root) / name.lstrip("/")


def check_options(options: Options) -> Options:
    """Return `options` with canonical values; raise ConfigError for those that no engine takes."""
    scheme, host, port = _mirror_parts(options.mirror)
    address = f"{host}:{port}"
    registries = []
    for name in options.registries:
        try:
            registries.append(canonical_upstream(name))
        except ValueError as error:
            raise ConfigError(f"--registry {name}: {error}") from None
    if any(len(name) + len(address) > REPOSITORY_PREFIX_MAX for name in registries):
        raise ConfigError("mirror and registry together are too long for a repository's name")
    mirror = f"{scheme}://{address}"
    if options.early is not None:
        _check_place("--snapshotter-socket", options.early.socket, SOCKET_BYTES_MAX)
        _check_place("--snapshotter-dir", options.early.directory, DIRECTORY_BYTES_MAX)
    return replace(options, mirror=mirror, registries=tuple(dict.fromkeys(registries)))


def _check_place(flag: str, place: str, bytes_max: int) -> None:
    """Raise ConfigError for what no engine would find there, whoever starts it."""
    plain = place.startswith("/") and place.isprintable() and ".." not in Path(place).parts
    if not plain or place != str(Path(place)) or len(place.encode()) > bytes_max:
        raise ConfigError(
            f"{flag} {place!r}: expected an absolute path of at most {bytes_max} bytes"
        )


def _mirror_parts(mirror: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a mirror's URL; raise ConfigError for any other text."""
    match = _MIRROR.fullmatch(mirror)
    if match is None:
        raise ConfigError(
            f"--mirror {mirror!r}: expected http://HOST:PORT, and no more: Docker 20.10 takes no "
            "path, user or query"
        )
    scheme, host, port = match[1].lower(), match[2].lower(), int(match[3])
    try:
        canonical_upstream(f"{host}:{port}")  # the same grammar: a DNS name or an address
        if host.startswith("["):
            ip_address(host.strip("[]"))
    except ValueError as error:
        raise ConfigError(f"--mirror {mirror!r}: {error}") from None
    return scheme, host, port
