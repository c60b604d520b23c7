"""What the chart does to a node: its commands, mounts and configuration, and a real containerd."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.harness.image import REFERENCE, build_image
from tests.e2e.harness.lab import Lab, open_lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import PEER_MIRROR_URL, Daemon
from tests.e2e.harness.processes import run
from tests.helm.chart import ROOT, Manifest, Rendered, render

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CONFIG_TOML: Final = b"# kept\nversion = 2\n[debug]\n  level = 'info'\n"
# Each pair of arguments up to "--" is a directory of the node and where a container has it.
_IN_MOUNTS: Final = """
while [ "$1" != -- ]; do
    mkdir -p "$1" "$2"
    mount --bind "$1" "$2"
    shift 2
done
shift
exec "$@"
"""


def on_node(pod: Manifest, container: str, node: Path, inside: Path) -> str:
    """Run a container's command of ours with its directories of `node` mounted below `inside`."""
    (spec,) = (c for c in pod["initContainers"] if c["name"] == container)
    paths = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    pairs = [
        word
        for mount in spec["volumeMounts"]
        for word in (f"{node}{paths[mount['name']]}", f"{inside}{mount['mountPath']}")
    ]
    arguments = [word.replace("=/host", f"={inside}/host") for word in spec["args"]]
    command = [sys.executable, "-m", "p2pdist.cli.main", *arguments]
    isolated = ["unshare", "--mount", "sh", "-euc", _IN_MOUNTS, "sh", *pairs, "--"]
    return run([*isolated, *command], env={"PYTHONPATH": str(ROOT)})


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def peer_config(rendered: Rendered, core: str, keys: Path) -> str:
    """The peer's configuration, with the cluster's names and mounts as they are here."""
    text = rendered.config("peer")
    for name in ("p2pdist-proxy-0.p2pdist-proxy.images.svc", "p2pdist-tracker.images.svc"):
        text = text.replace(name, core)
    return text.replace("/run/p2pdist/cluster", str(keys))


def start_peer(rendered: Rendered, lab: Lab, host: Host, core: str, keys: Path) -> Daemon:
    """A peer with the chart's configuration and variables."""
    config = lab.work / "peer-of-the-chart.toml"
    config.write_text(peer_config(rendered, core, keys))
    peer = Daemon("peer", host, config, lab.work / "peer-a.log", lab.work / "peer-a")
    lab.own(peer.process)
    (spec,) = rendered.find("DaemonSet", "-peer")["spec"]["template"]["spec"]["containers"]
    told = {"$(NODE_NAME)": host.name, "$(NODE_IP)": host.address}
    variables = {"P2PDIST_HOST__STATE_DIR": str(peer.state_dir)}
    for entry in spec["env"]:
        value = entry.get("value", "")
        for name, meant in told.items():
            value = value.replace(name, meant)
        if value:
            variables[entry["name"]] = value
    peer.start(variables)
    return peer


def test_a_node_pulls_through_its_peer_and_is_as_before_after_uninstall(tmp_path: Path) -> None:
    rendered = render({"proxy": {"replicas": 1}}, work=tmp_path)
    install = rendered.find("DaemonSet", "-peer")["spec"]["template"]["spec"]
    undo = rendered.find("DaemonSet", "-undo")["spec"]["template"]["spec"]
    node, inside = tmp_path / "node", tmp_path / "container"
    (node / "etc" / "containerd").mkdir(parents=True)
    (node / "etc" / "containerd" / "config.toml").write_bytes(CONFIG_TOML)
    before = files_below(node)
    image = build_image(tmp_path / "layout", layer_bytes=(2_000_000, 300_000), seed=92)

    with open_lab() as lab:
        registry = lab.registry(lab.host("registry"), tmp_path / "storage")
        registry.push(image, REFERENCE)
        core = lab.host("core")
        cluster = lab.cluster(core, registry)
        cluster.start_tracker()
        cluster.start_proxy()
        host = lab.host("a")
        host.blackhole(registry.host.address)
        peer = start_peer(rendered, lab, host, core.address, cluster.secret_file.parent)

        on_node(install, "runtime", node, inside)
        again = on_node(install, "runtime", node, inside)
        certs = node / "etc" / "containerd" / "certs.d"
        containerd = lab.containerd(host, PEER_MIRROR_URL, certs=certs)
        pulled = containerd.pull(f"docker.io/{REFERENCE}")

        assert "already installed" in again
        assert pulled.config == image.config.digest
        assert peer.status().received["proxy"] > 0

    on_node(undo, "runtime", node, inside)
    assert files_below(node) == before
    assert "not installed" in on_node(undo, "runtime", node, inside)


def test_early_starts_that_were_set_up_by_hand_outlive_the_chart(tmp_path: Path) -> None:
    rendered = render({}, work=tmp_path)
    install = rendered.find("DaemonSet", "-peer")["spec"]["template"]["spec"]
    undo = rendered.find("DaemonSet", "-undo")["spec"]["template"]["spec"]
    node, inside = tmp_path / "node", tmp_path / "container"
    (node / "etc" / "containerd").mkdir(parents=True)
    (node / "etc" / "containerd" / "config.toml").write_bytes(CONFIG_TOML)
    by_hand(node)
    before = files_below(node)

    set_up = on_node(install, "runtime", node, inside)
    taken_back = on_node(undo, "runtime", node, inside)

    for said in (set_up, taken_back):
        assert "left as it is: containerd was set up on this host itself, with early starts" in said
    assert files_below(node) == before
    assert b"[proxy_plugins.p2pdist]" in before["etc/containerd/config.toml"]


def by_hand(node: Path) -> None:
    """What docs/kubernetes.md has people do on a node."""
    mounts = [str(node / "etc" / "containerd"), "/etc/containerd", "--"]
    command = [sys.executable, "-m", "p2pdist.cli.main", "runtime", "install", "--early-starts"]
    kept = str(node / "var" / "lib" / "p2pdist" / "runtime")
    isolated = ["unshare", "--mount", "sh", "-euc", _IN_MOUNTS, "sh", *mounts]
    options = ["--engine=containerd", f"--state-dir={kept}"]
    run([*isolated, *command, *options], env={"PYTHONPATH": str(ROOT)})
