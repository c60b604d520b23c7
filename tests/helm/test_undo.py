"""The Job that keeps `helm uninstall` waiting, against an API that says what the test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.helm.chart import CHART, module_of, render

DAEMONSET = "/apis/apps/v1/namespaces/images/daemonsets/p2pdist-undo"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return module_of(CHART / "files" / "wait_for_undo.py")


class FakeApi:
    """Serves the DaemonSet's states one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []
        self.pods: list[dict[str, Any]] = []
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append(f"GET {self.path}")
                if self.headers["Authorization"] != "Bearer token":
                    self.send_error(401)
                elif self.path == DAEMONSET:
                    if api.states:
                        self._say(api.states.pop(0) if len(api.states) > 1 else api.states[0])
                    else:
                        self.send_error(503)
                else:
                    self._say({"items": api.pods})

            def do_DELETE(self) -> None:
                api.asked.append(f"DELETE {self.path}")
                self._say({})

            def _say(self, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    thread = threading.Thread(target=fake.server.serve_forever)
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


def state(done: int, wanted: int, *, seen: int = 1) -> dict[str, Any]:
    status = {"numberReady": done, "desiredNumberScheduled": wanted, "observedGeneration": seen}
    return {"metadata": {"generation": 1}, "status": status}


def run(script: ModuleType, api: FakeApi, tmp_path: Path) -> int:
    """The script with the arguments of the chart and a clock that pauses move."""
    (tmp_path / "token").write_text("token\n")
    rendered = render({"undo": {"timeoutSeconds": 60}}, work=tmp_path)
    (container,) = rendered.find("Job", "-undo-wait")["spec"]["template"]["spec"]["containers"]
    now_s = [0.0]

    def pause(seconds: float) -> None:
        now_s[0] += seconds

    arguments = [*container["command"][2:], f"--server={api.url}", f"--account={tmp_path}"]
    code: int = script.main(arguments, now_s=lambda: now_s[0], pause=pause)
    return code


def test_it_ends_when_every_node_is_done_and_takes_the_daemonset_away(
    script: ModuleType, api: FakeApi, tmp_path: Path
) -> None:
    api.states = [state(0, 0, seen=0), state(1, 3), state(3, 3)]

    assert run(script, api, tmp_path) == 0
    assert api.asked == [f"GET {DAEMONSET}"] * 3 + [f"DELETE {DAEMONSET}"]


def test_it_gives_up_with_the_nodes_that_are_missing_and_leaves_the_daemonset(
    script: ModuleType, api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.states = [state(1, 4)]
    failing = {"name": "runtime", "state": {"terminated": {"exitCode": 2}}}
    place = {"matchFields": [{"key": "metadata.name", "values": ["node-c"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [place]}}
    unplaced = {"type": "PodScheduled", "status": "False", "message": "a peer is there"}
    api.pods = [
        {"spec": {"nodeName": "node-a"}, "status": {"initContainerStatuses": [failing]}},
        {
            "spec": {"nodeName": "node-b"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        },
        {"spec": {"affinity": {"nodeAffinity": required}}, "status": {"conditions": [unplaced]}},
        {"spec": {"nodeName": "node-d"}, "status": {"phase": "Pending"}},
    ]

    assert run(script, api, tmp_path) == 1
    said = capsys.readouterr().err
    assert "1 of 4 nodes are done" in said
    assert "node-a: runtime ended with 2" in said
    assert "node-c: a peer is there" in said
    assert "node-d: Pending" in said
    assert "node-b" not in said
    assert "kubectl --namespace images delete daemonset p2pdist-undo" in said
    assert not any(line.startswith("DELETE") for line in api.asked)
    assert "labelSelector=" in api.asked[-1]


def test_an_api_that_fails_is_asked_again_and_named_at_the_end(
    script: ModuleType, api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, api, tmp_path) == 1
    assert "the API does not answer: HTTP Error 503" in capsys.readouterr().err
    assert api.asked.count(f"GET {DAEMONSET}") == 30


def test_the_job_asks_as_an_account_that_may_do_no_more(tmp_path: Path) -> None:
    rendered = render(work=tmp_path)
    role = rendered.find("Role", "-undo")
    job = rendered.find("Job", "-undo-wait")["spec"]["template"]["spec"]

    assert job["serviceAccountName"] == rendered.find("ServiceAccount", "-undo")["metadata"]["name"]
    assert role["rules"] == [
        {
            "apiGroups": ["apps"],
            "resources": ["daemonsets"],
            "resourceNames": ["p2pdist-undo"],
            "verbs": ["get", "delete"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]
    shipped = rendered.find("ConfigMap", "-undo")["data"]["wait_for_undo.py"]
    assert shipped.strip() == (CHART / "files" / "wait_for_undo.py").read_text().strip()
