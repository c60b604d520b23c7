"""The other clients of a mirror: containerd, Podman, Buildah and Skopeo, each with its own state.

They name the registry themselves: containerd in `?ns=`, the others in the path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import LabError, Process, run

CONTAINERD: Final = "/usr/bin/containerd"
PULL_S: Final = 240.0
# A mount namespace of its own: overlay mounts vanish with it, nothing stays in /run.
_ISOLATED: Final = 'mount -t tmpfs tmpfs /run; exec "$@"'


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a client holds after a pull: digests of its own telling, or of its own files."""

    manifest: str
    """Of linux/amd64, or of the index where the client keeps that."""
    config: str
    """What is called the image ID."""


class Client(Protocol):
    """Pulls by reference through the mirror that it was made with."""

    name: str

    def pull(self, reference: str) -> Pulled:
        """Pull `registry/repository:tag`; raise LabError with what the client said."""
        ...


class Containerd:
    """A containerd, asked with `ctr`; `mirror_url` goes into a hosts.toml of every registry."""

    name = "containerd"

    def __init__(
        self,
        host: Host,
        mirror_url: str,
        work: Path,
        *,
        server: str | None = None,
        certs: Path | None = None,
    ) -> None:
        self._host = host
        self._work = work / f"containerd-{host.name}"
        hosts = self._work / "certs.d" / "_default"
        hosts.mkdir(parents=True)
        first = f'[host."{mirror_url}"]\n  capabilities = ["pull", "resolve"]\n'
        then = f'server = "{server}"\n' if server else ""
        (hosts / "hosts.toml").write_text(f'{then}{first}  dial_timeout = "1s"\n')
        self.certs = certs or self._work / "certs.d"
        self.socket = self._work / "c.sock"
        config = self._work / "config.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        places = ["--root", self._work / "root", "--state", self._work / "state"]
        places += ["--address", self.socket, "--config", config]
        argv = ["unshare", "--mount", "sh", "-euc", _ISOLATED, "sh", CONTAINERD]
        argv += [str(word) for word in places]
        log = work / f"containerd-{host.name}.log"
        self.process = Process(f"containerd of {host.name}", host.inside(*argv), log)

    def start(self) -> None:
        self.process.start()
        self.process.wait_ready(self._answers)

    def pull(self, reference: str) -> Pulled:
        hosts = ["--hosts-dir", str(self.certs)]
        # ctr unpacks through the daemon, whose mounts only the daemon sees.
        self._ctr("images", "pull", *hosts, "--snapshotter", "native", reference)
        index = self._index_digest(reference)
        manifests = json.loads(self._ctr("content", "get", index))["manifests"]
        mine = next(m for m in manifests if m["platform"]["architecture"] == "amd64")
        manifest = json.loads(self._ctr("content", "get", mine["digest"]))
        return Pulled(mine["digest"], manifest["config"]["digest"])

    def complete(self, reference: str) -> bool:
        """Every blob of the image lies in the content store, and it is unpacked."""
        line = self._ctr("images", "check", f"name=={reference}", "--snapshotter", "native")
        return "complete" in line and "incomplete" not in line and "true" in line

    def _index_digest(self, reference: str) -> str:
        line = self._ctr("images", "list", f"name=={reference}").splitlines()[1]
        return next(word for word in line.split() if word.startswith("sha256:"))

    def _ctr(self, *args: str) -> str:
        return self._host.run("ctr", "--address", str(self.socket), *args, timeout_s=PULL_S)

    def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        with contextlib.suppress(LabError):
            self._ctr("version")
            return True
        return False


def _registries_conf(work: Path, mirror_url: str, registries: Mapping[str, str]) -> Path:
    """A registries.conf in which each of `registries` (name: location) has the mirror first.

    In the mirror's location a port is written with an underscore: a colon is refused there.
    """
    mirror = mirror_url.partition("//")[2]
    text = "".join(
        f'[[registry]]\nprefix = "{name}"\nlocation = "{location}"\n'
        f"insecure = {'true' if location != name else 'false'}\n[[registry.mirror]]\n"
        f'location = "{mirror}/{name.replace(":", "_")}"\ninsecure = true\n'
        for name, location in registries.items()
    )
    path = work / "registries.conf"
    path.write_text(text)
    return path


class _ContainersImage:
    """What Podman, Buildah and Skopeo share: the library that reads registries.conf."""

    name = ""

    def __init__(
        self,
        host: Host,
        mirror_url: str,
        work: Path,
        registries: Mapping[str, str] = MappingProxyType({"docker.io": "docker.io"}),
    ) -> None:
        self._host = host
        self._work = work / f"{self.name}-{host.name}"
        self._work.mkdir()
        self._registries = _registries_conf(self._work, mirror_url, registries)
        self._policy = self._work / "policy.json"
        self._policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (self._work / "auth.json").write_text("{}")

    def _run(self, *argv: str) -> str:
        isolated = ["unshare", "--mount", "sh", "-euc", _ISOLATED, "sh", *argv]
        env = {
            "CONTAINERS_REGISTRIES_CONF": str(self._registries),
            "REGISTRY_AUTH_FILE": str(self._work / "auth.json"),
            "TMPDIR": str(self._work),
        }
        return run(self._host.inside(*isolated), timeout_s=PULL_S, env=env)

    def _storage(self) -> list[str]:
        root, run_root = str(self._work / "root"), str(self._work / "run")
        return ["--root", root, "--runroot", run_root, "--storage-driver", "overlay"]


class Podman(_ContainersImage):
    name = "podman"

    def pull(self, reference: str) -> Pulled:
        self._podman("pull", "--quiet", "--signature-policy", str(self._policy), reference)
        inspected = json.loads(self._podman("image", "inspect", reference))[0]
        return Pulled(inspected["Digest"], f"sha256:{inspected['Id']}")

    def _podman(self, *args: str) -> str:
        quiet = ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        return self._run("podman", *self._storage(), *quiet, *args)


class Buildah(_ContainersImage):
    name = "buildah"

    def pull(self, reference: str) -> Pulled:
        self._buildah("pull", "--quiet", "--signature-policy", str(self._policy), reference)
        inspected = json.loads(self._buildah("inspect", "--type", "image", reference))
        return Pulled(inspected["FromImageDigest"], f"sha256:{inspected['FromImageID']}")

    def _buildah(self, *args: str) -> str:
        return self._run("buildah", *self._storage(), *args)


class Skopeo(_ContainersImage):
    """Copies to a directory; the digests are those of the files that lie there."""

    name = "skopeo"

    def pull(self, reference: str) -> Pulled:
        target = self._work / "image"
        options = ["--policy", str(self._policy), "--registries-conf", str(self._registries)]
        self._run("skopeo", *options, "copy", f"docker://{reference}", f"dir:{target}")
        body = (target / "manifest.json").read_bytes()
        manifest = json.loads(body)
        for descriptor in (manifest["config"], *manifest["layers"]):
            name = descriptor["digest"].removeprefix("sha256:")
            with (target / name).open("rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == name
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        return Pulled(digest, manifest["config"]["digest"])
