"""A pod that works on the files of its node leaves alone what was set up on the node itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pdist.cli.runtime import runtime
from p2pdist.engines.containerd import Containerd
from p2pdist.engines.options import EarlyStarts
from p2pdist.engines.record import FileRecord, records_at
from p2pdist.errors import ConfigError
from p2pdist.process.tree import Tree
from tests.engines.hosts import MIRROR, EngineHost
from tests.engines.test_early_starts import CONFIG, CRI, EARLY, starts_early

ORIGINAL = b"version = 2\n" + CRI + b'  snapshotter = "overlayfs"\n'
OTHER_MIRROR = "http://127.0.0.1:6300"


class Node(EngineHost):
    """Its files, as they are on it and as a pod has them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, Containerd(lambda program, options: None))
        self.put(CONFIG, ORIGINAL)

    def set_up_itself(self, early: EarlyStarts | None) -> None:
        """What `runtime install` on the node leaves: its root is another one than the pod's."""
        self.install(early=early)
        kept_here = records_at(self.state, Tree(Path("/")))
        record = kept_here.load("containerd")
        assert record is not None
        for file in record.files:
            file.path = f"/{Path(file.path).relative_to(self.root)}"
        kept_here.save(record)

    def pod(self, verb: str, *words: str, mirror: str = MIRROR) -> str:
        """Say what a container of the chart does to it."""
        common = ["--engine=containerd", f"--root={self.root}", f"--state-dir={self.state}"]
        argv = [verb, *common, f"--mirror={mirror}", *words]
        result = CliRunner().invoke(runtime, argv, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("early", [EARLY, None])
@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_what_the_node_has_on_record_stays(
    node: Node, verb: str, early: EarlyStarts | None
) -> None:
    node.set_up_itself(early)
    before = node.everything()

    said = node.pod(verb, "--leave-others")

    assert "left as it is: containerd was set up on this host itself" in said
    assert ("with early starts" in said) is (early is not None)
    assert node.everything() == before


def test_a_mirror_that_is_not_the_pods_is_named(node: Node) -> None:
    node.set_up_itself(EARLY)

    said = node.pod("install", "--leave-others", mirror=OTHER_MIRROR)

    assert f"for {MIRROR} and not at {OTHER_MIRROR}" in said


@pytest.mark.parametrize("mirror", [MIRROR, OTHER_MIRROR])
@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_early_starts_without_a_record_stay(node: Node, verb: str, mirror: str) -> None:
    """Its record is somewhere else, where the pod does not see it."""
    node.install(early=EARLY)
    node.state.rename(node.root / "elsewhere")
    before = node.everything()

    said = node.pod(verb, "--leave-others", mirror=mirror)

    assert "left as it is: early starts in " in said
    assert node.everything() == before


def test_without_the_flag_a_record_of_another_root_is_refused(node: Node) -> None:
    node.set_up_itself(EARLY)

    with pytest.raises(ConfigError, match="Was another --root"):
        node.install()


def test_a_record_of_strange_paths_is_refused_with_the_flag_too(node: Node) -> None:
    node.set_up_itself(EARLY)
    kept_here = records_at(node.state, Tree(Path("/")))
    record = kept_here.load("containerd")
    assert record is not None
    record.files = [FileRecord("/etc/../etc/containerd/config.toml", None, "")]
    kept_here.save(record)

    result = CliRunner().invoke(
        runtime,
        ["install", "--engine=containerd", f"--root={node.root}", f"--state-dir={node.state}",
         "--leave-others"],
    )  # fmt: skip

    assert result.exit_code != 0


def test_the_pod_goes_on_beside_early_starts_that_came_later(node: Node) -> None:
    """The node was set up with a place of its own for the record."""
    node.pod("install", "--leave-others")
    own = EngineHost(node.root, node.engine)
    kept = node.state
    kept.rename(node.root / "pods")
    own.install(early=EARLY)
    node.state.rename(node.root / "nodes")
    (node.root / "pods").rename(kept)

    again = node.pod("install", "--leave-others")
    moved = node.pod("install", "--leave-others", mirror=OTHER_MIRROR)
    assert starts_early(node) == ["Kubernetes"]
    gone = node.pod("uninstall", "--leave-others", mirror=OTHER_MIRROR)

    for said in (again, moved, gone):
        assert "config.toml stay: they are not of this installation" in said
    assert starts_early(node) == ["Kubernetes"]
    assert node.read("/etc/containerd/certs.d/_default/hosts.toml") is None


def test_a_node_that_nobody_set_up_is_the_pods(node: Node) -> None:
    before = node.everything()

    assert "left" not in node.pod("install", "--leave-others")
    assert node.read("/etc/containerd/certs.d/_default/hosts.toml") is not None
    assert "left" not in node.pod("uninstall", "--leave-others")
    assert node.everything() == before
