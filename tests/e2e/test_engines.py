"""`p2pdist runtime install` on the real engines: they pull through the peer, and it goes away."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.harness.dockerd import Dockerd
from tests.e2e.harness.image import REFERENCE, Image, build_image
from tests.e2e.harness.lab import Lab, open_lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import PEER_MIRROR_URL, REPOSITORY_ROOT, Daemon
from tests.e2e.harness.processes import run, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

FULL_REFERENCE: Final = f"docker.io/{REFERENCE}"
ODD_DAEMON_JSON: Final = (
    b'{\r\n\t"log-level": "warn",\n\t"labels": ["gr\xc3\xb6\xc3\x9fe=1"],"debug":false}'
)
ODD_CONFIG_TOML: Final = b"# kept\r\nversion = 2\n[debug]\n  level = 'info'"
ODD_REGISTRIES: Final = b'# kept\nunqualified-search-registries = ["quay.io"]\n'
_PODMAN: Final = """
mount --bind "$1" /etc/containers
mount -t tmpfs tmpfs /run
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Site:
    lab: Lab
    image: Image
    host: Host
    peer: Daemon
    root: Path
    """Where the engines' files lie."""

    def runtime(self, verb: str, engine: str, *options: str) -> str:
        argv = [sys.executable, "-m", "p2pdist.cli.main", "runtime", verb, "--engine", engine]
        argv += ["--root", str(self.root), *options]
        return run(argv, env={"PYTHONPATH": str(REPOSITORY_ROOT)})

    def put(self, path: str, content: bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A host with a peer; the registry cannot be reached from there."""
    image = build_image(tmp_path / "layout", layer_bytes=(2_000_000, 300_000), seed=91)
    with open_lab() as lab:
        registry = lab.registry(lab.host("registry"), tmp_path / "storage")
        registry.push(image, REFERENCE)
        cluster = lab.cluster(lab.host("core"), registry)
        cluster.start_tracker()
        cluster.start_proxy()
        host = lab.host("a")
        host.blackhole(registry.host.address)
        root = lab.work / "root"
        root.mkdir()
        yield Site(lab, image, host, cluster.start_peer(host), root)


def test_docker_is_reloaded_pulls_through_the_peer_and_forgets_it(site: Site) -> None:
    config = site.put("etc/docker/daemon.json", ODD_DAEMON_JSON)
    docker = Dockerd(site.host, [], site.lab.work, config=config)
    site.lab.own(docker.process)
    docker.start()
    pid = docker.pid()
    options = ["--docker-pidfile", str(docker.pid_file)]

    said = site.runtime("install", "docker", *options)
    wait_until(lambda: docker.mirrors() == [f"{PEER_MIRROR_URL}/"], "mirror in docker info")
    docker.pull(REFERENCE)

    assert "told to reload" in said
    assert docker.image_id(REFERENCE) == site.image.config.digest
    site.runtime("uninstall", "docker", *options)
    wait_until(lambda: docker.mirrors() == [], "no mirror in docker info")
    assert docker.pid() == pid
    assert config.read_bytes() == ODD_DAEMON_JSON


def test_containerd_loads_the_edited_file_and_pulls_through_the_peer(site: Site) -> None:
    config = site.put("etc/containerd/config.toml", ODD_CONFIG_TOML)
    certs = site.root / "etc" / "containerd" / "certs.d"

    site.runtime("install", "containerd")
    dumped = run(["containerd", "--config", str(config), "config", "dump"])
    containerd = site.lab.containerd(site.host, PEER_MIRROR_URL, certs=certs)
    pulled = containerd.pull(FULL_REFERENCE)

    assert 'config_path = "/etc/containerd/certs.d"' in dumped
    assert pulled.config == site.image.config.digest
    site.runtime("uninstall", "containerd")
    assert config.read_bytes() == ODD_CONFIG_TOML
    assert not certs.exists()


@pytest.mark.parametrize("engine", ["podman", "crio"])
def test_podman_and_crio_have_one_file_that_podman_pulls_by(site: Site, engine: str) -> None:
    main = site.put("etc/containers/registries.conf", ODD_REGISTRIES)
    policy = site.put(
        "etc/containers/policy.json", b'{"default":[{"type":"insecureAcceptAnything"}]}'
    )

    site.runtime("install", engine, "--registry", "docker.io", "--registry", "ghcr.io")
    storage = ["--root", str(site.root / "c"), "--runroot", str(site.root / "r")]
    podman = ["podman", *storage, "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    isolated = ["unshare", "--mount", "sh", "-euc", _PODMAN, "sh", str(main.parent)]
    site.host.run(*isolated, *podman, "pull", "--quiet", FULL_REFERENCE)
    shown = json.loads(site.host.run(*isolated, *podman, "image", "inspect", FULL_REFERENCE))

    assert f"sha256:{shown[0]['Id']}" == site.image.config.digest
    site.runtime("uninstall", engine)
    assert sorted(main.parent.rglob("*")) == sorted([main, policy])
    assert main.read_bytes() == ODD_REGISTRIES
