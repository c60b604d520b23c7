"""Docker, containerd, Podman, Buildah and Skopeo pull one image at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.harness.clients import Buildah, Client, Podman, Pulled, Skopeo
from tests.e2e.harness.image import REFERENCE, Image
from tests.e2e.harness.lab import Lab, open_lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import PEER_MIRROR_URL, Daemon
from tests.e2e.harness.processes import wait_until
from tests.e2e.harness.registry import Registry
from tests.figures import note

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

# The link of the proxy is what a swarm relieves, so it is the bottleneck here. 1 Gbit/s is none
# where two cores do everything: the seed is idle then, helps, and sends up to 1.6 images.
LINK_MBIT_PER_S: Final = 200
FULL_REFERENCE: Final = f"docker.io/{REFERENCE}"
UPSTREAM_RATIO_MAX: Final = 1.05
PROXY_EGRESS_RATIO_MAX: Final = 1.2


class _Docker:
    """dockerd in the form of the other clients."""

    name = "docker"

    def __init__(self, lab: Lab, host: Host) -> None:
        self._dockerd = lab.dockerd(host, PEER_MIRROR_URL)

    def pull(self, reference: str) -> Pulled:
        self._dockerd.pull(reference)
        return Pulled(self._dockerd.repo_digest(reference), self._dockerd.image_id(reference))


MAKE: Final[dict[str, Callable[[Lab, Host], Client]]] = {
    "docker": _Docker,
    "containerd": lambda lab, host: lab.containerd(host, PEER_MIRROR_URL),
    "podman": lambda lab, host: Podman(host, PEER_MIRROR_URL, lab.work),
    "buildah": lambda lab, host: Buildah(host, PEER_MIRROR_URL, lab.work),
    "skopeo": lambda lab, host: Skopeo(host, PEER_MIRROR_URL, lab.work),
}


@dataclass(frozen=True, slots=True)
class Release:
    """All five have pulled; what each holds, and the counters after that."""

    registry: Registry
    proxy: Daemon
    peers: dict[str, Daemon]
    pulled: dict[str, Pulled]
    upstream_bytes: int


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab for all tests here: they look at the same five pulls."""
    with open_lab() as opened:
        yield opened


@pytest.fixture(scope="module")
def release(lab: Lab, image: Image, storage: Path) -> Release:
    registry = lab.registry(lab.host("registry"), storage)
    cluster = lab.cluster(lab.host("core", mbit_per_s=LINK_MBIT_PER_S), registry)
    cluster.start_tracker()
    proxy = cluster.start_proxy()
    hosts = {name: lab.host(name, mbit_per_s=LINK_MBIT_PER_S) for name in MAKE}
    peers = {name: cluster.start_peer(host) for name, host in hosts.items()}
    clients = [make(lab, hosts[name]) for name, make in MAKE.items()]

    with ThreadPoolExecutor(max_workers=len(clients)) as together:
        pulled = list(together.map(lambda client: client.pull(FULL_REFERENCE), clients))

    wait_until(lambda: registry.payload_bytes() >= image.payload_bytes, "image in the registry log")
    upstream_bytes = registry.payload_bytes()
    egress_bytes = proxy.status().sent["peer"]
    note("mirror.five_clients_upstream_ratio", upstream_bytes / image.payload_bytes)
    note("mirror.five_clients_proxy_egress_ratio", egress_bytes / image.payload_bytes)
    by_name = dict(zip(MAKE, pulled, strict=True))
    return Release(registry, proxy, peers, by_name, upstream_bytes)


def test_each_holds_the_original_image(release: Release, image: Image) -> None:
    assert {name: got.config for name, got in release.pulled.items()} == dict.fromkeys(
        MAKE, image.config.digest
    )


def test_each_holds_the_original_manifest(release: Release, image: Image) -> None:
    originals = {image.manifest.digest, image.index.digest}

    assert {name for name, got in release.pulled.items() if got.manifest in originals} == set(MAKE)


def test_the_registry_serves_the_image_once(release: Release, image: Image) -> None:
    assert release.upstream_bytes <= UPSTREAM_RATIO_MAX * image.payload_bytes


def test_the_proxy_sends_little_more_than_one_image(release: Release, image: Image) -> None:
    sent_bytes = release.proxy.status().sent["peer"]

    assert 0 < sent_bytes <= PROXY_EGRESS_RATIO_MAX * image.payload_bytes


def test_only_the_proxy_asked_the_registry(release: Release) -> None:
    clients = {answer.client for answer in release.registry.served() if "/v2/" in answer.path}

    assert clients == {release.proxy.host.address}
