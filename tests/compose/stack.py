"""The compose file of this repository, up on a Docker daemon of its own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.compose.base_images import PROMETHEUS_NAME, REGISTRY_NAME
from tests.e2e.harness.dockerd import Dockerd
from tests.e2e.harness.image import Image
from tests.e2e.harness.mirror import Mirror
from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import LabError, wait_until
from tests.e2e.harness.registry import Registry

REPOSITORY_ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = "p2pdist"
LOOPBACK: Final = "127.0.0.1"
PEER_PORTS: Final = {"peer1": 5300, "peer2": 5310}
BUILD_S: Final = 300.0
UP_S: Final = 240.0
DOWN_S: Final = 120.0
# What a Docker daemon has before anything was started.
OWN_NETWORKS: Final = {"bridge", "host", "none"}


class Stack:
    """Runs docker-compose as its users do; published ports are on loopback of `host`."""

    def __init__(self, dockerd: Dockerd, host: Host, work: Path) -> None:
        self.dockerd = dockerd
        self.host = replace(host, address=LOOPBACK)
        self._work = work

    def build(self) -> None:
        self.compose("build", timeout_s=BUILD_S)

    def up(self) -> None:
        """Start everything; return when all that has a health check is healthy."""
        try:
            self.compose("up", "-d", "--no-build", timeout_s=UP_S)
            wait_until(self._all_healthy, "healthy containers", timeout_s=UP_S)
        except LabError as error:
            raise LabError(f"{error}\n{self.logs()}") from None

    def down(self) -> None:
        self.compose("down", "-v", timeout_s=DOWN_S)

    def leftovers(self) -> list[str]:
        """Return the containers, volumes and networks that are there."""
        lists = (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "--format", "{{.Name}}"))
        found = [name for words in lists for name in self.dockerd.command(*words).split()]
        return [name for name in found if name not in OWN_NETWORKS]

    def push(self, image: Image, reference: str) -> None:
        """Put `image` into the registry, through its published port."""
        Registry(self.host, self._work, self._work).push(image, reference)

    def mirror(self, peer: str) -> Mirror:
        return Mirror(self.host, LOOPBACK, PEER_PORTS[peer])

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` says of each service's container."""
        ids = self.dockerd.command("ps", "-aq", "--filter", f"label={_LABEL}.project={PROJECT}")
        if not ids.split():
            return {}
        inspected = json.loads(self.dockerd.command("inspect", *ids.split()))
        return {one["Config"]["Labels"][f"{_LABEL}.service"]: one for one in inspected}

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail=20")

    def compose(self, *args: str, timeout_s: float = 60.0) -> str:
        """Run docker-compose on the file at the root; raise LabError for a failure."""
        argv = ["docker-compose", "--project-name", PROJECT, "--file", str(_FILE), *args]
        done = subprocess.run(
            argv,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            ends = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            raise LabError(f"docker-compose {' '.join(args)}: exit {done.returncode}\n{ends}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        # No variable of the caller's reaches the compose file or the client.
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._work),
            "DOCKER_HOST": self.dockerd.endpoint,
            "REGISTRY_IMAGE": REGISTRY_NAME,
            "PROMETHEUS_IMAGE": PROMETHEUS_NAME,
        }

    def _all_healthy(self) -> bool:
        containers = self.containers().values()
        states = [one["State"] for one in containers if "Health" in one["State"]]
        return bool(states) and all(state["Health"]["Status"] == "healthy" for state in states)


_LABEL: Final = "com.docker.compose"
_FILE: Final = REPOSITORY_ROOT / "docker-compose.yml"
