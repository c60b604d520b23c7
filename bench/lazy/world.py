"""A datacenter whose proxy knows the images, and hosts that know nothing of them."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.swarm.images import PlainImage
from p2pdist.model.ids import Digest
from p2pdist.oci.traces import QUESTION as TRACE
from p2pdist.oci.traces import decode_trace
from p2pdist.streaming.fuse import syscalls
from p2pdist.streaming.snapshotter.layer_files import FILES
from tests.e2e.harness import mirror
from tests.e2e.harness.cri import CriContainerd
from tests.e2e.harness.lab import Lab, open_lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import (
    LOOPBACK,
    PEER_MIRROR_URL,
    PEER_PORT,
    PROXY_PORT,
    REPOSITORY_ROOT,
    Cluster,
    Daemon,
)
from tests.e2e.harness.places import Place
from tests.e2e.harness.processes import LabError, Process, run, wait_until
from tests.e2e.harness.registry import Registry

MBIT_PER_S: Final = 400
"""50 MB/s."""
INDEXED_S: Final = 300.0
COMMAND_S: Final = 300.0
TAG: Final = "1"
ENV: Final = {"PYTHONPATH": str(REPOSITORY_ROOT)}
DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, slots=True)
class Started:
    """A command in a mounted image."""

    first_output_s: float
    """From the start of `p2pdist mount`."""
    mounted_s: float
    fetched_bytes: int
    """What the host's peer had received by then: the index, manifests not counted."""


