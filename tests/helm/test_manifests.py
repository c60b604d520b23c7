"""The manifests: what Kubernetes takes, with pods that are confined, and ports that are open."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from p2pdist.cli.main import cli
from p2pdist.settings import all_leaves
from p2pdist.tracker.joining import join_address
from tests.helm.chart import (
    CHART,
    EVERYTHING,
    KUBERNETES,
    PRIVATE,
    ROLES,
    ROOT,
    HelmError,
    Rendered,
    helm,
    kubeconform,
    render,
    settings_in,
)

# The only containers that run as root: they change files of the node.
AS_ROOT = {"store": "install", "runtime": "runtime"}


def test_helm_finds_nothing_to_mend() -> None:
    said = helm("lint", "--strict", "--kube-version", KUBERNETES, str(CHART))

    assert "0 chart(s) failed" in said


def test_kubernetes_takes_every_manifest(rendered: Rendered) -> None:
    assert kubeconform(rendered.text) == ""


def test_a_misspelt_field_is_refused(tmp_path: Path) -> None:
    text = render(EVERYTHING, work=tmp_path).text

    assert "hostNetwrk" in kubeconform(text.replace("hostNetwork:", "hostNetwrk:"))
    assert "intervall" in kubeconform(text.replace("interval:", "intervall:"))


def test_pods_are_confined(rendered: Rendered) -> None:
    for name, pod in rendered.pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is name.endswith("undo-wait"), name
    for container in rendered.containers():
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]
        assert "memory" in container["resources"]["limits"]
        if context.get("runAsUser") == 0:
            argv = [*container.get("command", []), *container.get("args", [])]
            assert argv[0] == AS_ROOT[container["name"]]
        else:
            assert "add" not in context["capabilities"]


def test_peers_see_no_more_of_the_node_than_their_store(rendered: Rendered) -> None:
    pod = rendered.find("DaemonSet", "-peer")["spec"]["template"]["spec"]
    on_node = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    (peer,) = pod["containers"]

    assert {m["name"] for m in peer["volumeMounts"]} & set(on_node) == {"store"}
    assert set(on_node.values()) <= {
        "/etc/containerd",
        "/opt/containerd/certs.d",
        "/var/lib/p2pdist/peer",
        "/var/lib/p2pdist/runtime",
    }


def test_only_proxies_see_keys_and_accounts(tmp_path: Path) -> None:
    secret = {"p2pdist-proxy", "registry-corp", "pull-secret", "proxy-cert"}
    for name, pod in render(PRIVATE, work=tmp_path).pods():
        assert any(word in json.dumps(pod["volumes"]) for word in secret) is name.endswith("-proxy")


def test_every_command_is_one_that_we_have(rendered: Rendered) -> None:
    for container in rendered.containers():
        if "command" in container:
            continue
        command: click.Command = cli
        context = click.Context(cli)
        rest = list(container["args"])
        while isinstance(command, click.Group):
            name, command, rest = command.resolve_command(context, rest)  # type: ignore[assignment]  # a command, as args are ours
            context = click.Context(command, info_name=name, parent=context)
        assert command.parse_args(context, rest) == []


def test_the_variables_of_a_container_are_settings(rendered: Rendered) -> None:
    known = {leaf.variable for leaf in all_leaves()}
    for container in rendered.containers():
        made = {e["name"] for e in container.get("env", []) if "value" in e}
        assert made <= known


def open_ports(rendered: Rendered, role: str, work: Path) -> dict[int, str]:
    """The ports that a role's configuration opens, each with its host."""
    file = work / f"{role}.toml"
    file.write_text(rendered.config(role))
    section = getattr(settings_in(file), role)
    names = ("listen", "exchange_listen", "admin_listen")
    addresses = [getattr(section, name) for name in names if hasattr(section, name)]
    if role == "tracker":
        addresses += filter(None, [join_address(settings_in(file))])
    return {address.port: address.host for address in addresses}


def test_every_port_that_is_named_is_one_that_is_open(rendered: Rendered, tmp_path: Path) -> None:
    for manifest in rendered.manifests:
        component = manifest["metadata"].get("labels", {}).get("app.kubernetes.io/component")
        if component not in ROLES or "spec" not in manifest:
            continue
        opened = open_ports(rendered, component, tmp_path)
        spec = manifest["spec"]
        if manifest["kind"] == "Service":
            assert {port["port"] for port in spec["ports"]} == set(opened)
        elif manifest["kind"] == "NetworkPolicy":
            allowed = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            assert allowed == set(opened)
        elif manifest["kind"] in ("DaemonSet", "StatefulSet"):
            (container,) = spec["template"]["spec"]["containers"]
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert set(ports.values()) == set(opened)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container[probe]["httpGet"]
                host = opened[ports[asked["port"]]]
                assert asked.get("host") == ("127.0.0.1" if host == "127.0.0.1" else None)


