"""The lab alone, without p2pdist: what the other end-to-end tests conclude rests on these facts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.harness.image import GREETING, REFERENCE, REPOSITORY, Image
from tests.e2e.harness.lab import Lab
from tests.e2e.harness.mirror import Mirror
from tests.e2e.harness.processes import wait_until
from tests.e2e.harness.registry import PORT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_docker_pulls_straight_from_the_registry(lab: Lab, image: Image, storage: Path) -> None:
    registry = lab.registry(lab.host("registry"), storage)
    docker = lab.dockerd(lab.host("a"), f"http://{registry.endpoint}")

    started_s = time.monotonic()
    docker.pull(REFERENCE)
    took_s = time.monotonic() - started_s

    assert docker.image_id(REFERENCE) == image.config.digest
    assert docker.run(REFERENCE) == GREETING
    wait_until(lambda: registry.payload_bytes() >= image.payload_bytes, "image in the registry log")
    assert registry.payload_bytes() == image.payload_bytes
    megabytes = image.payload_bytes / 1e6
    print(f"{megabytes:.0f} MB straight from the registry in {took_s:.1f} s ", end="")
    print(f"({docker.storage_driver()})")


def test_the_registry_counts_what_a_cut_answer_sent(lab: Lab, image: Image, storage: Path) -> None:
    registry = lab.registry(lab.host("registry"), storage)
    host = lab.host("a", mbit_per_s=400)

    mirror = Mirror(host, registry.host.address, PORT)
    read = mirror.read_blob(REPOSITORY, image.largest_layer.digest, stop_after=1_000_000)

    wait_until(lambda: registry.payload_bytes() > 0, "cut answer in the registry log")
    assert read.size_bytes <= registry.payload_bytes() < image.largest_layer.size_bytes


def test_a_link_carries_no_more_than_its_rate(lab: Lab, image: Image, storage: Path) -> None:
    registry = lab.registry(lab.host("registry"), storage)
    mirror = Mirror(lab.host("a", mbit_per_s=80), registry.host.address, PORT)
    smallest = min(image.layers, key=lambda layer: layer.size_bytes)

    started_s = time.monotonic()
    mirror.read_blob(REPOSITORY, smallest.digest)
    took_s = time.monotonic() - started_s

    assert took_s >= 0.95 * smallest.size_bytes * 8 / 80e6


def test_a_blackholed_address_cannot_be_reached(lab: Lab, storage: Path) -> None:
    registry = lab.registry(lab.host("registry"), storage)
    host = lab.host("a")
    host.connect(registry.host.address, PORT).close()

    host.blackhole(registry.host.address)

    with pytest.raises(OSError, match=r"unreachable|Invalid argument"):
        host.connect(registry.host.address, PORT)


def test_dropped_packets_make_a_connection_hang(lab: Lab, storage: Path) -> None:
    registry = lab.registry(lab.host("registry"), storage)
    host = lab.host("a")

    host.drop_to(registry.host.address)

    with pytest.raises(TimeoutError):
        host.connect(registry.host.address, PORT, timeout_s=0.3)
