"""The API of a cluster with nothing behind it: it keeps what helm says, and what was changed."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.helm import wire

Json = dict[str, Any]

KINDS: Final = {
    "v1": ("ConfigMap", "Pod", "Secret", "Service", "ServiceAccount"),
    "apps/v1": ("DaemonSet", "StatefulSet"),
    "batch/v1": ("Job",),
    "monitoring.coreos.com/v1": ("PodMonitor", "PrometheusRule"),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
}
# Of a StatefulSet's spec.
MUTABLE: Final = {"persistentVolumeClaimRetentionPolicy", "replicas", "template", "updateStrategy"}
# Where helm keeps its releases.
RELEASE_TYPE: Final = "helm.sh/release.v1"


def _plural(kind: str) -> str:
    return kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")


def _discovery(path: str) -> Json | None:
    """Which kinds there are."""
    groups = [version for version in KINDS if "/" in version]
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.4"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        versions = [{"groupVersion": g, "version": g.partition("/")[2]} for g in groups]
        listed = [
            {"name": g.partition("/")[0], "versions": [v], "preferredVersion": v}
            for g, v in zip(groups, versions, strict=True)
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in KINDS:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    resources = [
        {"name": _plural(k), "singularName": "", "kind": k, "namespaced": True, "verbs": verbs}
        for k in KINDS[version]
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def _openapi(path: str) -> Json | None:
    """That the API checks fields itself, of every kind: helm then leaves it to it."""
    places = {("apis/" if "/" in version else "api/") + version: version for version in KINDS}
    if path == "/openapi/v3":
        return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}"} for p in places}}
    if (version := places.get(path.removeprefix("/openapi/v3/"))) is None:
        return None
    group, _, name = version.rpartition("/")
    paths = {}
    for kind in KINDS[version]:
        named = {"group": group, "version": name, "kind": kind}
        checked = {"name": "fieldValidation", "in": "query"}
        change = {"parameters": [checked], "x-kubernetes-group-version-kind": named}
        paths[f"/{kind}"] = {"patch": change}
    return {"openapi": "3.0.0", "paths": paths}


def merged(held: Json, patch: Json) -> Json:
    """What a strategic merge patch makes of an object; lists name their key in their order."""
    made = copy.deepcopy(held)
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        order = patch.get(f"$setElementOrder/{key}")
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict):
            made[key] = merged(made.get(key) or {}, value)
        elif order and isinstance(order[0], dict):
            made[key] = _merged_list(made.get(key, []), value, order)
        else:
            made[key] = value
    return made


def _merged_list(held: list[Json], patch: list[Json], order: list[Json]) -> list[Json]:
    (by,) = order[0]
    entries = {entry[by]: entry for entry in held}
    for entry in patch:
        entries[entry[by]] = merged(entries.get(entry[by], {}), entry)
    return [entries[entry[by]] for entry in order]


class Cluster:
    """Objects by their path, and the requests that changed some."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.changes: list[str] = []
        self.run_job: Callable[[Json], str] = lambda _: ""
        """Does what a Job does; returns what its pod says before it fails, or nothing."""
        self.said: dict[str, str] = {}
        """What the pods of failed Jobs said, by the path of their log."""
        self.url = ""
        self.kubeconfig = Path()

    def kept(self) -> dict[str, Json]:
        """The objects by kind and name, without the notes that helm makes of its releases."""
        return {_name(o): o for o in self.objects.values() if o.get("type") != RELEASE_TYPE}

    def changed(self) -> list[str]:
        """What was done to them since this was asked last, in its order: `create Kind/name`."""
        changes, self.changes = self.changes, []
        return changes

    def create(self, path: str, sent: Json) -> tuple[int, Json]:
        path = f"{path}/{sent['metadata']['name']}"
        if path in self.objects:
            return _status(HTTPStatus.CONFLICT, "AlreadyExists")
        self.objects[path] = sent
        self._note("create", sent)
        if sent["kind"] == "Job":
            self._finish(path, sent)
        return HTTPStatus.CREATED, sent

    def change(self, method: str, path: str, sent: Json) -> tuple[int, Json]:
        if path not in self.objects:
            return _status(HTTPStatus.NOT_FOUND, "NotFound")
        if method == "DELETE":
            self._note("delete", self.objects[path])
            return HTTPStatus.OK, self.objects.pop(path)
        held = self.objects[path]
        made = sent if method == "PUT" else merged(held, sent)
        if _fixed(made) != _fixed(held):
            return _status(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid")
        self.objects[path] = made
        if made != held:
            self._note("change", held)
        return HTTPStatus.OK, made

    def read(self, path: str, query: dict[str, str]) -> tuple[int, Json]:
        if path in self.objects:
            return HTTPStatus.OK, self.objects[path]
        place, _, plural = path.rpartition("/")
        version = place.partition("/namespaces/")[0].removeprefix("/apis/").removeprefix("/api/")
        kinds = {_plural(kind): kind for kind in KINDS.get(version, ())}
        if plural not in kinds:
            return _status(HTTPStatus.NOT_FOUND, "NotFound")
        items = [
            item
            for at, item in self.objects.items()
            if at.rpartition("/")[0] == path and _selected(item, query)
        ]
        if plural == "pods":
            items += [_pod(log) for log in self.said]
        head = {"kind": f"{kinds[plural]}List", "apiVersion": version}
        return HTTPStatus.OK, {**head, "metadata": {"resourceVersion": "1"}, "items": items}

    def _finish(self, path: str, job: Json) -> None:
        """A Job is over as soon as it is there. The pod of one that failed goes with it."""
        said = self.run_job(job)
        condition = {"type": "Failed" if said else "Complete", "status": "True"}
        job["status"] = {"conditions": [condition | {"reason": "BackoffLimitExceeded"}]}
        if said:
            namespace = path.partition("/namespaces/")[2].partition("/")[0]
            pod = f"{job['metadata']['name']}-pod"
            self.said[f"/api/v1/namespaces/{namespace}/pods/{pod}/log"] = said

    def _note(self, what: str, item: Json) -> None:
        if item.get("type") != RELEASE_TYPE:
            self.changes.append(f"{what} {_name(item)}")


def _pod(log: str) -> Json:
    _, namespace, _, name, _ = log.rsplit("/", 4)
    metadata = {"name": name, "namespace": namespace}
    containers = [{"name": "of-the-job"}]
    return {"kind": "Pod", "metadata": metadata, "spec": {"containers": containers}}


def _name(item: Json) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"


def _fixed(item: Json) -> Json:
    """What no update of it may change."""
    if item["kind"] == "DaemonSet":
        return {"selector": item["spec"]["selector"]}
    if item["kind"] == "StatefulSet":
        return {key: value for key, value in item["spec"].items() if key not in MUTABLE}
    return {}


def _status(code: HTTPStatus, reason: str) -> tuple[int, Json]:
    failure = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason}
    return code, failure | {"code": int(code), "message": reason}


