"""What all fault rows with real processes share: one datacenter, clients, and checks afterwards.

A client's host has no route to the registry: it succeeds through p2pdist, in one GET, or fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.e2e.harness.image import REPOSITORY, Blob, Image
from tests.e2e.harness.lab import Lab
from tests.e2e.harness.mirror import Reading
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import Daemon, peer_mirror
from tests.e2e.harness.processes import wait_until
from tests.faults.offline import Findings, inspect
from tests.faults.records import FaultRecord

# A layer of 40 MB takes 3.2 s: time enough to look, and to break something in the middle.
LINK_MBIT_PER_S: Final = 100
# Contract of the mirror (docs/architecture.md): no longer silence while another source exists.
GAP_S_MAX: Final = 5.0
# A pull that the fault did not touch takes 3.2 s; with the longest silence, and a loaded machine.
DEADLINE_S: Final = 30.0
UPSTREAM_RATIO_MAX: Final = 1.05


class Scene:
    """A registry, and the daemons of one datacenter in front of it."""

    def __init__(
        self,
        lab: Lab,
        image: Image,
        storage: Path,
        *,
        core_mbit_per_s: int = 1000,
        registry_mbit_per_s: int | None = None,
        proxy_state_dir: Path | None = None,
    ) -> None:
        self.lab = lab
        self.image = image
        self.registry = lab.registry(lab.host("registry", mbit_per_s=registry_mbit_per_s), storage)
        self.core = lab.host("core", mbit_per_s=core_mbit_per_s)
        self.cluster = lab.cluster(self.core, self.registry)
        self.tracker = self.cluster.start_tracker()
        self.proxy = self.cluster.start_proxy(state_dir=proxy_state_dir)

    def layer(self, number: int) -> Blob:
        return self.image.layers[number]

    def host(self, name: str, *, reaches_registry: bool = False) -> Host:
        """Return a host for a peer and its client."""
        host = self.lab.host(name, mbit_per_s=LINK_MBIT_PER_S)
        if not reaches_registry:
            host.blackhole(self.registry.host.address)
        return host

    def peer(self, name: str) -> Daemon:
        return self.cluster.start_peer(self.host(name))

    def inspect(self, daemon: Daemon) -> Findings:
        """Look at what a daemon that does not run has on its disk."""
        assert not daemon.process.alive
        return inspect(daemon.state_dir, self.cluster.proxy_keys)


def read(peer: Daemon, layer: Blob) -> Reading:
    """Read a layer as the runtime of this host does: one GET, one response."""
    return peer_mirror(peer.host).time_blob(REPOSITORY, layer.digest)


@contextmanager
def reading(peers: Sequence[Daemon], layer: Blob) -> Iterator[list[Future[Reading]]]:
    """Read `layer` at all `peers` at once, in the background."""
    with ThreadPoolExecutor(max_workers=len(peers)) as background:
        yield [background.submit(read, peer, layer) for peer in peers]


def wait_for_share(peer: Daemon, layer: Blob, share: float, since_bytes: int = 0) -> None:
    """Return when `peer` has that share of `layer`; `since_bytes`: what it had received before."""
    goal = since_bytes + share * layer.size_bytes
    wait_until(
        lambda: peer.status().received_bytes >= goal,
        f"{share:.0%} of the layer at the {peer.process.name}",
        log=peer.process.log,
    )


def assert_served(record: FaultRecord, readings: Sequence[Reading], layer: Blob) -> None:
    """I2: each client got the right bytes, in time and without a long silence."""
    assert [reading.blob for reading in readings] == [layer] * len(readings)
    assert max(reading.seconds for reading in readings) <= DEADLINE_S
    assert max(reading.longest_gap_s for reading in readings) <= GAP_S_MAX
    if "I2" not in record.invariants:
        record.invariants.append("I2")


def assert_verified(record: FaultRecord, scene: Scene, daemons: Sequence[Daemon]) -> None:
    """I1: end the daemons as a crash would; all that they claim to have verified is right."""
    for daemon in daemons:
        if daemon.process.alive:
            daemon.kill9()
        found = scene.inspect(daemon)
        assert not found.wrong, f"{daemon.process.name}: {found.wrong}"
    record.invariants.append("I1")


def assert_no_orphans(record: FaultRecord, scene: Scene, daemon: Daemon) -> None:
    """I3: after a restart nothing is left of what was cut."""
    if not daemon.process.alive:
        daemon.start()
    daemon.stop()
    found = scene.inspect(daemon)
    assert (found.wrong, found.orphans) == ([], [])
    record.invariants.append("I3")


def assert_frugal(record: FaultRecord, scene: Scene, layers: Sequence[Blob]) -> None:
    """I5: the registry gave out each layer about once, all answers to it having ended."""
    wanted_bytes = sum(layer.size_bytes for layer in layers)
    wait_until(
        lambda: scene.registry.payload_bytes() >= wanted_bytes, "layers in the registry's log"
    )
    record.bytes["upstream"] = scene.registry.payload_bytes()
    assert record.bytes["upstream"] <= UPSTREAM_RATIO_MAX * wanted_bytes
    record.invariants.append("I5")


def longest_gap_s(readings: Sequence[Reading]) -> float:
    return max(reading.longest_gap_s for reading in readings)


def failing(plan: str) -> dict[str, str]:
    """Return the environment of a daemon that fails where `plan` says (process/failpoints.py)."""
    return {"P2PDIST_FAILPOINTS": "1", "P2PDIST_FAIL": plan}
