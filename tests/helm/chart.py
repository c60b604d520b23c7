"""Renders the chart with the real helm, and reads what comes out."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import yaml

from p2pdist.settings import Settings
from p2pdist.settings_load import load_settings
from tests.helm.cluster import Cluster, cluster_in

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "helm" / "p2pdist"
TOOLS: Final = ROOT / ".venv" / "helm"
# Of tests/helm/install_tools.sh; a helm that is built from its module believes in 1.20.
KUBERNETES: Final = "1.34.4"
NAMESPACE: Final = "images"
ROLES: Final = ("tracker", "proxy", "peer")

Values = dict[str, Any]
Manifest = dict[str, Any]


class HelmError(Exception):
    """What helm refused, in its words."""


def helm(*arguments: str, cluster: Cluster | None = None) -> str:
    argv = [str(TOOLS / "helm"), *arguments]
    environment = dict(os.environ)
    if cluster is not None:
        argv += ["--kubeconfig", str(cluster.kubeconfig)]
        environment["KUBECACHEDIR"] = str(cluster.kubeconfig.parent / "discovery")
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


@dataclass(frozen=True)
class Rendered:
    text: str

    @cached_property
    def manifests(self) -> list[Manifest]:
        parsed = yaml.load_all(self.text, Loader=yaml.CSafeLoader)
        return [manifest for manifest in parsed if manifest]

    def find(self, kind: str, suffix: str) -> Manifest:
        """The one manifest of this kind whose name ends so."""
        (found,) = (
            m
            for m in self.manifests
            if m["kind"] == kind and m["metadata"]["name"].endswith(suffix)
        )
        return found

    def config(self, role: str) -> str:
        return str(self.find("ConfigMap", f"-{role}")["data"]["config.toml"])

    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """The pod of each workload, by the workload's name."""
        for manifest in self.manifests:
            if manifest["kind"] in ("DaemonSet", "StatefulSet", "Job"):
                yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]

    def containers(self) -> Iterator[Manifest]:
        for _, pod in self.pods():
            yield from [*pod.get("initContainers", []), *pod["containers"]]


def release(values: Values | None, work: Path) -> list[str]:
    """The chart as a release, for a command of helm's; its values are put into `work`."""
    file = work / "values.yaml"
    file.write_text(yaml.safe_dump(values or {}))
    return ["p2pdist", str(CHART), "--namespace", NAMESPACE, "--values", str(file)]


def render(values: Values | None = None, *, work: Path) -> Rendered:
    """What the first install makes. Raises HelmError for values that the chart does not take."""
    options = ["--kube-version", KUBERNETES, "--dry-run=server"]
    with cluster_in(work) as cluster:
        return Rendered(helm("template", *release(values, work), *options, cluster=cluster))


def kubeconform(text: str) -> str:
    """What it says of manifests that it does not take; "" if it takes all."""
    schemas = f"{TOOLS}/schemas/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    argv = [str(TOOLS / "kubeconform"), "-strict", "-kubernetes-version", KUBERNETES]
    done = subprocess.run(
        [*argv, "-schema-location", schemas], input=text, capture_output=True, text=True
    )
    return done.stdout + done.stderr if done.returncode else ""


PRIVATE: Final[Values] = {
    "registries": [
        {
            "host": "registry.corp",
            "url": "https://registry.corp:5443",
            "access": "shared",
            "username": "robot",
            "passwordSecret": {"name": "registry-corp", "key": "password"},
            "caConfigMap": {"name": "corp-ca", "key": "ca.crt"},
            "allow_private": ["registry.corp:5443", "10.0.0.0/8"],
            "concurrency": 4,
        },
        {"host": "quay.io"},
        {
            "host": "ghcr.io",
            "access": "shared",
            "authSecret": {"name": "pull-secret", "key": ".dockerconfigjson"},
            "clientCertSecret": "proxy-cert",
        },
    ]
}
EVERYTHING: Final[Values] = PRIVATE | {
    "image": {"digest": f"sha256:{'a' * 64}", "pullSecrets": ["pull-secret"]},
    "dc": "fra1",
    "replicate": [{"name": "shop", "images": ["registry.corp/shop/api:*"], "poll": "5m"}],
    "runtime": {"certsDir": "/opt/containerd/certs.d", "tagsFromOrigin": True},
    "undo": {"nodeSelector": {"a": "b"}, "affinity": {"nodeAffinity": {}}},
    "peer": {
        "ports": {"mirror": 6300, "exchange": 6301, "admin": 6309},
        "settings": {
            "peer": {"upload_rate": 200_000_000, "direct": False},
            "host": {"rack": "r1", "labels": ["role=web"]},
            "store": {"max_bytes": 50_000_000_000, "high_watermark": 0.8, "low_watermark": 0.7},
        },
        "nodeSelector": {"pool": "web"},
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "initSecurityContext": {"seLinuxOptions": {"type": "spc_t"}},
    },
    "proxy": {
        "replicas": 3,
        "persistence": {"storageClass": "fast", "size": "200Gi"},
        "settings": {"proxy": {"parents": ["http://10.0.0.1:5100"], "tag_ttl_s": "10s"}},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "high",
    },
    "tracker": {
        "settings": {"tracker": {"federation": ["tcp://10.1.0.2:5200"]}},
        "persistence": {"enabled": False},
    },
    "networkPolicy": {"nodeCIDRs": ["10.0.0.0/16"], "federationCIDRs": ["10.1.0.0/16"]},
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "images"}},
    },
}
CERTIFICATES: Final[Values] = {
    "certificates": {"enabled": True, "caSecret": "our-ca", "joinSecret": "our-tokens"},
    "proxy": {"replicas": 3},
    "replicate": [{"name": "shop", "images": ["docker.io/library/redis:*"]}],
    "networkPolicy": EVERYTHING["networkPolicy"],
}
CASES: Final[dict[str, Values]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "private registries": PRIVATE,
    "one proxy without a disk": {"proxy": {"replicas": 1, "persistence": {"enabled": False}}},
    "secrets of one's own": {"secrets": {"cluster": "our-cluster", "proxyKey": "our-proxy"}},
    "mirrors set by others": {"runtime": {"install": False}},
    "certificates": CERTIFICATES,
    "IPv6": {"listenHost": "[::]", "peer": {"advertiseNodeIP": False}},
}


def module_of(file: Path) -> ModuleType:
    """A script of the chart, which no package holds."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def settings_in(file: Path) -> Settings:
    """The settings that a configuration file alone gives."""
    return load_settings(config=file, environ={}).settings