def _selected(item: Json, query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels", {})
    wanted = [pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair]
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return name in ("", item["metadata"]["name"]) and all(labels.get(k) == v for k, v in wanted)


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one segment: two of them wait for each other's acknowledgement

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            if query.get("watch"):  # what there is was listed, and nothing changes by itself
                self._say(*_status(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid"))
            elif url.path in cluster.said:
                self._send(HTTPStatus.OK, "text/plain", cluster.said[url.path].encode())
            elif (found := _discovery(url.path) or _openapi(url.path)) is not None:
                self._say(HTTPStatus.OK, found)
            else:
                self._say(*cluster.read(url.path, query))

        def do_POST(self) -> None:
            self._say(*cluster.create(urlsplit(self.path).path, self._sent()))

        def do_DELETE(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._say(*cluster.change("DELETE", urlsplit(self.path).path, {}))

        def do_PATCH(self) -> None:
            self._say(*cluster.change("PATCH", urlsplit(self.path).path, self._sent()))

        def do_PUT(self) -> None:
            self._say(*cluster.change("PUT", urlsplit(self.path).path, self._sent()))

        def _sent(self) -> Json:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if body.startswith(wire.MAGIC):
                return wire.secret(body)
            sent: Json = json.loads(body)
            return sent

        def _say(self, code: int, body: Json) -> None:
            self._send(code, "application/json", json.dumps(body).encode())

        def _send(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    return Handler


@contextmanager
def cluster_in(work: Path) -> Iterator[Cluster]:
    """A cluster without any object, with its kubeconfig in `work`."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
        "clusters": [{"name": "here", "cluster": {"server": cluster.url}}],
        "users": [{"name": "nobody", "user": {}}],
    }
    cluster.kubeconfig = work / f"kubeconfig-{server.server_port}"
    cluster.kubeconfig.write_text(json.dumps(config))  # JSON is YAML
    cluster.kubeconfig.chmod(0o600)
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
