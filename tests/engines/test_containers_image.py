from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from p2pdist.engines.containers_image import Crio, Podman
from p2pdist.errors import ConfigError
from tests.engines.hosts import EngineHost

DROP_IN = "/etc/containers/registries.conf.d/50-p2pdist.conf"
MAIN = "/etc/containers/registries.conf"


@pytest.fixture
def host(tmp_path: Path) -> EngineHost:
    return EngineHost(tmp_path, Podman())


def test_each_registry_has_the_peer_as_its_mirror(host: EngineHost) -> None:
    host.install(registries=("docker.io", "r.test:5000"))

    assert tomllib.loads((host.read(DROP_IN) or b"").decode()) == {
        "registry": [
            {
                "prefix": name,
                "location": name,
                "mirror": [{"location": f"127.0.0.1:5300/{path}", "insecure": True}],
            }
            for name, path in (("docker.io", "docker.io"), ("r.test:5000", "r.test_5000"))
        ]
    }


def test_every_byte_is_back_after_uninstall(host: EngineHost) -> None:
    host.put(MAIN, b'# words\r\nunqualified-search-registries = ["docker.io"]\r\n')
    host.put("/etc/containers/registries.conf.d/00-short.conf", b'[aliases]\n"a" = "docker.io/a"\n')
    before = host.everything()

    host.install()
    host.uninstall()

    assert host.everything() == before


def test_other_registries_later_replace_the_entries(host: EngineHost) -> None:
    before = host.everything()
    host.install()
    host.install(registries=("ghcr.io",))

    document = tomllib.loads((host.read(DROP_IN) or b"").decode())
    assert [entry["prefix"] for entry in document["registry"]] == ["ghcr.io"]
    host.uninstall()
    assert host.everything() == before


def test_podman_and_crio_share_the_file(host: EngineHost) -> None:
    other = EngineHost(host.root, Crio())
    before = host.everything()
    host.install()
    other.install()

    outcome = host.uninstall()
    assert host.read(DROP_IN) is not None
    assert any("crio uses it too" in message for message in outcome.messages)
    other.uninstall()

    assert host.everything() == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[[registry]]\nprefix = "docker.io"\nblocked = true\n', "entry for docker.io"),
        (b'[[registry]]\nlocation = "docker.io"\n', "entry for docker.io"),
        (b"[registries.search]\nregistries = ['docker.io']\n", "old format"),
        (b"[[registry]\n", "broken"),
    ],
)
@pytest.mark.parametrize("path", [MAIN, "/etc/containers/registries.conf.d/99-own.conf"])
def test_what_ours_would_hide_is_refused(
    host: EngineHost, path: str, content: bytes, reason: str
) -> None:
    host.put(path, content)
    before = host.everything()

    with pytest.raises(ConfigError, match=reason):
        host.install()

    assert host.everything() == before


def test_a_file_of_somebody_else_under_our_name_is_left_alone(host: EngineHost) -> None:
    host.install()
    host.put(DROP_IN, b"# mine now\n")

    with pytest.raises(ConfigError, match="somebody else"):
        host.uninstall()

    assert host.read(DROP_IN) == b"# mine now\n"
