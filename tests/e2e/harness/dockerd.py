"""Docker daemons of their own: data, runtime state, socket and mounts apart from the machine's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import LabError, Process, run

# PATH may hold a newer client that speaks another API version.
DOCKER: Final = "/usr/bin/docker"
DOCKERD: Final = "/usr/sbin/dockerd"
SOCKET_PATH_MAX: Final = 107
# In a mount namespace of its own, dockerd's overlay mounts vanish with it, it finds no containerd
# of the machine to share, and neither its runtime state nor its key stays behind.
_ISOLATED: Final = """
mkdir -p /etc/docker
for dir in /run /etc/docker; do mount -t tmpfs tmpfs "$dir"; done
exec "$@"
"""


class Dockerd:
    """A dockerd on a host, with registry mirrors for Docker Hub, tried in their order."""

    def __init__(
        self,
        host: Host,
        mirrors: Sequence[str],
        work: Path,
        *,
        config: Path | None = None,
        networking: bool = False,
        **settings: object,
    ) -> None:
        """`settings` are further keys of daemon.json, with underscores for hyphens; `config` is
        one that is there already, in place of all that. `networking`: containers get networks, by
        bridges and iptables rules in the namespace of the host.
        """
        self._networking = networking
        self._work = work / f"docker-{host.name}"
        self._work.mkdir(mode=0o711)
        self._socket = self._work / "d.sock"
        assert len(str(self._socket)) < SOCKET_PATH_MAX
        if config is None:
            config = self._work / "daemon.json"
            further = {key.replace("_", "-"): value for key, value in settings.items()}
            config.write_text(json.dumps({"registry-mirrors": [*mirrors], **further}))
        self.pid_file = self._work / "d.pid"
        isolated = ["unshare", "--mount", "sh", "-euc", _ISOLATED, "sh", *self._argv(config)]
        self.process = Process(
            f"dockerd of {host.name}", host.inside(*isolated), work / f"dockerd-{host.name}.log"
        )

    def start(self) -> None:
        self.process.start()
        self.process.wait_ready(self._answers, timeout_s=60.0)

    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def mirrors(self) -> list[str]:
        """The mirrors that are in force."""
        shown = self.command("info", "--format", "{{json .RegistryConfig.Mirrors}}")
        return list(json.loads(shown) or [])

    @property
    def endpoint(self) -> str:
        """What clients take as DOCKER_HOST."""
        return f"unix://{self._socket}"

    def pull(self, reference: str, *, timeout_s: float = 180.0) -> str:
        """Pull as `docker pull` does; return what it prints."""
        return self.command("pull", reference, timeout_s=timeout_s)

    def start_pull(self, reference: str) -> subprocess.Popen[bytes]:
        """Start a `docker pull` that the caller ends, or waits for."""
        argv = [DOCKER, "-H", self.endpoint, "pull", reference]
        env = {**os.environ, "DOCKER_CONFIG": str(self._work / "client"), "DOCKER_HOST": ""}
        quiet = subprocess.DEVNULL
        return subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, env=env)

    def image_id(self, reference: str) -> str:
        """Return the digest of the image's config."""
        return self.command("image", "inspect", "--format", "{{.Id}}", reference).strip()

    def repo_digest(self, reference: str) -> str:
        """Return the digest that the reference stood for, of an index where there is one."""
        shown = self.command("image", "inspect", "--format", "{{index .RepoDigests 0}}", reference)
        return shown.strip().partition("@")[2]

    def run(self, reference: str) -> str:
        """Run the image's own command in a container without network; return what it prints."""
        return self.command("run", "--rm", "--network", "none", reference).strip()

    def storage_driver(self) -> str:
        return self.command("info", "--format", "{{.Driver}}").strip()

    def command(self, *args: str, timeout_s: float = 60.0) -> str:
        """Run a `docker` command; return its stdout, raise LabError with its stderr."""
        env = {"DOCKER_CONFIG": str(self._work / "client"), "DOCKER_CONTEXT": "", "DOCKER_HOST": ""}
        return run([DOCKER, "-H", self.endpoint, *args], timeout_s=timeout_s, env=env)

    def _answers(self) -> bool:
        if not self._socket.exists():
            return False
        with contextlib.suppress(LabError):
            self.command("version")
            return True
        return False

    def _argv(self, config: Path) -> list[str]:
        places = {
            "--config-file": config,
            "--data-root": self._work / "data",
            "--exec-root": self._work / "exec",
            "--pidfile": self.pid_file,
            "-H": self.endpoint,
        }
        alone = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false"]
        flags = [] if self._networking else alone
        return [DOCKERD, *flags, *(str(word) for pair in places.items() for word in pair)]
