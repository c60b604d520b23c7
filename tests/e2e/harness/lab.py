"""A lab: hosts, and the processes on them, that end together."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

from tests.e2e.harness.clients import Containerd
from tests.e2e.harness.dockerd import Dockerd
from tests.e2e.harness.netns import FIRST_DC, Host, Network, network
from tests.e2e.harness.p2p import Cluster
from tests.e2e.harness.processes import run
from tests.e2e.harness.registry import Registry


class Stoppable(Protocol):
    def stop(self) -> None: ...


class Lab:
    """Starts things; whoever opened it ends them."""

    def __init__(self, hosts: Network, work: Path, stack: contextlib.ExitStack) -> None:
        self._hosts = hosts
        self._work = work
        self._stack = stack

    @property
    def network(self) -> Network:
        return self._hosts

    def host(self, name: str, *, mbit_per_s: int | None = None, dc: str = FIRST_DC) -> Host:
        return self._hosts.add_host(name, mbit_per_s=mbit_per_s, dc=dc)

    def registry(
        self,
        host: Host,
        storage: Path,
        *,
        private: bool = False,
        notify: tuple[str, str] | None = None,
    ) -> Registry:
        """Return a running registry that serves what is in `storage`; `private`: to USER only;
        `notify`: URL and bearer secret of who is told of each push."""
        registry = Registry(host, storage, self._work, private=private, notify=notify)
        self.own(registry.process)
        registry.start()
        return registry

    def dockerd(
        self, host: Host, *mirrors: str, networking: bool = False, **settings: int
    ) -> Dockerd:
        """Return a running dockerd that pulls Docker Hub's images through `mirrors`."""
        dockerd = Dockerd(host, mirrors, self._work, config=None, networking=networking, **settings)
        self.own(dockerd.process)
        dockerd.start()
        return dockerd

    def containerd(
        self, host: Host, mirror: str, *, server: str | None = None, certs: Path | None = None
    ) -> Containerd:
        """Return a running containerd that pulls every registry's images through `mirror`.

        `server`: where it goes when that has not got them, in place of the registry itself.
        `certs`: a directory of hosts.toml files, in place of all that.
        """
        containerd = Containerd(host, mirror, self._work, server=server, certs=certs)
        self.own(containerd.process)
        containerd.start()
        return containerd

    @property
    def work(self) -> Path:
        """Where this lab's files lie; gone when it ends."""
        return self._work

    def cluster(
        self, core: Host, registry: Registry, others: Mapping[str, Registry] | None = None
    ) -> Cluster:
        """Return a datacenter that has `registry` for Docker Hub, no daemon started yet.

        `others`: more upstreams, by the name that images have them under.
        """
        upstreams = {"docker.io": registry, **(others or {})}
        return Cluster(core, upstreams, self._work, self.own)

    def small_disk(self, name: str, size_bytes: int) -> Path:
        """Return a file system of `size_bytes` (a tmpfs): one that gets really full."""
        path = self._work / f"disk-{name}"
        path.mkdir(mode=0o700)
        options = ["-t", "tmpfs", "-o", f"size={size_bytes},mode=0700"]
        run(["mount", *options, f"p2pe-{name}", str(path)])
        # Lazily: a process that has not ended yet must not keep the lab from being cleared away.
        self._stack.callback(run, ["umount", "--lazy", str(path)])
        return path

    def real_disk(self, name: str, size_bytes: int, *, inodes: int | None = None) -> Path:
        """Return a file system of `size_bytes` on a loop device (ext4): one on which directories
        take blocks, and files inodes, of which there are `inodes`."""
        image, path = self._work / f"disk-{name}.img", self._work / f"disk-{name}"
        path.mkdir(mode=0o700)
        with image.open("wb") as file:
            file.truncate(size_bytes)
        some = [] if inodes is None else ["-N", str(inodes)]
        run(["mkfs.ext4", "-q", "-m", "0", *some, str(image)])
        run(["mount", "-o", "loop", str(image), str(path)])
        self._stack.callback(run, ["umount", "--lazy", str(path)])
        path.chmod(0o700)
        return path

    def logs(self) -> list[Path]:
        return sorted(self._work.glob("*.log"))

    def own(self, process: Stoppable) -> None:
        """Stop `process` when the lab ends."""
        self._stack.callback(process.stop)


open_labs: Final[list[Lab]] = []
"""The labs that are open now: their logs belong to the report of a test that fails."""


@contextlib.contextmanager
def open_lab() -> Iterator[Lab]:
    """Yield an empty lab; end its processes, then delete its network and files."""
    with contextlib.ExitStack() as stack:
        # Not pytest's tmp_path: that is kept after the run, and this grows to gigabytes.
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pe-"))
        hosts = stack.enter_context(network())
        lab = Lab(hosts, Path(work), stack)
        open_labs.append(lab)
        stack.callback(open_labs.remove, lab)
        yield lab
