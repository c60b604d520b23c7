"""A release from its first day to its last, by the real helm: made, changed and taken away."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.records import recorded
from tests.helm.chart import (
    CHART,
    EVERYTHING,
    KUBERNETES,
    NAMESPACE,
    HelmError,
    Values,
    helm,
    module_of,
    release,
)
from tests.helm.cluster import Cluster, Json, cluster_in

KEYS = ("Secret/p2pdist-cluster", "Secret/p2pdist-proxy")
WAIT = "Job/p2pdist-undo-wait"


class Release:
    """The chart in a cluster of its own."""

    def __init__(self, cluster: Cluster, work: Path) -> None:
        self.cluster = cluster
        self._work = work

    def install(self, values: Values | None = None) -> str:
        return helm("install", *release(values, self._work), cluster=self.cluster)

    def upgrade(self, values: Values | None = None) -> list[str]:
        """What changed in the cluster."""
        self.cluster.changed()
        helm("upgrade", *release(values, self._work), cluster=self.cluster)
        return self.cluster.changed()

    def run(self, command: str, *arguments: str) -> str:
        argv = [command, "p2pdist", *arguments, "--namespace", NAMESPACE]
        return helm(*argv, cluster=self.cluster)

    def keys(self) -> dict[str, Any]:
        return {name: self.cluster.kept()[name]["data"] for name in KEYS}

    def pods(self) -> dict[str, Any]:
        """The pod that each workload starts, by the workload's name: another one restarts all."""
        return {
            name: held["spec"]["template"]
            for name, held in self.cluster.kept().items()
            if name.startswith(("DaemonSet/", "StatefulSet/"))
        }

    def restarted_by(self, values: Values) -> set[str]:
        before = self.pods()
        self.upgrade(values)
        return {name for name, pod in self.pods().items() if pod != before[name]}


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Release]:
    with cluster_in(tmp_path) as cluster:
        yield Release(cluster, tmp_path)


def test_an_upgrade_with_the_same_values_changes_nothing(held: Release) -> None:
    held.install()

    assert held.upgrade() == []


def test_an_upgrade_makes_what_an_install_does(held: Release, tmp_path: Path) -> None:
    fixed = {"proxy": {"persistence": EVERYTHING["proxy"]["persistence"]}}
    fixed |= {"tracker": {"persistence": EVERYTHING["tracker"]["persistence"]}}
    held.install(fixed)
    held.upgrade(EVERYTHING)
    with cluster_in(tmp_path) as other:
        fresh = Release(other, tmp_path)
        fresh.install(EVERYTHING)
    installed, upgraded = ({**r.cluster.kept(), **dict.fromkeys(KEYS)} for r in (fresh, held))

    assert upgraded == installed


@pytest.mark.faults
def test_upgrades_keep_the_keys(held: Release) -> None:
    with recorded(90, "a release is upgraded, and rolled back") as record:
        held.install()
        first = held.keys()
        held.upgrade({"dc": "fra1", "proxy": {"replicas": 3}})
        upgraded = held.keys()
        held.run("rollback", "1")

        assert upgraded == held.keys() == first
        record.outcome = "both Secrets as they were made at the first install"
        record.passed = True


@pytest.mark.faults
@pytest.mark.parametrize(
    "command", [["template", "--kube-version", KUBERNETES], ["install", "--dry-run=client"]]
)
def test_no_keys_are_made_where_no_cluster_is_asked(
    held: Release, command: list[str], tmp_path: Path
) -> None:
    """Argo CD renders so at every sync: each would cut off every node that runs already."""
    own = {"secrets": {"cluster": "our-cluster", "proxyKey": "our-proxy"}}
    with recorded(91, "the chart is rendered without a cluster", command[0]) as record:
        with pytest.raises(HelmError, match=r"secrets\.cluster and secrets\.proxyKey"):
            helm(*command, *release({}, tmp_path), cluster=held.cluster)

        assert "kind: Secret" not in helm(*command, *release(own, tmp_path), cluster=held.cluster)
        record.outcome = "refused; rendered with Secrets that are named"
        record.passed = True


@pytest.mark.parametrize("lost", KEYS)
def test_one_key_without_the_other_is_no_reason_to_make_new_ones(held: Release, lost: str) -> None:
    held.install()
    path = next(p for p in held.cluster.objects if p.endswith(f"/secrets/{lost.partition('/')[2]}"))
    del held.cluster.objects[path]

    with pytest.raises(HelmError, match="is left: restore the other"):
        held.upgrade()


