"""What people see of an error: the words of docker, ctr, Podman and Skopeo behind a mirror."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.e2e.harness.clients import Podman, Skopeo
from tests.e2e.harness.image import REFERENCE, build_image
from tests.e2e.harness.lab import open_lab
from tests.e2e.harness.p2p import PEER_MIRROR_URL, Daemon
from tests.e2e.harness.processes import LabError
from tests.e2e.harness.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

OPEN: Final = "open.test:5000"
LOCKED: Final = "locked.test:5000"
ELSEWHERE: Final = "elsewhere.test"
APP: Final = REFERENCE.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Site:
    pull: dict[str, Callable[[str], object]]
    registry: Registry
    proxy: Daemon

    def said(self, client: str, reference: str) -> str:
        """Have `client` pull what it cannot; return what it says."""
        with pytest.raises(LabError) as caught:
            self.pull[client](reference)
        return str(caught.value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    layouts = tmp_path_factory.mktemp("layouts")
    image = build_image(layouts / "image", layer_bytes=(200_000,), seed=41)
    with open_lab() as lab:
        hub = lab.registry(lab.host("hub"), layouts / "hub")
        hub.push(image, REFERENCE)
        own = lab.registry(lab.host("own"), layouts / "own", private=True)
        nobody = copy.copy(own)
        nobody.private = False
        cluster = lab.cluster(lab.host("core"), hub, {OPEN: hub, LOCKED: nobody})
        cluster.start_tracker()
        proxy = cluster.start_proxy()
        hosts = {name: lab.host(name) for name in ("docker", "ctr", "podman", "skopeo")}
        for host in hosts.values():
            host.blackhole(hub.host.address)
            host.blackhole(own.host.address)
            cluster.start_peer(host, direct=False)
        registries = {name: name for name in ("docker.io", OPEN, LOCKED, ELSEWHERE)}
        yield Site(
            {
                "docker": lab.dockerd(hosts["docker"], PEER_MIRROR_URL).pull,
                "ctr": lab.containerd(hosts["ctr"], PEER_MIRROR_URL).pull,
                "podman": Podman(hosts["podman"], PEER_MIRROR_URL, lab.work, registries).pull,
                "skopeo": Skopeo(hosts["skopeo"], PEER_MIRROR_URL, lab.work, registries).pull,
            },
            hub,
            proxy,
        )
    shutil.rmtree(layouts)


OTHERS: Final = ("ctr", "podman", "skopeo")
LIBRARY: Final = ("podman", "skopeo")
"""Both print what containers/image makes of an answer."""


@pytest.mark.parametrize("client", LIBRARY)
def test_an_unknown_tag_is_called_so(site: Site, client: str) -> None:
    said = site.said(client, f"{OPEN}/{APP}:nope")

    assert f"manifest unknown: {OPEN} answered 404" in said
    assert "check the name" in said


def test_of_an_unknown_tag_containerd_tells_what_the_registry_itself_says(site: Site) -> None:
    _is_the_registrys_own(site.said("ctr", f"{OPEN}/{APP}:nope"), OPEN)


@pytest.mark.parametrize("client", OTHERS)
def test_an_account_that_does_not_do_is_named(site: Site, client: str) -> None:
    said = site.said(client, f"{LOCKED}/team/app:1")

    assert f"{LOCKED} answered 401" in said
    assert f"check the account of [[upstream]] {LOCKED} at the proxy" in said


@pytest.mark.parametrize("client", LIBRARY)
def test_a_registry_that_is_not_served_is_called_so(site: Site, client: str) -> None:
    said = site.said(client, f"{ELSEWHERE}/team/app:1")

    assert f"name unknown: {ELSEWHERE} is not a registry served here" in said


def test_of_another_registry_containerd_tells_what_that_says(site: Site) -> None:
    """It keeps the first error that is no 404, and would blame the mirror for each failing pull."""
    _is_the_registrys_own(site.said("ctr", f"{ELSEWHERE}/team/app:1"), ELSEWHERE)


@pytest.mark.parametrize("tag", ["nope", "down"])
def test_docker_tells_what_the_hub_says(site: Site, tag: str) -> None:
    """It prints the last endpoint's error alone, whatever its mirrors said."""
    assert "registry-1.docker.io" in site.said("docker", f"docker.io/{APP}:{tag}")


@pytest.fixture(scope="module")
def dead_registry(site: Site) -> Site:
    site.registry.process.kill9()
    return site


@pytest.mark.parametrize("client", OTHERS)
def test_a_registry_that_is_away_is_named(dead_registry: Site, client: str) -> None:
    """The status line has the reason: of a 502 nobody prints anything else."""
    said = dead_registry.said(client, f"{OPEN}/{APP}:other")

    assert "502 Bad Gateway: " in said
    assert f"cannot be reached: connection refused: is {OPEN} up" in said


@pytest.fixture(scope="module")
def dead_proxy(site: Site) -> Site:
    site.proxy.kill9()
    return site


@pytest.mark.parametrize("client", OTHERS)
def test_a_proxy_that_is_away_is_named(dead_proxy: Site, client: str) -> None:
    """Last in this module."""
    said = dead_proxy.said(client, f"{OPEN}/{APP}:third")

    assert "502 Bad Gateway: " in said
    assert "is a proxy running, and does peer.proxies name it?" in said


def _is_the_registrys_own(said: str, registry: str) -> None:
    """Containerd's last line speaks of its own attempt at the registry, not of the mirror."""
    last = said.strip().splitlines()[-1]
    assert f"https://{registry}/v2/" in last
    assert "127.0.0.1:5300" not in last
