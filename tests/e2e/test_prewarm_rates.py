"""What a prewarm takes of the links: no more than it was given, and nothing that a pull needs.

Bytes are counted on the interfaces of the network namespaces, not by the daemons; the share of
headers and control is taken out by the payload that the daemons counted over the whole run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.harness.image import REFERENCE, REPOSITORY, Image, build_image
from tests.e2e.harness.lab import Lab
from tests.e2e.harness.p2p import Daemon, peer_mirror
from tests.e2e.harness.prewarm import Meter, Metered, Operator, busy_s, peak_per_s
from tests.e2e.harness.processes import wait_until
from tests.figures import note

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

FULL_REFERENCE: Final = f"docker.io/{REFERENCE}"
RELEASE_BYTES: Final = (60_000_000, 40_000_000)
RATE: Final = 10_000_000
DC_RATE: Final = 12_000_000
PEAK_MAX: Final = 1.05
MEAN_MIN: Final = 0.9
SHARE_MIN: Final = 0.9
LINK_MBIT_PER_S: Final = 200
RUNNING_LAYERS: Final = (60_000_000, 60_000_000)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("release")
    return build_image(directory / "layout", layer_bytes=RELEASE_BYTES, seed=405)


def test_a_host_takes_no_more_than_its_rate(lab: Lab, release: Image, tmp_path: Path) -> None:
    registry = lab.registry(lab.host("registry"), tmp_path / "storage")
    registry.push(release, REFERENCE)
    core = lab.host("core")
    cluster = lab.cluster(core, registry)
    cluster.start_tracker()
    cluster.start_proxy()
    hosts = [lab.host(name, mbit_per_s=LINK_MBIT_PER_S) for name in "abc"]
    peers = [cluster.start_peer(host) for host in hosts]
    with Meter.of_host(hosts[0]) as meter:
        done = Operator(core, [cluster]).prewarm(FULL_REFERENCE, "--rate", "10MB/s", "--quiet")
    assert done.code == 0, done.stderr

    peak, mean = _payload_rates(meter.result, peers[0].status().received_bytes, RATE)
    note("prewarm.rate_peak_ratio_host", peak)
    note("prewarm.rate_mean_ratio_host", mean)
    assert mean >= MEAN_MIN
    assert peak <= PEAK_MAX


def test_a_datacenter_takes_no_more_than_its_link_rate(
    lab: Lab, release: Image, tmp_path: Path
) -> None:
    registry = lab.registry(lab.host("registry"), tmp_path / "storage")
    registry.push(release, REFERENCE)
    core1, core2 = lab.host("core1"), lab.host("core2", dc="dc2")
    first = lab.cluster(core1, registry)
    second = first.datacenter("dc2", core2)
    for cluster in (first, second):
        cluster.start_tracker()
    first.start_proxy()
    proxy2 = second.start_proxy()
    peers = [second.start_peer(lab.host(f"dc2-{name}", dc="dc2")) for name in "ab"]
    inside, interface = lab.network.border("dc2")
    operator = Operator(core1, [first, second])
    with Meter(inside, interface) as meter:
        done = operator.prewarm(FULL_REFERENCE, "--dc", "dc2", "--dc-rate", "12MB/s", "--quiet")
    assert done.code == 0, done.stderr

    received = [daemon.status().received for daemon in (proxy2, *peers)]
    payload = sum(sources["wan"] + sources["upstream"] for sources in received)
    # What goes into the datacenter is what its border interface sends.
    flow = Metered(meter.result.moments_s, meter.result.sent, meter.result.received)
    peak, mean = _payload_rates(flow, payload, DC_RATE)
    note("prewarm.rate_peak_ratio_dc", peak)
    note("prewarm.rate_mean_ratio_dc", mean)
    assert mean >= MEAN_MIN
    assert peak <= PEAK_MAX


def test_a_pull_beside_an_unlimited_prewarm_keeps_its_speed(
    lab: Lab, release: Image, tmp_path: Path
) -> None:
    running = build_image(tmp_path / "running", layer_bytes=RUNNING_LAYERS, seed=406)
    registry = lab.registry(lab.host("registry"), tmp_path / "storage")
    registry.push(release, REFERENCE)
    registry.push(running, "library/running:1")
    core = lab.host("core", mbit_per_s=LINK_MBIT_PER_S)
    cluster = lab.cluster(core, registry)
    cluster.start_tracker()
    cluster.start_proxy()
    hosts = [lab.host(name, mbit_per_s=LINK_MBIT_PER_S) for name in "abc"]
    peers = [cluster.start_peer(host) for host in hosts]
    seed = cluster.start_peer(lab.host("seed", mbit_per_s=LINK_MBIT_PER_S))
    for layer in running.layers:
        peer_mirror(seed.host).read_blob("library/running", layer.digest)
    for layer in release.layers:
        peer_mirror(seed.host).read_blob(REPOSITORY, layer.digest)

    alone = peer_mirror(hosts[0]).time_blob("library/running", running.layers[0].digest)
    operator = Operator(core, [cluster])
    job = operator.start_prewarm(FULL_REFERENCE, "--quiet", "--hosts", "?")
    try:
        _wait_saturated(peers[0])
        beside = peer_mirror(hosts[0]).time_blob("library/running", running.layers[1].digest)
        assert job.poll() is None, "the prewarm was over too soon to matter"
    finally:
        _, errors = job.communicate(timeout=120.0)
    assert job.returncode == 0, errors

    share = alone.seconds / beside.seconds
    note("prewarm.runtime_pull_share", share)
    assert share >= SHARE_MIN


def _wait_saturated(peer: Daemon) -> None:
    """Wait until bytes came in at 80 % of the link for half a second."""
    at_least = 0.8 * LINK_MBIT_PER_S * 125_000 * 0.5

    def saturated() -> bool:
        before = peer.status().received_bytes
        time.sleep(0.5)  # the window that is measured
        return peer.status().received_bytes - before >= at_least

    wait_until(saturated, "a prewarm at the speed of the link")


def _payload_rates(flow: Metered, payload_bytes: int, rate: int) -> tuple[float, float]:
    """Return the largest window of 1 s and the mean, as shares of `rate`, without headers."""
    payload_share = payload_bytes / flow.received_bytes
    peak = peak_per_s(flow.moments_s, flow.received) * payload_share
    seconds = busy_s(flow.moments_s, flow.received, floor_per_s=0.2 * rate)
    assert seconds > 3.0, "too short to say anything of windows"
    mean = payload_bytes / seconds
    print(f"payload share {payload_share:.3f}, {seconds:.2f} s")
    return peak / rate, mean / rate
