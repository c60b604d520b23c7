"""P2P is dead: every client still pulls, from the registry itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.e2e.harness.clients import Buildah, Client, Podman, Pulled, Skopeo
from tests.e2e.harness.image import REFERENCE, Image, build_image
from tests.e2e.harness.lab import Lab, open_lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import PEER_MIRROR_URL, Cluster
from tests.e2e.harness.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

LAYER_BYTES: Final = (3_000_000, 700_000)
FULL_REFERENCE: Final = f"docker.io/{REFERENCE}"


class _Docker:
    """dockerd, whose next endpoint stands in for Docker Hub."""

    name = "docker"

    def __init__(self, lab: Lab, host: Host, registry: Registry) -> None:
        self._dockerd = lab.dockerd(host, PEER_MIRROR_URL, f"http://{registry.endpoint}")

    def pull(self, reference: str) -> Pulled:
        self._dockerd.pull(reference)
        return Pulled(self._dockerd.repo_digest(reference), self._dockerd.image_id(reference))


def _locations(registry: Registry) -> dict[str, str]:
    return {"docker.io": registry.endpoint}


MAKE: Final[dict[str, Callable[[Lab, Host, Registry], Client]]] = {
    "docker": _Docker,
    "containerd": lambda lab, host, registry: lab.containerd(
        host, PEER_MIRROR_URL, server=f"http://{registry.endpoint}"
    ),
    "podman": lambda lab, host, reg: Podman(host, PEER_MIRROR_URL, lab.work, _locations(reg)),
    "buildah": lambda lab, host, reg: Buildah(host, PEER_MIRROR_URL, lab.work, _locations(reg)),
    "skopeo": lambda lab, host, reg: Skopeo(host, PEER_MIRROR_URL, lab.work, _locations(reg)),
}


@dataclass(frozen=True, slots=True)
class Site:
    lab: Lab
    image: Image
    registry: Registry
    cluster: Cluster
    """Without a single daemon."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("fallback")
    image = build_image(directory / "layout", layer_bytes=LAYER_BYTES, seed=41)
    with open_lab() as lab:
        registry = lab.registry(lab.host("registry"), directory / "storage")
        registry.push(image, REFERENCE)
        yield Site(lab, image, registry, lab.cluster(lab.host("core"), registry))


@pytest.mark.parametrize("client", MAKE)
def test_a_dead_peer_leaves_the_direct_way(site: Site, client: str) -> None:
    """Nothing listens on the mirror's port."""
    host = site.lab.host(f"dead-{client}")

    pulled = MAKE[client](site.lab, host, site.registry).pull(FULL_REFERENCE)

    assert pulled.config == site.image.config.digest


@pytest.mark.parametrize("client", MAKE)
def test_a_peer_without_any_source_leaves_the_direct_way(site: Site, client: str) -> None:
    """The peer runs, and everything else of p2pdist is dead: it may not read registries itself."""
    host = site.lab.host(f"lone-{client}")
    site.cluster.start_peer(host, direct=False)

    pulled = MAKE[client](site.lab, host, site.registry).pull(FULL_REFERENCE)

    assert pulled.config == site.image.config.digest