@pytest.mark.parametrize(
    ("values", "restarted"),
    [
        ({"proxy": {"settings": {"proxy": {"tag_ttl_s": 5}}}}, {"StatefulSet/p2pdist-proxy"}),
        ({"peer": {"settings": {"store": {"max_bytes": "9GB"}}}}, {"DaemonSet/p2pdist-peer"}),
        ({"tracker": {"podLabels": {"a": "b"}}}, {"StatefulSet/p2pdist-tracker"}),
        (
            {"certificates": {"enabled": True}},
            {
                "DaemonSet/p2pdist-peer",
                "StatefulSet/p2pdist-proxy",
                "StatefulSet/p2pdist-tracker",
            },
        ),
        ({"certificates": {"caSecret": "another"}}, set()),
        (
            {"registries": [{"host": "docker.io"}, {"host": "quay.io"}]},
            {"StatefulSet/p2pdist-proxy", "DaemonSet/p2pdist-peer"},
        ),
        ({"networkPolicy": {"nodeCIDRs": ["10.0.0.0/16"]}}, set()),
        ({"undo": {"timeoutSeconds": 60}}, set()),
        (
            {"image": {"tag": "0.1.1"}},
            {
                "DaemonSet/p2pdist-peer",
                "StatefulSet/p2pdist-proxy",
                "StatefulSet/p2pdist-tracker",
            },
        ),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else "",
)
def test_a_changed_value_restarts_whom_it_concerns(
    held: Release, values: Values, restarted: set[str]
) -> None:
    held.install()

    assert held.restarted_by(values) == restarted


def test_a_newer_chart_keeps_what_no_upgrade_may_change(held: Release, tmp_path: Path) -> None:
    held.install({"dc": "fra1"})
    first, pods = held.keys(), held.pods()
    newer = shutil.copytree(CHART, tmp_path / "newer")
    about = newer / "Chart.yaml"  # of the chart, and of the daemons
    about.write_text(about.read_text().replace("ersion: 0.1.0", "ersion: 0.2.0"))
    held.run("upgrade", str(newer), "--reset-then-reuse-values")

    assert held.keys() == first
    assert 'dc = "fra1"' in held.cluster.kept()["ConfigMap/p2pdist-peer"]["data"]["config.toml"]
    images = {
        container["image"]
        for name, pod in held.pods().items()
        for container in pod["spec"]["containers"]
        if pod != pods[name]
    }
    assert images == {"p2pdist:0.2.0"}
    assert len(held.pods()) == 3


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"proxies": {"replicas": 3}}, "proxies"),
        ({"peer": {"settings": {"store": {"maxBytes": "9GB"}}}}, "maxBytes"),
        ({"secrets": {"cluster": "our-cluster"}}, "go together"),
    ],
)
def test_an_upgrade_with_values_of_another_chart_changes_nothing(
    held: Release, values: Values, named: str
) -> None:
    held.install()
    before = held.cluster.kept()

    with pytest.raises(HelmError, match=named):
        held.upgrade(values)
    assert held.cluster.kept() == before
    assert "STATUS: deployed\nREVISION: 1" in held.run("status")


def undone(held: Release, work: Path, *, done: int) -> None:
    """Let the Job do its work, with a clock that its pauses move: `done` of three nodes are."""
    now_s = [0.0]

    def pause(seconds: float) -> None:
        now_s[0] += seconds

    def run(job: Json) -> str:
        there = held.cluster.kept()
        status = {"numberReady": done, "desiredNumberScheduled": 3, "observedGeneration": 1}
        there["DaemonSet/p2pdist-undo"] |= {"status": status}
        there["DaemonSet/p2pdist-undo"]["metadata"]["generation"] = 1
        (work / "token").write_text("token")
        file = work / "wait_for_undo.py"
        file.write_text(there["ConfigMap/p2pdist-undo"]["data"][file.name])
        (container,) = job["spec"]["template"]["spec"]["containers"]
        options = [f"--server={held.cluster.url}", f"--account={work}"]
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            module_of(file).main(
                [*container["command"][2:], *options], now_s=lambda: now_s[0], pause=pause
            )
        return said.getvalue()

    held.cluster.run_job = run


def test_nothing_is_left_of_a_release_whose_undo_reached_every_node(
    held: Release, tmp_path: Path
) -> None:
    undone(held, tmp_path, done=3)
    held.install()
    made = set(held.cluster.kept())
    held.cluster.changed()
    held.run("uninstall")
    told = held.cluster.changed()

    assert held.cluster.objects == {}
    assert {line.removeprefix("delete ") for line in told[: len(made)]} == made
    undo, wait = (told.index(f"create {n}") for n in ("DaemonSet/p2pdist-undo", WAIT))
    assert len(made) <= undo < wait < told.index("delete DaemonSet/p2pdist-undo")


def test_an_undo_that_missed_a_node_says_so_and_goes_on(held: Release, tmp_path: Path) -> None:
    undone(held, tmp_path, done=2)
    held.install()

    with pytest.raises(HelmError, match="2 of 3 nodes are done") as failed:
        held.run("uninstall")
    assert "delete daemonset p2pdist-undo" in str(failed.value)
    assert set(held.cluster.kept()) == {"DaemonSet/p2pdist-undo", WAIT}
    assert held.cluster.kept()[WAIT]["spec"]["ttlSecondsAfterFinished"] > 0


def test_no_release_begins_beside_an_undo_that_goes_on(held: Release, tmp_path: Path) -> None:
    """It would take the new mirror away again wherever one of its pods starts once more."""
    undone(held, tmp_path, done=2)
    held.install()
    with pytest.raises(HelmError):
        held.run("uninstall")

    with pytest.raises(HelmError, match="images delete daemonset p2pdist-undo"):
        held.install()
    path = next(p for p in held.cluster.objects if p.endswith("/daemonsets/p2pdist-undo"))
    del held.cluster.objects[path]
    held.install()
    held.cluster.run_job = lambda _: ""
    held.run("uninstall")
    assert set(held.cluster.kept()) == {"DaemonSet/p2pdist-undo"}
