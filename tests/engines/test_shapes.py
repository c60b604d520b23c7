"""Files of any shape are edited or refused with a reason, never ended by a traceback."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.doctor.runtimes import _containerd, _containers_image, _docker
from p2pdist.engines.containerd import CONFIG, Containerd
from p2pdist.engines.containers_image import MAIN, Podman
from p2pdist.engines.docker import Docker
from p2pdist.engines.targets import Engine
from p2pdist.errors import ConfigError
from tests.engines.hosts import EngineHost

KEYS = st.sampled_from(
    ["version", "plugins", "io.containerd.grpc.v1.cri", "registry", "config_path", "mirrors",
     "host", "server", "registries", "prefix", "location", "mirror", "registry-mirrors",
     "features", "containerd-snapshotter"]
)  # fmt: skip
LEAVES = st.sampled_from(["", "docker.io", "/x", 2, 3, True, 1.5])
SHAPES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3)
)
DOCUMENTS = st.dictionaries(KEYS, SHAPES, max_size=4)
HOSTS = "/etc/containerd/certs.d/x.test/hosts.toml"
PLACES: dict[str, tuple[Callable[[], Engine], str]] = {
    "docker": (Docker, "/etc/docker/daemon.json"),
    "docker's containerd": (Docker, "/etc/docker/certs.d/docker.io/hosts.toml"),
    "containerd": (Containerd, CONFIG),
    "containerd's hosts": (Containerd, HOSTS),
    "podman": (Podman, MAIN),
}
NOT_TEXT = [b"\xff", b"\x00", b"[" * 100_000, b"a = " + b"[" * 100_000, b"\xef\xbb\xbf"]


def text_of(document: dict[str, Any], path: str) -> bytes:
    if path.endswith(".json"):
        return json.dumps(document).encode()
    return tomlkit.dumps(document).encode()


def try_it(host: EngineHost, path: str, content: bytes) -> None:
    """Installed and taken back, every byte as before; or refused, every byte as before."""
    if path.startswith("/etc/docker/certs.d"):
        host.put("/etc/docker/daemon.json", b'{"features": {"containerd-snapshotter": true}}')
    host.put(path, content)
    before = host.everything()
    with contextlib.suppress(ConfigError):
        host.install()
        host.uninstall()
    assert host.everything() == before
    for look in (_docker, _containerd, _containers_image):
        assert look(host.root, "127.0.0.1:5300") is False


@pytest.mark.parametrize("place", PLACES)
@given(document=DOCUMENTS)
def test_any_document(
    tmp_path_factory: pytest.TempPathFactory, place: str, document: dict[str, Any]
) -> None:
    engine, path = PLACES[place]
    try_it(EngineHost(tmp_path_factory.mktemp("host"), engine()), path, text_of(document, path))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("content", NOT_TEXT)
def test_what_is_no_document(tmp_path: Path, place: str, content: bytes) -> None:
    engine, path = PLACES[place]
    try_it(EngineHost(tmp_path, engine()), path, content)


@pytest.mark.parametrize("place", ["docker", "containerd", "containerd's hosts"])
@pytest.mark.parametrize("content", [*NOT_TEXT, b"[]", b"host = 1\n"])
def test_a_file_that_was_broken_since_is_left_and_named(
    tmp_path: Path, place: str, content: bytes
) -> None:
    engine, path = PLACES[place]
    host = EngineHost(tmp_path, engine())
    host.put(path, b"{}" if path.endswith("json") else b"version = 2\n")
    host.install()
    host.put(path, content)

    with contextlib.suppress(ConfigError):
        host.uninstall()

    assert (host.read(path) or b"").strip() in (content, content.strip())
