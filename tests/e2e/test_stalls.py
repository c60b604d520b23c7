"""A stalled blob never poisons dockerd: its next pull of that layer works."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.harness.dockerd import Dockerd
from tests.e2e.harness.image import REFERENCE, Image
from tests.e2e.harness.lab import Lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import PEER_MIRROR_URL, Daemon
from tests.e2e.harness.processes import LabError, wait_until
from tests.e2e.harness.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

REGISTRY_MBIT_PER_S: Final = 200
# Shorter than the default of a minute: the body ends, dockerd asks again, is told 404, and goes on
# to Docker Hub, which is nowhere here.
PATIENCE_S: Final = 8.0
STALL_ENDS_S: Final = 120.0
LATER_PULL_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Stall:
    """A pull stands still in the middle: the proxy's way to the registry swallows packets."""

    core: Host
    registry: Registry
    docker: Dockerd

    def heal(self) -> None:
        self.core.stop_dropping(self.registry.host.address)


def _stalled(lab: Lab, storage: Path, image: Image) -> tuple[Stall, Daemon]:
    registry_host = lab.host("registry", mbit_per_s=REGISTRY_MBIT_PER_S)
    registry, core, host = lab.registry(registry_host, storage), lab.host("core"), lab.host("a")
    cluster = lab.cluster(core, registry)
    cluster.start_tracker()
    cluster.start_proxy()
    host.blackhole(registry_host.address)
    return Stall(
        core, registry, lab.dockerd(host, PEER_MIRROR_URL, max_download_attempts=1)
    ), cluster.start_peer(host, patience_s=PATIENCE_S)


def _stall_at_a_third(stall: Stall, peer: Daemon, image: Image) -> None:
    wait_until(
        lambda: peer.status().received_bytes >= image.payload_bytes // 3,
        "third of the image at the peer",
        log=peer.process.log,
    )
    stall.core.drop_to(stall.registry.host.address)


def test_rc43_a_killed_client_does_not_hang_the_next_pull(
    lab: Lab, image: Image, storage: Path
) -> None:
    stall, peer = _stalled(lab, storage, image)
    client = stall.docker.start_pull(REFERENCE)
    _stall_at_a_third(stall, peer, image)
    assert client.poll() is None, "the pull was over before it stalled"
    client.kill()
    client.wait()
    stall.heal()

    stall.docker.pull(REFERENCE, timeout_s=LATER_PULL_S)

    assert stall.docker.image_id(REFERENCE) == image.config.digest


def test_rc42_a_stall_ends_and_a_later_pull_works(lab: Lab, image: Image, storage: Path) -> None:
    stall, peer = _stalled(lab, storage, image)
    client = stall.docker.start_pull(REFERENCE)
    _stall_at_a_third(stall, peer, image)
    stalled_at_s = time.monotonic()

    assert client.wait(STALL_ENDS_S) != 0, "there was nowhere to pull the rest from"
    ended_s = time.monotonic() - stalled_at_s
    with pytest.raises(LabError):
        stall.docker.image_id(REFERENCE)
    stall.heal()
    stall.docker.pull(REFERENCE, timeout_s=LATER_PULL_S)

    print(f"dockerd gave up {ended_s:.0f} s after the stall began")
    assert stall.docker.image_id(REFERENCE) == image.config.digest
