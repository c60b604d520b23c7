"""Two datacenters before a release: images pushed, placed and started, and everything killed."""

from __future__ import annotations

import http.client
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.harness.image import GREETING, REFERENCE, Image, build_image
from tests.e2e.harness.lab import Lab
from tests.e2e.harness.mirror import get
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import (
    ADMIN_PORTS,
    LOOPBACK,
    PEER_MIRROR_URL,
    PROXY_PORT,
    Cluster,
    Daemon,
)
from tests.e2e.harness.prewarm import Operator, Outcome
from tests.e2e.harness.processes import wait_until
from tests.e2e.harness.registry import Registry
from tests.faults.offline import inspect
from tests.figures import note

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

FULL_REFERENCE: Final = f"docker.io/{REFERENCE}"
LAYER_BYTES: Final = (50_000_000, 20_000_000, 10_000_000)
HOST_MBIT_PER_S: Final = 400
REGISTRY_MBIT_PER_S: Final = 200
CROSS_RATIO_MAX: Final = 1.05
SECRET: Final = "only the registry knows this"
# What a killed peer had asked of its neighbours and not yet on disk: two runs of 1 MiB each.
IN_FLIGHT_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Site:
    lab: Lab
    image: Image
    registry: Registry
    clusters: list[Cluster]
    trackers: list[Daemon]
    proxies: list[Daemon]
    hosts: dict[str, list[Host]]
    peers: dict[str, list[Daemon]]
    operator: Operator

    @property
    def keys(self) -> list[bytes]:
        return self.clusters[0].proxy_keys

    @property
    def all_peers(self) -> list[Daemon]:
        return [peer for peers in self.peers.values() for peer in peers]

    def crossed_bytes(self, dc: str) -> int:
        """Payload that came into `dc` from the other one and from the registry."""
        at = {"dc1": 0, "dc2": 1}[dc]
        received = [d.status().received for d in (self.proxies[at], *self.peers[dc])]
        return sum(sources["wan"] + sources["upstream"] for sources in received)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build_image(
        tmp_path_factory.mktemp("prewarm") / "layout", layer_bytes=LAYER_BYTES, seed=404
    )


