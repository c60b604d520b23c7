"""dockerd, as mirrors and paths let it pull, and containerd as a kubelet asks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.access.clients import HOST, lead
from tests.e2e.harness.cri import CriContainerd
from tests.e2e.harness.dockerd import Dockerd
from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import LabError, wait_until
from tests.fakes.registry_rights import basic

# The last one that dockerd asks, whatever mirrors there are: it is not to answer here.
_NO_HUB: Final = ["env", "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1"]
_HUB_ACCOUNT: Final = "https://index.docker.io/v1/"


class _ThisHost(Host):
    def inside(self, *argv: str) -> list[str]:
        return [*_NO_HUB, *argv]


class Docker:
    """An image of Docker Hub, by a mirror; the registry stands in for the Hub behind it: where the
    mirror refuses, dockerd asks there by itself. `docker login` was for the Hub."""

    name = "docker"

    def __init__(self, dockerd: Dockerd, work: Path) -> None:
        self._dockerd = dockerd
        self._work = work

    async def pull(self, user: str, repository: str, *, registry: str, mirror: str | None) -> bool:
        return await asyncio.to_thread(self._pull, user, repository, registry, mirror)

    def _pull(self, user: str, repository: str, registry: str, mirror: str | None) -> bool:
        self._mirrored([f"http://{mirror}", f"http://{registry}"] if mirror else [])
        reference = f"{repository}:1" if mirror else f"{registry}/{repository}:1"
        return self._pulled(reference, user, _HUB_ACCOUNT if mirror else registry)

    def _mirrored(self, mirrors: list[str]) -> None:
        (self._work / "daemon.json").write_text(json.dumps({"registry-mirrors": mirrors}))
        os.kill(self._dockerd.pid(), signal.SIGHUP)
        wanted = [f"{mirror}/" for mirror in mirrors]
        wait_until(lambda: self._dockerd.mirrors() == wanted, "mirrors of dockerd")

    def _pulled(self, reference: str, user: str, account: str) -> bool:
        """`account`: under what the client has that of its user, as `docker login` keeps it."""
        with contextlib.suppress(LabError):
            self._dockerd.command("rmi", "--force", reference)
        client = self._work / "client"
        client.mkdir(exist_ok=True)
        word = basic(user).partition(" ")[2]
        auths = {account: {"auth": word}} if user else {}
        (client / "config.json").write_text(json.dumps({"auths": auths}))
        try:
            self._dockerd.pull(reference, timeout_s=60.0)
        except LabError:
            return False
        self._dockerd.command("rmi", "--force", reference)
        return True


class DockerByPath(Docker):
    """`docker pull MIRROR/REGISTRY/app` after `docker login MIRROR`: there is no other way then."""

    name = "docker path"

    def _pull(self, user: str, repository: str, registry: str, mirror: str | None) -> bool:
        reference = f"{mirror}/{HOST}/{repository}:1" if mirror else f"{registry}/{repository}:1"
        return self._pulled(reference, user, mirror or registry)


@contextmanager
def running_dockerd(work: Path) -> Iterator[Dockerd]:
    """With `daemon.json` in `docker-here` below `work`."""
    work.mkdir()
    dockerd = Dockerd(_ThisHost("here", "", "127.0.0.1"), [], work)
    try:
        dockerd.start()
        yield dockerd
    finally:
        dockerd.process.stop()


class _Containerd(CriContainerd):
    """With a snapshotter that asks nothing of the file system below it."""

    def configure(self) -> None:
        cri = '[plugins."io.containerd.grpc.v1.cri"'
        self._config.write_text(
            f'version = 2\n{cri}.containerd]\n  snapshotter = "native"\n'
            f'{cri}.registry]\n  config_path = "{self.hosts}"\n'
        )


class Cri:
    """A kubelet gives a pod's account in `PullImage`, and names no server with it."""

    name = "cri"

    def __init__(self, containerd: CriContainerd) -> None:
        self._containerd = containerd

    async def pull(self, user: str, repository: str, *, registry: str, mirror: str | None) -> bool:
        return await asyncio.to_thread(self._pull, user, repository, mirror or registry)

    def _pull(self, user: str, repository: str, where: str) -> bool:
        lead(self._containerd.hosts, where)
        reference = f"{HOST}/{repository}:1"
        try:
            self._containerd.pull(reference, (user, f"{user}-secret") if user else None)
        except LabError:
            return False
        self._containerd.remove(reference)
        return True


@contextmanager
def running_cri(work: Path) -> Iterator[Cri]:
    work.mkdir()
    containerd = _Containerd(work, work / "none", work / "none", "http://127.0.0.1:1")
    shutil.rmtree(containerd.hosts / "_default")
    try:
        containerd.start()
        yield Cri(containerd)
    finally:
        containerd.stop()
