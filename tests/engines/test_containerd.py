from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from p2pdist.engines.containerd import Containerd
from p2pdist.errors import ConfigError
from tests.engines.hosts import MIRROR, EngineHost

CONFIG, CERTS = "/etc/containerd/config.toml", "/etc/containerd/certs.d"
DEFAULT = f"{CERTS}/_default/hosts.toml"
SET = b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "%s"\n'
ODD_CONFIGS = [
    b"version = 2\n",
    b"version = 2",
    b"# only a comment\nversion = 2\r\n\r\n[debug]\r\n  level = 'info'\r\n",
    b'version = 2\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    sandbox_image = "a"\n',
    b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = ""\n\n'
    b'  [plugins."io.containerd.grpc.v1.cri".registry.headers]\n    a = ["b"]\n',
    b"version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]  # ours\n[debug]\n",
    b'version = 3\n[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "overlayfs"\n',
    b'version = 2\nroot = """\n[plugins."io.containerd.grpc.v1.cri".registry]\n"""\n',
]
ODD_HOSTS = [
    b'server = "https://docker.io"\n',
    b'server = "https://x.test"\n\n# first\n[host."https://m.test"]\n  capabilities = ["pull"]\n',
    b'[host."https://m.test"]\r\n  ca = ["/a", "/b"]\r\n  [host."https://m.test".header]\r\n'
    b'    x = ["y"]\r\n',
    b'server = "https://x.test"\n  [host]\n  [host."https://m.test"]\n  skip_verify = true',
    b"# nothing but words",
]


@pytest.fixture
def host(tmp_path: Path) -> EngineHost:
    return EngineHost(tmp_path, Containerd())


@pytest.mark.parametrize("content", ODD_CONFIGS)
def test_config_path_is_set_and_every_byte_is_back_after_uninstall(
    host: EngineHost, content: bytes
) -> None:
    host.put(CONFIG, content)
    before = host.everything()

    outcome = host.install()
    config = tomllib.loads((host.read(CONFIG) or b"").decode())
    host.uninstall()

    images = (
        "io.containerd.cri.v1.images" if config["version"] == 3 else "io.containerd.grpc.v1.cri"
    )
    assert config["plugins"][images]["registry"]["config_path"] == CERTS
    assert any("restart containerd once" in message for message in outcome.messages)
    assert host.everything() == before


def test_where_config_path_is_set_only_hosts_are_written(host: EngineHost) -> None:
    host.put(CONFIG, SET % b"/srv/certs.d")
    before = host.everything()

    outcome = host.install()

    assert [str(change.path.relative_to(host.root)) for change in outcome.changes] == [
        "srv/certs.d/_default/hosts.toml"
    ]
    assert not any("restart" in message and "once" in message for message in outcome.messages)
    host.uninstall()
    assert host.everything() == before


def test_a_fresh_host_gets_a_mirror_for_all_registries(host: EngineHost) -> None:
    before = host.everything()
    host.install()

    hosts = tomllib.loads((host.read(DEFAULT) or b"").decode())
    assert hosts == {"host": {MIRROR: {"capabilities": ["pull", "resolve"], "dial_timeout": "1s"}}}
    host.uninstall()
    assert host.everything() == before


def test_tags_may_be_left_to_the_registry(host: EngineHost) -> None:
    host.install(tags_from_origin=True)

    hosts = tomllib.loads((host.read(DEFAULT) or b"").decode())
    assert hosts["host"][MIRROR]["capabilities"] == ["pull"]


@pytest.mark.parametrize("content", ODD_HOSTS)
def test_the_peer_comes_first_in_a_registrys_own_file(host: EngineHost, content: bytes) -> None:
    path = f"{CERTS}/x.test/hosts.toml"
    host.put(path, content)
    before = host.everything()

    host.install()
    hosts = tomllib.loads((host.read(path) or b"").decode())
    once = host.everything()
    host.install()
    assert host.everything() == once
    host.uninstall()

    original = tomllib.loads(content.decode())
    assert next(iter(hosts["host"])) == MIRROR
    assert {k: v for k, v in hosts["host"].items() if k != MIRROR} == original.get("host", {})
    assert hosts.get("server") == original.get("server")
    assert host.everything() == before


def test_an_edited_file_keeps_the_edit(host: EngineHost) -> None:
    path = f"{CERTS}/x.test/hosts.toml"
    host.put(path, ODD_HOSTS[1])
    host.put(CONFIG, ODD_CONFIGS[0])
    host.install()
    host.put(path, (host.read(path) or b"") + b"# mine\n")
    host.put(CONFIG, (host.read(CONFIG) or b"") + b"# mine\n")

    host.uninstall()

    assert host.read(path) == ODD_HOSTS[1] + b"# mine\n"
    left = (host.read(CONFIG) or b"").decode()
    assert "config_path" not in left
    assert left.endswith("# mine\n")


def test_an_operators_own_config_path_is_never_taken_out(host: EngineHost) -> None:
    host.put(CONFIG, SET % CERTS.encode())
    host.install()
    edited = SET % CERTS.encode() + b"# mine\n"
    host.put(CONFIG, edited)

    host.uninstall()

    assert host.read(CONFIG) == edited


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version = 1\n", "version 1"),
        (b"root = '/x'\n", "version 1"),
        (b"version = \n", "broken"),
        (b"\xff", "broken"),
        (
            b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n'
            b'endpoint = ["https://m.test"]\n',
            "mirrors",
        ),
        (
            b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.configs."r.test".auth]\n'
            b'username = "u"\n',
            "configs",
        ),
        (b'version = 2\nplugins = {"io.containerd.grpc.v1.cri" = {registry = {}}}\n', "by hand"),
    ],
)
def test_what_containerd_would_not_start_with_is_refused(
    host: EngineHost, content: bytes, reason: str
) -> None:
    host.put(CONFIG, content)
    before = host.everything()

    with pytest.raises(ConfigError, match=reason):
        host.install()

    assert host.everything() == before


@pytest.mark.parametrize("content", [b"server = ", b'host = {"https://m.test" = {}}\n'])
def test_a_hosts_file_that_cannot_be_added_to_is_refused(host: EngineHost, content: bytes) -> None:
    host.put(f"{CERTS}/x.test/hosts.toml", content)
    before = host.everything()

    with pytest.raises(ConfigError, match=r"hosts\.toml"):
        host.install()

    assert host.everything() == before


def test_a_directory_of_certificates_is_left_alone_and_named(host: EngineHost) -> None:
    host.put(f"{CERTS}/r.test/ca.crt", b"certificate")

    outcome = host.install()

    assert any("r.test has no hosts.toml" in message for message in outcome.messages)
