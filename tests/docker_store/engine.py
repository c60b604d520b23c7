"""A dockerd that keeps its images in a containerd with the snapshotter."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import ClassVar, Final

from tests.e2e.harness.cri import CriContainerd
from tests.e2e.harness.places import Place
from tests.e2e.harness.processes import LabError, Process

NAMESPACE: Final = "moby"
COMMAND_S: Final = 120.0


class DockerStore(CriContainerd):
    """containerd and dockerd in one place."""

    namespaces: ClassVar[tuple[str, ...]] = (NAMESPACE,)

    def __init__(
        self, work: Path, snapshotter: Path, snapshots: Path, mirror_url: str, *, place: Place
    ) -> None:
        super().__init__(work, snapshotter, snapshots, mirror_url, place=place)
        self._work = work
        self._docker_socket = work / "d.sock"
        config = work / "daemon.json"
        config.write_text(
            json.dumps(
                {
                    "features": {"containerd-snapshotter": True},
                    "storage-driver": "p2pdist",
                    "registry-mirrors": [mirror_url],
                }
            )
        )
        places = {
            "--config-file": config,
            "--containerd": self.socket,
            "--data-root": work / "docker",
            "--exec-root": work / "exec",
            "--pidfile": work / "d.pid",
            "-H": f"unix://{self._docker_socket}",
        }
        alone = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false"]
        flags = [str(word) for pair in places.items() for word in pair]
        self._dockerd_argv = ["/usr/sbin/dockerd", *alone, *flags]
        self.dockerd: Process | None = None

    def start(self) -> None:
        super().start()
        self.start_dockerd()

    def start_dockerd(self) -> None:
        argv = self.place.inside(*self._dockerd_argv)
        self.dockerd = Process("dockerd", argv, self._work / "dockerd.log")
        self.dockerd.start()
        self.dockerd.wait_ready(self._docker_answers, timeout_s=60.0)

    def stop(self) -> None:
        if self.dockerd is not None:
            self.dockerd.stop()
        super().stop()

    def docker(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        """Run a `docker` command; return its stdout, raise LabError with its stderr."""
        env = {"DOCKER_CONFIG": str(self._work / "client"), "DOCKER_CONTEXT": "", "DOCKER_HOST": ""}
        words = ["/usr/bin/docker", "-H", f"unix://{self._docker_socket}", *arguments]
        return self.place.run(*words, timeout_s=timeout_s, env=env)

    def run_image(self, *words: str) -> str:
        """Run a container of it in no network, and return what it prints."""
        return self.docker("run", "--rm", "--network", "none", *words)

    def version(self) -> tuple[int, ...]:
        told = self.docker("version", "--format", "{{.Server.Version}}")
        return tuple(int(part) for part in told.partition("+")[0].split("."))

    def _docker_answers(self) -> bool:
        with contextlib.suppress(LabError):
            self.docker("version")
            return True
        return False


class PushTarget:
    """A registry that takes pushes, on loopback of this machine."""

    def __init__(self, work: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        config = work / "registry.yml"
        config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "storage": {"filesystem": {"rootdirectory": str(work / "pushed")}},
                    "http": {"addr": self.endpoint},
                }
            )
        )
        argv = ["docker-registry", "serve", str(config)]
        self.process = Process("docker-registry", argv, work / "registry.log")

    def start(self) -> None:
        self.process.start()
        self.process.wait_ready(self._answers)

    def _answers(self) -> bool:
        host, _, port = self.endpoint.partition(":")
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), 5).close()
            return True
        return False