def test_the_mirror_that_is_installed_is_the_one_that_listens(tmp_path: Path) -> None:
    everything = render(EVERYTHING, work=tmp_path)
    for name in ("-peer", "-undo"):
        pod = everything.find("DaemonSet", name)["spec"]["template"]["spec"]
        (runtime,) = (c for c in pod["initContainers"] if c["name"] == "runtime")
        assert "--mirror=http://127.0.0.1:6300" in runtime["args"]

    assert open_ports(everything, "peer", tmp_path)[6300] == "127.0.0.1"


def test_the_undo_goes_to_every_node_with_the_same_files(rendered: Rendered) -> None:
    pods = dict(rendered.pods())
    if "p2pdist-undo" not in pods:
        assert all(c["name"] != "runtime" for c in rendered.containers())
        return
    undo, peer = pods["p2pdist-undo"], pods["p2pdist-peer"]

    assert undo["tolerations"] == [{"operator": "Exists"}]
    mounts = [
        next(c["volumeMounts"] for c in pod["initContainers"] if c["name"] == "runtime")
        for pod in (undo, peer)
    ]
    assert mounts[0] == mounts[1]
    (rule,) = undo["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    labels = rendered.find("DaemonSet", "-peer")["spec"]["selector"]["matchLabels"]
    assert rule["labelSelector"]["matchLabels"] == labels


def test_the_undo_stays_until_every_node_is_done(tmp_path: Path) -> None:
    """helm deletes hooks with hook-succeeded also when a later one fails."""
    rendered = render(work=tmp_path)
    undo = rendered.find("DaemonSet", "-undo")["metadata"]["annotations"]
    hooks = [
        m["metadata"]["annotations"]
        for m in rendered.manifests
        if "helm.sh/hook" in m["metadata"].get("annotations", {})
    ]

    assert undo["helm.sh/hook-delete-policy"] == "before-hook-creation"
    assert {hook["helm.sh/hook"] for hook in hooks} == {"post-delete"}
    assert len(hooks) == 6


def test_a_changed_account_restarts_proxies_only(tmp_path: Path) -> None:
    def checksums(values: dict[str, Any]) -> dict[str, str]:
        pods = render(values, work=tmp_path).manifests
        return {
            m["metadata"]["name"]: m["spec"]["template"]["metadata"]["annotations"][
                "checksum/config"
            ]
            for m in pods
            if m["kind"] in ("StatefulSet", "DaemonSet") and "undo" not in m["metadata"]["name"]
        }

    before, after = checksums({}), checksums({"proxy": {"settings": {"proxy": {"tag_ttl_s": 5}}}})

    assert [name for name in before if before[name] != after[name]] == ["p2pdist-proxy"]


def test_the_package_holds_boards_and_rules_as_they_are(tmp_path: Path) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        held = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]  # files only

    boards = list((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
    for file in boards:
        assert held[f"p2pdist/files/dashboards/{file.name}"] == file.read_bytes()
    everything = render(EVERYTHING, work=tmp_path)
    shown = everything.find("ConfigMap", "-dashboards")["data"]
    assert shown == {file.name: file.read_text() for file in boards}
    groups = [
        group
        for name in ("alerts.yml", "recording.yml")
        for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / name).read_text())["groups"]
    ]
    assert everything.find("PrometheusRule", "p2pdist")["spec"]["groups"] == groups


def test_secrets_of_ones_own_are_used_and_none_is_made(tmp_path: Path) -> None:
    own = {"secrets": {"cluster": "our-cluster", "proxyKey": "our-proxy"}}
    rendered = render(own, work=tmp_path)

    assert all(m["kind"] != "Secret" for m in rendered.manifests)
    volumes = dict(rendered.pods())["p2pdist-proxy"]["volumes"]
    names = {v["secret"]["secretName"] for v in volumes if "secret" in v}
    assert names == {"our-cluster", "our-proxy"}
    with pytest.raises(HelmError, match="go together"):
        render({"secrets": {"cluster": "our-cluster"}}, work=tmp_path)