@pytest.fixture
def site(lab: Lab, image: Image, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """Both datacenters up, federated; the image is pushed where the test does not do it itself."""
    options: dict[str, Any] = getattr(request, "param", {})
    core1, core2 = lab.host("core1"), lab.host("core2", dc="dc2")
    secret = tmp_path / "notify"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    told = (f"http://{core1.address}:{PROXY_PORT}/p2pdist/v1/notifications", SECRET)
    registry = lab.registry(
        lab.host("registry", mbit_per_s=REGISTRY_MBIT_PER_S), tmp_path / "storage", notify=told
    )
    if options.get("pushed", True):
        registry.push(image, REFERENCE)
    first = lab.cluster(core1, registry)
    second = first.datacenter("dc2", core2)
    clusters = [first, second]
    trackers = [cluster.start_tracker() for cluster in clusters]
    rule = {"name": "apps", "images": ["docker.io/library/*"], "hosts": "role=web"}
    ruling = first.start_proxy(
        rules=[rule],
        job_trackers=[cluster.jobs_url for cluster in clusters],
        notify_secret_file=str(secret),
    )
    proxies = [ruling, second.start_proxy()]
    hosts: dict[str, list[Host]] = {}
    peers: dict[str, list[Daemon]] = {}
    for cluster, dc in ((first, "dc1"), (second, "dc2")):
        hosts[dc] = [
            lab.host(f"{dc}-{name}", mbit_per_s=options.get("mbit", HOST_MBIT_PER_S), dc=dc)
            for name in "abc"
        ]
        peers[dc] = [
            cluster.start_peer(host, labels=[f"role={'db' if host.name.endswith('c') else 'web'}"])
            for host in hosts[dc]
        ]
    operator = Operator(core1, clusters)
    return Site(lab, image, registry, clusters, trackers, proxies, hosts, peers, operator)


@pytest.mark.parametrize("site", [{"pushed": False}], indirect=True)
def test_a_push_is_all_it_takes(site: Site) -> None:
    """On the selected hosts of both datacenters by notification alone; then it runs from there."""
    chosen = [peer for peer in site.all_peers if not peer.host.name.endswith("c")]
    docker = site.lab.dockerd(site.hosts["dc2"][0], PEER_MIRROR_URL)
    pushing_s = time.monotonic()
    site.registry.push(site.image, REFERENCE)
    pushed_s = time.monotonic()

    wait_until(lambda: _jobs_done(site), "both trackers' jobs done", timeout_s=120.0)
    ready_s = time.monotonic() - pushed_s

    for peer in chosen:
        assert _holds(site.keys, peer, site.image), peer.host.name
    for peer in (peer for peer in site.all_peers if peer not in chosen):
        assert peer.status().received_bytes == 0, peer.host.name
    crossed = max(site.crossed_bytes(dc) for dc in site.peers) / site.image.payload_bytes
    note("prewarm.push_to_ready_s", ready_s)
    note("prewarm.push_s", pushed_s - pushing_s)
    note("prewarm.cross_dc_ratio", crossed)
    assert crossed <= CROSS_RATIO_MAX

    site.registry.process.stop()
    for proxy in site.proxies:
        proxy.stop()
    docker.pull(REFERENCE)
    assert docker.image_id(REFERENCE) == site.image.config.digest
    assert docker.run(REFERENCE) == GREETING


def test_into_the_runtime_means_that_nothing_is_fetched_at_the_start(
    lab: Lab, image: Image, tmp_path: Path
) -> None:
    registry = lab.registry(lab.host("registry"), tmp_path / "storage")
    registry.push(image, REFERENCE)
    core, host = lab.host("core"), lab.host("a")
    cluster = lab.cluster(core, registry)
    cluster.start_tracker()
    cluster.start_proxy()
    docker = lab.dockerd(host, PEER_MIRROR_URL)
    socket = docker.endpoint.removeprefix("unix://")
    peer = cluster.start_peer(host, into_runtime="docker", runtime_socket=socket)
    operator = Operator(core, [cluster])

    done = operator.prewarm(FULL_REFERENCE, "--into-runtime", "-o", "json")

    assert done.code == 0, done.stderr
    assert _by_dc(done)["dc1"]["unpacked"] == 1
    assert docker.image_id(REFERENCE) == image.config.digest
    before = _blob_gets(peer)
    assert before > 0
    assert docker.run(REFERENCE) == GREETING
    assert _blob_gets(peer) == before


def test_into_containerd_means_that_nothing_is_fetched_afterwards(
    lab: Lab, image: Image, tmp_path: Path
) -> None:
    registry = lab.registry(lab.host("registry"), tmp_path / "storage")
    registry.push(image, REFERENCE)
    core, host = lab.host("core"), lab.host("a")
    cluster = lab.cluster(core, registry)
    cluster.start_tracker()
    cluster.start_proxy()
    containerd = lab.containerd(host, PEER_MIRROR_URL)
    peer = cluster.start_peer(
        host,
        env={"CONTAINERD_SNAPSHOTTER": "native"},
        into_runtime="containerd",
        runtime_socket=str(containerd.socket),
        runtime_hosts_dir=str(containerd.certs),
        runtime_namespace="default",
    )
    operator = Operator(core, [cluster])

    done = operator.prewarm(FULL_REFERENCE, "--into-runtime", "-o", "json")

    assert done.code == 0, done.stderr
    assert _by_dc(done)["dc1"]["unpacked"] == 1
    assert containerd.complete(FULL_REFERENCE)
    before = _blob_gets(peer)
    assert before > 0
    containerd.pull(FULL_REFERENCE)
    assert _blob_gets(peer) == before


def test_a_job_survives_the_death_of_everything(site: Site) -> None:
    """kill -9 of the tracker, a third of the peers and a proxy in mid job."""
    job = site.operator.start_prewarm(FULL_REFERENCE, "-o", "json", "--rate", "8MB/s")
    victims = [site.peers["dc1"][0], site.peers["dc2"][1]]
    third = site.image.payload_bytes // 3
    wait_until(
        lambda: all(peer.status().received_bytes >= third for peer in victims), "a third at both"
    )
    before = {peer.host.name: peer.status().received_bytes for peer in victims}
    for daemon in (site.trackers[0], site.proxies[1], *victims):
        daemon.kill9()
    for daemon in (site.trackers[0], site.proxies[1], *victims):
        daemon.start()
    stdout, stderr = job.communicate(timeout=150.0)
    done = Outcome(job.returncode, stdout, stderr)

    assert done.code == 0, done.stderr
    assert {dc: row["ready"] for dc, row in _by_dc(done).items()} == {"dc1": 3, "dc2": 3}
    for peer in site.all_peers:
        assert _holds(site.keys, peer, site.image), peer.host.name
        received = peer.status().received_bytes + before.get(peer.host.name, 0)
        again = received - site.image.payload_bytes
        print(f"{peer.host.name} fetched {again} bytes twice")
        assert again <= IN_FLIGHT_BYTES


def test_what_goes_wrong_is_said_with_its_own_code(site: Site) -> None:
    prewarm = site.operator.prewarm

    nobody = prewarm(FULL_REFERENCE, "--hosts", "role=gpu")
    assert nobody.code == 3, nobody.stderr
    assert "role=gpu" in nobody.stderr
    unknown = prewarm("docker.io/library/nothing:1")
    assert unknown.code == 3, unknown.stderr
    assert "library/nothing" in unknown.stderr
    denied = prewarm("registry.example/team/app:1")
    assert denied.code == 4, denied.stderr
    late = prewarm(FULL_REFERENCE, "--dry-run", "--rate", "1MB/s", "--deadline", "20s")
    assert late.code == 8, late.stderr
    assert "deadline" in (late.stdout + late.stderr)
    submitted = prewarm(FULL_REFERENCE, "--rate", "1MB/s", "--deadline", "3s", "-o", "json")
    assert submitted.code == 8, submitted.stderr
    assert "deadline" in submitted.stderr


def test_a_host_without_room_is_named_with_the_reason(
    lab: Lab, image: Image, tmp_path: Path
) -> None:
    registry = lab.registry(lab.host("registry"), tmp_path / "storage")
    registry.push(image, REFERENCE)
    core = lab.host("core")
    cluster = lab.cluster(core, registry)
    cluster.start_tracker()
    cluster.start_proxy()
    cluster.start_peer(lab.host("roomy"))
    cluster.start_peer(lab.host("full"), store={"max_bytes": 30_000_000})
    operator = Operator(core, [cluster])

    done = operator.prewarm(FULL_REFERENCE, "-o", "json", timeout_s=180.0)

    assert done.code == 7, done.stderr
    failed = [host for host in done.json["failed"] if host["state"] == "failed"]
    assert [(host["name"], host["code"]) for host in failed] == [("full", "no_space")]
    assert _by_dc(done)["dc1"]["ready"] == 1


# --- what the daemons say -------------------------------------------------------------------------


def _jobs_done(site: Site) -> bool:
    for tracker in site.trackers:
        try:
            jobs = tracker.page()["jobs"]
        except (OSError, http.client.HTTPException):
            return False
        if not jobs.get("done"):
            return False
    return True


def _by_dc(done: Outcome) -> dict[str, dict[str, Any]]:
    return {row["dc"]: row for row in done.json["dcs"]}


def _holds(site_keys: list[bytes], peer: Daemon, image: Image) -> bool:
    """Every part lies on its disk, hashed here, file by file."""
    parts = {image.index, image.manifest, image.config, *image.layers}
    whole = set(inspect(peer.state_dir, site_keys).whole_blobs)
    return {part.digest for part in parts} <= whole


def _blob_gets(peer: Daemon) -> int:
    """How many blobs the runtime has asked this peer for."""
    _, body = get(peer.host, LOOPBACK, ADMIN_PORTS["peer"], "/metrics")
    pattern = r'^p2pdist_pulls_total\{kind="blob",outcome="\w+"\} (\S+)$'
    counts = re.findall(pattern, body.decode(), re.MULTILINE)
    assert counts
    return sum(int(float(count)) for count in counts)
