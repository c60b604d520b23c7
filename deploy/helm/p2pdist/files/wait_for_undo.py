"""Waits until every node has taken the mirror back, then deletes the DaemonSet that did it.

Runs as a Job after `helm uninstall`, on the standard library alone. The
DaemonSet stays where that is not finished, for nodes that come back, and the message names them.
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER: Final = "https://kubernetes.default.svc"
REQUEST_TIMEOUT_S: Final = 10.0
POLL_S: Final = 2.0
NODES_NAMED: Final = 20

Json = dict[str, Any]


@dataclass(frozen=True)
class Progress:
    done: int
    wanted: int
    observed: bool
    """Whether the numbers are of this DaemonSet, not of one before its controller saw it."""

    @property
    def complete(self) -> bool:
        return self.observed and self.done >= self.wanted


def progress(daemonset: Json) -> Progress:
    """How many nodes are done, of how many."""
    status = daemonset.get("status", {})
    observed = status.get("observedGeneration", 0) >= daemonset["metadata"]["generation"]
    return Progress(status.get("numberReady", 0), status.get("desiredNumberScheduled", 0), observed)


def missing(pods: Json) -> list[str]:
    """The nodes that are not done, each with what its pod says."""
    return sorted(text for pod in pods.get("items", []) if (text := _trouble(pod)))


def _trouble(pod: Json) -> str:
    status = pod.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    node = pod.get("spec", {}).get("nodeName") or _wanted_node(pod) or "a node without its pod"
    for container in status.get("initContainerStatuses", []):
        for state in (container.get("state", {}), container.get("lastState", {})):
            ended = state.get("terminated")
            if ended and ended.get("exitCode"):
                return f"{node}: {container['name']} ended with {ended['exitCode']}"
            if waiting := state.get("waiting"):
                return f"{node}: {container['name']}: {waiting.get('reason', 'waits')}"
    return f"{node}: {conditions.get('PodScheduled', {}).get('message') or status.get('phase')}"


def _wanted_node(pod: Json) -> str:
    """The node that a DaemonSet's pod is for, where the scheduler has not placed it."""
    affinity = pod.get("spec", {}).get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in required.get("nodeSelectorTerms", []):
        for field in term.get("matchFields", []):
            if field.get("key") == "metadata.name":
                return ",".join(field.get("values", []))
    return ""


class Api:
    def __init__(self, server: str, account: Path) -> None:
        self._server = server
        self._account = account

    def call(self, method: str, path: str) -> Json:
        """Raises OSError: also for what the API refuses."""
        token = (self._account / "token").read_text().strip()
        request = urllib.request.Request(  # noqa: S310  # the cluster's own API
            self._server + path, method=method, headers={"Authorization": f"Bearer {token}"}
        )
        context = None
        if self._server.startswith("https:"):
            context = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
        with urllib.request.urlopen(  # noqa: S310
            request, timeout=REQUEST_TIMEOUT_S, context=context
        ) as answer:
            told: Json = json.load(answer)
            return told


def wait(
    api: Api,
    daemonset: str,
    pods: str,
    *,
    timeout_s: float,
    now_s: Callable[[], float],
    pause: Callable[[float], None],
) -> str:
    """Return "" once all nodes are done, else what is missing at the end of the time."""
    deadline_s = now_s() + timeout_s
    trouble = ""
    while now_s() < deadline_s:
        try:
            seen = progress(api.call("GET", daemonset))
            if seen.complete:
                return ""
            trouble = f"{seen.done} of {seen.wanted} nodes are done"
        except OSError as error:
            trouble = f"the API does not answer: {error}"
        pause(POLL_S)
    try:
        nodes = missing(api.call("GET", pods))
    except OSError as error:
        return f"{trouble}; the pods cannot be listed: {error}"
    more = [f"and {len(nodes) - NODES_NAMED} more"] if len(nodes) > NODES_NAMED else []
    return "\n  ".join([trouble, *nodes[:NODES_NAMED], *more])


def main(
    arguments: Sequence[str] | None = None,
    *,
    now_s: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--daemonset", required=True)
    parser.add_argument("--selector", required=True, help="of the DaemonSet's pods")
    parser.add_argument("--timeout-s", type=float, required=True)
    parser.add_argument("--server", default=SERVER)
    parser.add_argument("--account", type=Path, default=ACCOUNT)
    given = parser.parse_args(arguments)
    api = Api(given.server, given.account)
    daemonset = f"/apis/apps/v1/namespaces/{given.namespace}/daemonsets/{given.daemonset}"
    query = urllib.parse.urlencode({"labelSelector": given.selector})
    pods = f"/api/v1/namespaces/{given.namespace}/pods?{query}"
    trouble = wait(api, daemonset, pods, timeout_s=given.timeout_s, now_s=now_s, pause=pause)
    if not trouble:
        try:
            api.call("DELETE", daemonset)
        except OSError as error:
            trouble = f"all nodes are done, and the DaemonSet cannot be deleted: {error}"
    if trouble:
        sys.stderr.write(
            f"after {given.timeout_s:.0f} s: {trouble}\n"
            "What is left of the mirror there costs nothing: containerd asks the registry itself "
            "when no peer answers.\nThe DaemonSet stays and goes on, for nodes that come back too. "
            "When it is ready everywhere, or those nodes are gone for good:\n"
            f"  kubectl --namespace {given.namespace} delete daemonset {given.daemonset}\n"
        )
        return 1
    sys.stdout.write("the mirror is taken back on every node\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
