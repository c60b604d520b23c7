"""Who distributes the image; each is started, warmed, and asked to have every host pull."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from bench.swarm.cases import Case
from bench.swarm.images import blob_path, make_torrent
from p2pdist.process.clock import unix_s
from tests.e2e.harness.image import REFERENCE, REPOSITORY, Image
from tests.e2e.harness.lab import Lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import PEER_MIRROR_URL, REPOSITORY_ROOT, Cluster, Daemon
from tests.e2e.harness.processes import LabError, Process, run, wait_until
from tests.e2e.harness.registry import Registry

TAG: Final = REFERENCE.rpartition(":")[2]
BEGIN_IN_S: Final = 2.0
"""Every client is up and waiting by then."""
TORRENT_PORT: Final = 6881
TORRENT_TRACKER_PORT: Final = 6969
SEED_READY_S: Final = 4.0
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
        clients = [
            _client(world, host, PEER_MIRROR_URL, start_at, "client") for host in world.hosts
        ]
        if (dies_s := world.case.tracker_dies_s) is not None:
            self._kill_tracker(world, start_at + dies_s)
        until_s = time.monotonic() + BEGIN_IN_S + timeout_s
        pulled = []
        for client in clients:
            status = client.wait_ended(timeout_s=max(0.1, until_s - time.monotonic()))
            text = client.log.read_text()
            if status != 0:
                raise LabError(f"{client.name}: {text[-600:]}")
            pulled.append(Pulled(**json.loads(text.splitlines()[-1])))
        return pulled

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
    puller = _client(world, host, base, time.monotonic(), "ahead")
    if (status := puller.wait_ended(timeout_s=WARM_S)) != 0:
        raise LabError(f"{puller.name}: {status}: {puller.log.read_text()[-600:]}")


def _client(world: World, host: Host, base: str, start_at: float, name: str) -> Process:
    script = str(REPOSITORY_ROOT / "bench/swarm/client.py")
    return world.start(name, host, sys.executable, script, base, REPOSITORY, TAG, f"{start_at:.3f}")


class Aria2:
    """BitTorrent, its own way: no registry, the seed on the registry's host, SHA-1 of pieces.

    SHA-256 is checked when the time is taken, so that both have checked what they have.
    """

    name = "aria2"

    def start(self, world: World) -> None:
        announce = f"http://{world.core.address}:{TORRENT_TRACKER_PORT}/announce"
        self._torrent = world.lab.work / "image.torrent"
        self._torrent.write_bytes(make_torrent(world.image, announce))
        module = "bench.swarm.torrent_tracker"
        argv = [sys.executable, "-m", module, str(TORRENT_TRACKER_PORT)]
        world.processes.append(world.start("torrents", world.core, *argv))
        seed = world.lab.work / "seed"
        inner = seed if len(world.image.layers) == 1 else seed / "image"
        inner.mkdir(parents=True)
        for layer in world.image.layers:
            path = blob_path(world.image, layer)
            (inner / path.name).symlink_to(path)
        argv = [*_ARIA2, "--check-integrity=true", f"--dir={seed}", str(self._torrent)]
        world.processes.append(world.start("seed", world.registry.host, *argv))
        time.sleep(SEED_READY_S)  # it checks its files and announces itself; it tells nobody when

    def pull(self, world: World, timeout_s: float) -> list[Pulled]:
        hook = world.lab.work / "done.sh"
        hook.write_text('#!/bin/sh\ndate +%s.%N > "$PWD/done"\n')
        hook.chmod(0o755)
        start_at = unix_s() + BEGIN_IN_S
        homes = {host: world.lab.work / f"aria2-{host.name}" for host in world.hosts}
        for host, home in homes.items():
            home.mkdir()
            options = [f"--dir={home / 'got'}", f"--on-bt-download-complete={hook}"]
            wait = f'sleep {start_at - unix_s():.3f}; exec "$@"'
            argv = ["sh", "-c", wait, "sh", *_ARIA2, *options, str(self._torrent)]
            world.processes.append(world.start("aria2", host, *argv, cwd=home))
        ended = [home / "done" for home in homes.values()]
        wait_until(
            lambda: all(path.exists() and path.read_text().endswith("\n") for path in ended),
            "end of aria2",
            timeout_s=BEGIN_IN_S + timeout_s,
        )
        for home in homes.values():
            _check(world.image, home / "got")
        return [Pulled(float(path.read_text()) - start_at) for path in ended]

    def copies(self, world: World) -> float | None:
        return None

    def trouble(self, world: World) -> dict[str, int]:
        return {}


_ARIA2: Final = (
    "aria2c --no-conf --seed-ratio=0.0 --enable-dht=false --bt-enable-lpd=false "
    "--enable-peer-exchange=false --bt-max-peers=0 --file-allocation=none --summary-interval=0 "
    "--console-log-level=warn --show-console-readout=false --bt-request-peer-speed-limit=0 "
    f"--follow-torrent=mem --listen-port={TORRENT_PORT}"
).split()


def _check(image: Image, got: Path) -> None:
    for layer in image.layers:
        name = layer.digest.removeprefix("sha256:")
        path = got / name if len(image.layers) == 1 else got / "image" / name
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != name:
            raise LabError(f"{path}: has {found}")


def aria2_version() -> str:
    return run(["aria2c", "--version"]).splitlines()[0]
