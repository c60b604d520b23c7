"""What an installation is about: the mirror, the registries, and where the engine's files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from p2pdist.errors import ConfigError
from p2pdist.oci.reference import canonical_upstream
from p2pdist.runtime.tree import Tree

DEFAULT_MIRROR: Final = "http://127.0.0.1:5300"
REPOSITORY_PREFIX_MAX: Final = 128
"""A name has at most 255 characters with the mirror's address in front of it."""


@dataclass(frozen=True, slots=True)
class Options:
    mirror: str = DEFAULT_MIRROR
    registries: tuple[str, ...] = ("docker.io",)
    """For engines that need an entry for each registry: Podman and CRI-O."""
    tags_from_origin: bool = False
    """containerd: ask the registry itself what a tag stands for."""
    root: Path = Path("/")

    @property
    def address(self) -> str:
        """The mirror as `host:port`."""
        return self.mirror.partition("//")[2]

    @property
    def plain_http(self) -> bool:
        return self.mirror.startswith("http://")

    @property
    def tree(self) -> Tree:
        return Tree(self.root.absolute())

    def path(self, absolute: str) -> Path:
        """An engine's file, below `root`."""
        return self.root.absolute() / absolute.lstrip("/")


def check_options(options: Options) -> Options:
    """Return `options` with canonical values; raise ConfigError for those that no engine takes."""
    parts = urlsplit(options.mirror)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise ConfigError(f"{options.mirror} is no mirror: expected http://HOST:PORT")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(
            f"{options.mirror}: Docker 20.10 takes no path, user or query in a mirror's URL"
        )
    registries = []
    for name in options.registries:
        try:
            registries.append(canonical_upstream(name))
        except ValueError as error:
            raise ConfigError(f"--registry {name}: {error}") from None
    if any(len(name) + len(parts.netloc) > REPOSITORY_PREFIX_MAX for name in registries):
        raise ConfigError("mirror and registry together are too long for a repository's name")
    mirror = f"{parts.scheme}://{parts.netloc}"
    return Options(mirror, tuple(dict.fromkeys(registries)), options.tags_from_origin, options.root)
