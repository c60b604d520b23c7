"""Who distributes the image; each is started, warmed, and asked to have every host pull."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from bench.swarm.cases import Case
from tests.e2e.harness.image import REFERENCE, REPOSITORY, Image
from tests.e2e.harness.lab import Lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import PEER_MIRROR_URL, REPOSITORY_ROOT, Cluster, Daemon
from tests.e2e.harness.processes import LabError, Process
from tests.e2e.harness.registry import Registry

TAG: Final = REFERENCE.rpartition(":")[2]
BEGIN_IN_S: Final = 2.0
"""Every client is up and waiting by then."""
WARM_S: Final = 600.0
TROUBLE: Final = ("hedges", "steals", "stalls", "escapes", "wasted_bytes")


@dataclass(slots=True)
class Pulled:
    """What one host saw."""

    seconds: float
    first_byte_s: float | None = None
    gap_s: float | None = None


@dataclass(slots=True)
class World:
    lab: Lab
    registry: Registry
    core: Host
    """Where tracker and proxy are."""
    hosts: list[Host]
    """Those that are measured."""
    holders: list[Host]
    image: Image
    case: Case
    processes: list[Process] = field(default_factory=list)
    """The contender's own, whose CPU and memory count."""

    def start(self, name: str, host: Host, *argv: str, cwd: Path | None = None) -> Process:
        inside = host.inside(*argv)
        if cwd is not None:
            inside = ["env", f"--chdir={cwd}", *inside]
        log = self.lab.work / f"{name}-{host.name}.log"
        process = Process(
            f"{name} on {host.name}", inside, log, {"PYTHONPATH": str(REPOSITORY_ROOT)}
        )
        self.lab.own(process)
        process.start()
        return process


class Contender(Protocol):
    name: str

    def start(self, world: World) -> None: ...

    def pull(self, world: World, timeout_s: float) -> list[Pulled]:
        """Have all hosts pull at the same moment; return what each saw, or raise LabError."""
        ...

    def check(self, world: World) -> None:
        """Raise LabError unless what every host got is the image, if `pull` has not said so."""
        ...

    def copies(self, world: World) -> float | None:
        """How often the image left the proxy."""
        ...

    def trouble(self, world: World) -> dict[str, int]:
        """How often what had to be done, all hosts together."""
        ...


class P2pdist:
    name = "p2pdist"

    def __init__(self) -> None:
        self._tracker: Daemon | None = None
        self._proxy: Daemon | None = None
        self.peers: list[Daemon] = []

    def start(self, world: World) -> None:
        cluster: Cluster = world.lab.cluster(world.core, world.registry)
        self._tracker = cluster.start_tracker()
        self._proxy = cluster.start_proxy()
        holders = [cluster.start_peer(host) for host in world.holders]
        self.peers = [cluster.start_peer(host) for host in world.hosts]
        daemons = (self._tracker, self._proxy, *holders, *self.peers)
        world.processes += [daemon.process for daemon in daemons]
        if world.case.warm:
            _pull_ahead(world, world.core, cluster.endpoint)
        for host in world.holders:
            _pull_ahead(world, host, PEER_MIRROR_URL)

    def pull(self, world: World, timeout_s: float) -> list[Pulled]:
        start_at = time.monotonic() + BEGIN_IN_S
        how = "read" if world.case.checked_after else "check"
        clients = [
            client(world, host, PEER_MIRROR_URL, start_at, "client", how) for host in world.hosts
        ]
        if (dies_s := world.case.tracker_dies_s) is not None:
            self._kill_tracker(world, start_at + dies_s)
        until_s = time.monotonic() + BEGIN_IN_S + timeout_s
        return [seen(each, until_s) for each in clients]

    def check(self, world: World) -> None:
        for host in world.hosts if world.case.checked_after else ():
            _pull_ahead(world, host, PEER_MIRROR_URL)

    def _kill_tracker(self, world: World, at_s: float) -> None:
        assert self._tracker is not None
        time.sleep(max(0.0, at_s - time.monotonic()))
        world.processes.remove(self._tracker.process)
        self._tracker.kill9()

    def copies(self, world: World) -> float | None:
        assert self._proxy is not None
        return sum(self._proxy.status().sent.values()) / world.case.size_bytes

    def trouble(self, world: World) -> dict[str, int]:
        pages = [peer.page() for peer in self.peers]
        return {name: sum(page[name] for page in pages) for name in TROUBLE}


def _pull_ahead(world: World, host: Host, base: str) -> None:
    seen(client(world, host, base, time.monotonic(), "ahead"), time.monotonic() + WARM_S)


def client(
    world: World, host: Host, base: str, start_at: float, name: str, how: str = "check"
) -> Process:
    """Return what pulls the image on `host` from `start_at` on; `how`: see `bench.swarm.client`."""
    script = str(REPOSITORY_ROOT / "bench/swarm/client.py")
    argv = [sys.executable, script, base, REPOSITORY, TAG, f"{start_at:.6f}", how]
    return world.start(name, host, *argv)


def seen(client: Process, until_s: float) -> Pulled:
    """Return what a client saw, once it has ended; raise LabError if it could not pull."""
    status = client.wait_ended(timeout_s=max(0.1, until_s - time.monotonic()))
    text = client.log.read_text()
    if status != 0:
        raise LabError(f"{client.name}: {status}: {text[-600:]}")
    return Pulled(**json.loads(text.splitlines()[-1]))
