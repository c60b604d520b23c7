"""A pod of the chart as processes on a host of the lab: its files, and what its containers run."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.e2e.harness.lab import Lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import Daemon
from tests.helm.chart import ROOT, Manifest, Rendered

Secrets = dict[str, dict[str, bytes]]
"""What is in the namespace: name -> key -> value. Changed, a pod sees it when it starts again."""
KINDS: Final = {"peer": "DaemonSet", "proxy": "StatefulSet", "tracker": "StatefulSet"}


def made_secrets(rendered: Rendered) -> Secrets:
    """The Secrets that the chart makes itself."""
    return {
        m["metadata"]["name"]: {k: base64.b64decode(v) for k, v in m["data"].items()}
        for m in rendered.manifests
        if m["kind"] == "Secret"
    }


class Pod:
    """Of one workload, on one host. Volumes that stay are what lies below `root` already.

    Paths of containers are below `root`, and names of the cluster addresses of the lab; all else
    is as it was rendered.
    """

    def __init__(
        self, rendered: Rendered, role: str, lab: Lab, host: Host, names: Mapping[str, str]
    ) -> None:
        self.root = lab.work / f"{role}-{host.name}"
        self._manifest = rendered.find(KINDS[role], f"-{role}")
        self._config = rendered.config(role)
        self._role, self._lab, self._host = role, lab, host
        self._names = dict(names)
        self._daemon: Daemon | None = None

    @property
    def identity(self) -> Path:
        return self.root / "var/lib/p2pdist/identity"

    def containers(self, kind: str) -> dict[str, Manifest]:
        return {c["name"]: c for c in self._spec[kind]}

    def mount(self, secrets: Secrets) -> None:
        """Put in place what the kubelet would, of the volumes that containers see."""
        (self.root / "var/lib/p2pdist").mkdir(mode=0o700, parents=True, exist_ok=True)
        everyone = [*self._spec["initContainers"], *self._spec["containers"]]
        places = {m["name"]: m["mountPath"] for c in everyone for m in c["volumeMounts"]}
        for volume in self._spec["volumes"]:
            if "secret" in volume:
                self._secret(volume["secret"], self._inside(places[volume["name"]]), secrets)
        (self.root / "etc").mkdir(exist_ok=True)
        self._file.write_text(self._here(self._config))

    def _secret(self, source: Manifest, place: Path, secrets: Secrets) -> None:
        held = secrets.get(source["secretName"])
        assert held is not None or source.get("optional"), "the pod would not start"
        items = source.get("items") or [{"key": key, "path": key} for key in held or {}]
        place.mkdir(parents=True, exist_ok=True)
        for item in items:
            file = place / item["path"]
            file.unlink(missing_ok=True)
            if held is not None and (item["key"] in held or not source.get("optional")):
                file.write_bytes(held[item["key"]])
                file.chmod(source["defaultMode"])

    def certified(self) -> subprocess.CompletedProcess[str]:
        """Run the init container that gets the certificate."""
        container = self.containers("initContainers")["certificate"]
        words = [self._here(word) for word in container["args"]]
        argv = self._host.inside(sys.executable, "-m", "p2pdist.cli.main", *words)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60)

    def start(self) -> Daemon:
        (container,) = self._spec["containers"]
        assert container["args"] == [self._role]
        variables = {
            entry["name"]: self._here(entry["value"])
            for entry in container.get("env", [])
            if "value" in entry
        }
        variables["P2PDIST_HOST__STATE_DIR"] = str(self._inside("/var/lib/p2pdist"))
        log = self._lab.work / f"{self._role}-{self._host.name}.log"
        state = self._inside("/var/lib/p2pdist") / self._role
        self._daemon = Daemon(self._role, self._host, self._file, log, state)
        self._lab.own(self._daemon.process)
        self._daemon.start(variables)
        return self._daemon

    @property
    def _spec(self) -> Manifest:
        spec: Manifest = self._manifest["spec"]["template"]["spec"]
        return spec

    @property
    def _file(self) -> Path:
        return self.root / "etc/config.toml"

    def _inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _here(self, text: str) -> str:
        name = self._manifest["metadata"]["name"]
        told = {
            "$(NODE_NAME)": self._host.name,
            "$(NODE_IP)": self._host.address,
            "$(POD_NAME)": f"{name}-0",
        } | self._names
        for word, meant in told.items():
            text = text.replace(word, meant)
        for path in ("/run/p2pdist", "/var/lib/p2pdist"):
            text = text.replace(path, str(self._inside(path)))
        return text