class Machine:
    """A host with a peer, and the images that it has mounted."""

    def __init__(self, name: str, host: Host, peer: Daemon, work: Path) -> None:
        self.name, self.host, self.peer = name, host, peer
        self.state = work / f"mounts-{name}"
        self.target = work / f"mnt-{name}"
        self.target.mkdir()

    def begin(self, repository: str, command: Sequence[str]) -> Running:
        """Mount an image and run `command` in it; its first line of output ends the clock."""
        script = '"$@" && echo mounted && exec chroot "$0" '
        quoted = " ".join(f"'{word}'" for word in command)
        mount = self._mount(repository)
        argv = self.host.inside("sh", "-euc", script + quoted, str(self.target), *mount)
        return Running(self, argv)

    def run(self, repository: str, command: Sequence[str]) -> Started:
        return self.begin(repository, command).ended()

    def mount(self, repository: str) -> None:
        run(self.host.inside(*self._mount(repository)), env=ENV)

    def _mount(self, repository: str) -> list[str]:
        what = ["mount", "--quiet", f"{repository}:{TAG}", str(self.target)]
        return _p2pdist(*what, f"--endpoint={PEER_MIRROR_URL}", f"--state-dir={self.state}")

    def worker(self) -> int | None:
        """The process that answers the kernel; None between two."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    is_worker = b"p2pdist.streaming.mount_worker" in words[:5]
                    if is_worker and any(w.startswith(os.fsencode(self.state)) for w in words):
                        return int(entry.name)
        return None

    @contextmanager
    def containerd(self, *, fill: bool = False) -> Iterator[Engine]:
        """A containerd with the snapshotter, both new to this host. Without `fill` what a start
        needs is to be seen."""
        with TemporaryDirectory(prefix="p2pb-") as place, ExitStack() as stack:
            work = Path(place)
            socket, state = work / "s.sock", work / "state"
            argv = _p2pdist("snapshotter", f"--host-state-dir={state}")
            argv += [f"--snapshotter-socket={socket}", f"--snapshotter-mirror={PEER_MIRROR_URL}"]
            argv += [f"--snapshotter-fill={str(fill).lower()}"]
            log = work / "snapshotter.log"
            snapshotter = Process("snapshotter", self.host.inside(*argv), log, ENV)
            stack.callback(syscalls.unmount, str(state / "snapshotter" / "mnt"))
            stack.callback(snapshotter.stop)
            snapshotter.start()
            snapshotter.wait_ready(socket.exists)
            made = CriContainerd(
                work,
                socket,
                state / "snapshotter",
                PEER_MIRROR_URL,
                place=Place(work, host=self.host),
            )
            stack.callback(made.stop)
            made.start()
            yield Engine(self, made, state / "snapshotter")

    def knows_starts(self, layers: Sequence[str]) -> bool:
        """Whether this host is told what starts read of any of these layers."""
        at = self.host, LOOPBACK, PEER_PORT
        bodies = [mirror.get(*at, f"{TRACE}?layer={layer}")[1] for layer in layers]
        return any(decode_trace(body) for body in bodies)

    def requests(self, layers: Sequence[str]) -> int:
        """How often its mirror was asked for one of them, as far as that is over."""
        log = self.peer.process.log.read_text(errors="replace")
        return sum(
            "pull.ended" in line and any(layer in line for layer in layers)
            for line in log.splitlines()
        )

    def stop(self) -> None:
        """Unmount what is mounted; also at the end of the lab."""
        if self.target.is_mount():
            where = [str(self.target), f"--state-dir={self.state}"]
            run(_p2pdist("unmount", "--lazy", *where), env=ENV)


@dataclass(frozen=True, slots=True)
class EngineStart:
    """A container that was pulled and run; the clock begins with the pull."""

    pull_s: float
    ended_s: float
    layer_gets: int
    """Of layers as such, during the pull."""
    fetched_bytes: int


class Engine:
    """A containerd on a machine."""

    def __init__(self, machine: Machine, containerd: CriContainerd, snapshots: Path) -> None:
        """`snapshots`: where the snapshotter keeps them."""
        self._machine = machine
        self._containerd = containerd
        self._snapshots = snapshots

    def again(self, repository: str, command: Sequence[str]) -> float:
        """How long a container takes whose image and files are here."""
        began_s = time.monotonic()
        self._containerd.run(f"docker.io/{repository}:{TAG}", *command, name="again")
        return time.monotonic() - began_s

    @contextmanager
    def unpacked(self, repository: str, chain: Digest, target: Path) -> Iterator[None]:
        """Pull an image, and mount what a container sees of it once all of it is here."""
        self._containerd.pull(f"docker.io/{repository}:{TAG}")
        layers = self._snapshots / "layers"
        wait_until(lambda: any(layers.glob(f"*/{FILES}")), "files of its layer", timeout_s=300)
        ctr = ["snapshots", "--snapshotter", "p2pdist", "prepare", "--target", str(target)]
        run(["sh", "-c", self._containerd.ctr(*ctr, "seen", chain)])
        try:
            yield
        finally:
            run(["umount", str(target)])

    def start(self, repository: str, command: Sequence[str], layers: Sequence[str]) -> EngineStart:
        """Whatever is in memory stays there; `cold` before, for all that start at a time."""
        machine, image = self._machine, f"docker.io/{repository}:{TAG}"
        gets, received = machine.requests(layers), machine.peer.status().received_bytes
        began_s = time.monotonic()
        self._containerd.pull(image)
        pull_s = time.monotonic() - began_s
        gets = machine.requests(layers) - gets
        self._containerd.run(image, *command)
        ended_s = time.monotonic() - began_s
        return EngineStart(pull_s, ended_s, gets, machine.peer.status().received_bytes - received)


class Running:
    """One `begin`."""

    def __init__(self, machine: Machine, argv: Sequence[str]) -> None:
        self._machine = machine
        self._before = machine.peer.status().received_bytes
        self._began_s = time.monotonic()
        self._process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **ENV},
        )  # fmt: skip

    def ended(self) -> Started:
        assert self._process.stdout is not None
        self._process.stdout.readline()
        mounted_s = time.monotonic() - self._began_s
        first = self._process.stdout.readline()
        took_s = time.monotonic() - self._began_s
        fetched = self._machine.peer.status().received_bytes - self._before
        _, complaint = self._process.communicate(timeout=COMMAND_S)
        if self._process.returncode or not first:
            raise LabError(f"on {self._machine.name}: {self._process.returncode}: {complaint}")
        return Started(took_s, mounted_s, fetched)


class World:
    def __init__(self, lab: Lab, images: dict[str, PlainImage]) -> None:
        self._lab = lab
        self.images = images
        registry_host = lab.host("registry", mbit_per_s=MBIT_PER_S)
        self.core = lab.host("core", mbit_per_s=MBIT_PER_S)
        self.registry: Registry = lab.registry(registry_host, lab.work / "registry")
        for repository, image in images.items():
            self.registry.push(image, f"{repository}:{TAG}")
        self._cluster: Cluster = lab.cluster(self.core, self.registry)
        self.tracker = self._cluster.start_tracker()
        self.proxy = self._cluster.start_proxy()
        self.index_bytes = {name: self._index(name, image) for name, image in images.items()}

    def fresh(self, name: str) -> Machine:
        """A host that has no byte of any image."""
        host = self._lab.host(name, mbit_per_s=MBIT_PER_S)
        machine = Machine(name, host, self._cluster.start_peer(host), self._lab.work)
        self._lab.own(machine)
        return machine

    def _index(self, repository: str, image: PlainImage) -> int:
        """Have the proxy see the image, as a first pull or a prewarm does; the indexes' bytes."""
        at_proxy = self.core, self.core.address, PROXY_PORT
        through, sizes = mirror.Mirror(*at_proxy), []
        mirror.get(*at_proxy, f"/v2/{repository}/manifests/{TAG}")
        for layer in image.layers:
            through.read_blob(repository, layer.digest)
            path = f"/v2/{repository}/_p2pdist/layer-index/{layer.digest}"

            def indexed(path: str = path) -> bool:
                status, body = mirror.get(*at_proxy, path)
                if status == http.client.OK:
                    sizes.append(len(body))
                return status == http.client.OK

            wait_until(indexed, f"index of {layer.digest}", timeout_s=INDEXED_S)
        return sum(sizes)


@contextmanager
def open_world(images: dict[str, PlainImage]) -> Iterator[World]:
    with open_lab() as lab:
        yield World(lab, images)


def cold() -> None:
    """Nothing of any file is left in memory."""
    os.sync()
    DROP_CACHES.write_text("3")


def _p2pdist(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "p2pdist.cli.main", *arguments]
