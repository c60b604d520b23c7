"""Certificates by the chart: who sees the CA and the tokens, and nodes that join by themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from p2pdist.tracker.joining import join_address
from tests.e2e.harness.image import Image, build_image
from tests.e2e.harness.lab import Lab, open_lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import Daemon, peer_mirror
from tests.e2e.harness.processes import wait_until
from tests.helm.chart import (
    CERTIFICATES,
    EVERYTHING,
    ROOT,
    HelmError,
    Manifest,
    Rendered,
    Values,
    render,
    settings_in,
)
from tests.helm.pods import Pod, Secrets, made_secrets

TRACKER = "p2pdist-tracker.images.svc"


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(CERTIFICATES, work=tmp_path_factory.mktemp("values"))


def test_without_them_all_is_as_it_was(tmp_path: Path) -> None:
    """Names of Secrets alone change nothing, and no word of certificates is anywhere."""
    named = {
        "certificates": {"enabled": False, "required": True, "caSecret": "a", "joinSecret": "b"}
    }
    for values in ({}, EVERYTHING):
        text, same = (without_keys(render(values | more, work=tmp_path)) for more in ({}, named))
        assert text == same
        for word in ("5201", "identity_dir", "p2pdist-ca", "p2pdist-join", "name: certificate"):
            assert word not in text


def without_keys(rendered: Rendered) -> str:
    """Each rendering of a first install makes other ones."""
    return json.dumps([m for m in rendered.manifests if m["kind"] != "Secret"])


def test_the_ca_is_the_trackers_alone_and_tokens_are_for_the_first_container(
    certified: Rendered,
) -> None:
    for name, pod in certified.pods():
        secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
        role = name.removeprefix("p2pdist-")
        assert ("our-ca" in secrets.values()) is (role == "tracker")
        assert ("our-tokens" in secrets.values()) is (role in ("peer", "proxy"))
        for container in pod["containers"]:
            mounts = {secrets.get(m["name"]) for m in container.get("volumeMounts", [])}
            assert "our-tokens" not in mounts
    peer = dict(certified.pods())["p2pdist-peer"]
    assert keys_of(peer, "join") == {"peer": "peer"}
    proxy = dict(certified.pods())["p2pdist-proxy"]
    assert keys_of(proxy, "join") == {f"proxy-{n}": f"p2pdist-proxy-{n}" for n in range(3)}


def keys_of(pod: Manifest, volume: str) -> dict[str, str]:
    (source,) = (v["secret"] for v in pod["volumes"] if v["name"] == volume)
    assert source["optional"], "who has a certificate starts without it"
    return {item["key"]: item["path"] for item in source["items"]}


def test_certificates_come_before_the_node_is_pointed_at_its_peer(certified: Rendered) -> None:
    pod = dict(certified.pods())["p2pdist-peer"]

    assert [c["name"] for c in pod["initContainers"]] == ["store", "certificate", "runtime"]


def test_the_port_to_join_at_is_for_nodes_and_proxies_of_this_datacenter(
    certified: Rendered, tmp_path: Path
) -> None:
    rules = certified.find("NetworkPolicy", "-tracker")["spec"]["ingress"]
    (join,) = (r for r in rules if 5201 in {p["port"] for p in r["ports"]})
    assert [p["port"] for p in join["ports"]] == [5201]
    assert [s["ipBlock"]["cidr"] for s in join["from"] if "ipBlock" in s] == ["10.0.0.0/16"]
    (pods,) = (s["podSelector"]["matchLabels"] for s in join["from"] if "podSelector" in s)
    assert pods["app.kubernetes.io/component"] == "proxy"
    others = [r for r in rules if r is not join and "ipBlock" in json.dumps(r)]
    assert "10.1.0.0/16" in json.dumps(others), "federation comes to the other ports"

    anybody = render({"certificates": {"enabled": True}}, work=tmp_path)
    rules = anybody.find("NetworkPolicy", "-tracker")["spec"]["ingress"]
    assert [r for r in rules if "from" not in r][1]["ports"][0]["port"] == 5201


def test_tokens_name_the_tracker_as_its_configuration_does(
    certified: Rendered, tmp_path: Path
) -> None:
    file = tmp_path / "tracker.toml"
    file.write_text(certified.config("tracker"))
    settings = settings_in(file)

    assert settings.tracker.join == f"{TRACKER}:5201"
    listens = join_address(settings)
    assert listens is not None
    ports = certified.find("Service", "-tracker")["spec"]["ports"]
    assert listens.port in {port["port"] for port in ports}


@pytest.mark.parametrize("required", [True, False])
def test_every_daemon_requires_them_or_none_does(required: bool, tmp_path: Path) -> None:
    values = {"certificates": {"enabled": True, "required": required}}
    rendered = render(values, work=tmp_path)
    for role in ("tracker", "proxy", "peer"):
        file = tmp_path / f"{role}.toml"
        file.write_text(rendered.config(role))
        settings = settings_in(file)
        assert settings.cluster.require_identity is required
        assert getattr(settings, role).identity_dir == Path("/var/lib/p2pdist/identity")
        assert (settings.tracker.ca_dir is not None) is (role == "tracker")


@pytest.mark.parametrize("role", ["tracker", "proxy"])
def test_what_may_be_lost_at_any_time_holds_no_certificate(role: str, tmp_path: Path) -> None:
    values: Values = {"certificates": {"enabled": True}, role: {"persistence": {"enabled": False}}}

    with pytest.raises(HelmError, match=rf"needs {role}\.persistence\.enabled"):
        render(values, work=tmp_path)


# --- the flow, without Kubernetes ---------------------------------------------------------------


class Fleet:
    """The chart's pods on hosts of a lab, and who keeps the CA."""

    def __init__(self, lab: Lab, rendered: Rendered, core: Host) -> None:
        self._lab, self._rendered, self._core = lab, rendered, core
        self._names = {TRACKER: core.address}
        self._names["p2pdist-proxy-0.p2pdist-proxy.images.svc"] = core.address
        self._ca = lab.work / "kept-ca"
        self.ca("init")
        self.secrets: Secrets = made_secrets(rendered)
        self.secrets["p2pdist-ca"] = {f.name: f.read_bytes() for f in self._ca.iterdir()}

    def ca(self, command: str, *arguments: str) -> str:
        argv = [sys.executable, "-m", "p2pdist.cli.main", "ca", command, "--dir", str(self._ca)]
        done = subprocess.run(
            [*argv, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
        )
        return done.stdout

    def token(self, role: str, *arguments: str) -> bytes:
        tracker = f"{self._core.address}:5201"
        return self.ca("token", "--role", role, "--tracker", tracker, *arguments).encode()

    def pod(self, role: str, host: Host) -> Pod:
        pod = Pod(self._rendered, role, self._lab, host, self._names)
        pod.mount(self.secrets)
        return pod

    def host_ids(self, *pods: Pod) -> list[str]:
        return [page_id(pod.identity / "cert.pem") for pod in pods]


def page_id(cert: Path) -> str:
    argv = [sys.executable, "-m", "p2pdist.cli.main", "ca", "show", str(cert)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.splitlines()[0].split()[-1]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab() as lab:
        yield lab


def values_for(registry: str) -> Values:
    return {
        "certificates": {"enabled": True},
        "proxy": {"replicas": 1},
        "registries": [
            {"host": "docker.io", "url": f"http://{registry}", "allow_private": ["10.0.0.0/8"]}
        ],
    }


@pytest.mark.e2e
@pytest.mark.timeout(180)
def test_nodes_join_with_one_token_and_seal_their_links(lab: Lab, tmp_path: Path) -> None:
    image = build_image(tmp_path / "layout", layer_bytes=(2_000_000,), seed=93)
    registry = lab.registry(lab.host("registry"), tmp_path / "storage")
    registry.push(image, "library/app:1")
    core = lab.host("core")
    fleet = Fleet(lab, render(values_for(registry.endpoint), work=tmp_path), core)
    fleet.secrets["p2pdist-join"] = {
        "peer": fleet.token("peer", "--uses", "2"),
        "proxy-0": fleet.token("proxy"),
    }
    tracker, proxy = fleet.pod("tracker", core), fleet.pod("proxy", core)
    a, b, c = (fleet.pod("peer", lab.host(name)) for name in "abc")

    early = a.certified()
    assert early.returncode == 5, "the kubelet tries again: the tracker is not there yet"
    assert well(tracker.certified())
    tracker.start()
    for pod in (proxy, a, b):
        assert well(pod.certified())
    third = c.certified()
    assert third.returncode == 4
    assert "by 2 hosts" in third.stderr
    assert len(set(fleet.host_ids(tracker, proxy, a, b))) == 4

    proxy.start()
    peers = [a.start(), b.start()]
    for name, peer in zip("ab", peers, strict=True):
        peer_mirror(peer.host).read_blob("library/app", layer(image))
        wait_until(partial(all_sealed, peer), f"sealed links alone at {name}")
        assert peer.page()["tracker_connected"]
    wait_until(lambda: peers[1].status().received["dc"] > 0, "byte from the other node")

    # The next version: the pod is another one, what it keeps is on the node.
    before = (a.identity / "cert.pem").read_bytes()
    peers[0].stop()
    del fleet.secrets["p2pdist-join"]
    a.mount(fleet.secrets)
    c.mount(fleet.secrets)
    again = a.certified()
    assert well(again)
    assert "nothing to do" in again.stderr
    assert (a.identity / "cert.pem").read_bytes() == before
    assert a.start().page()["host_id"] == fleet.host_ids(a)[0]
    assert well(tracker.certified()), "also the tracker's, at each of its starts"
    without = c.certified()
    assert without.returncode == 2
    assert "No such file" in without.stderr


def all_sealed(peer: Daemon) -> bool:
    """Its links, of which there are some; one that just begins is in one of the two counts."""
    page = peer.page()
    return bool(page["links"] == page["links_sealed"] > 0)


def well(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode == 0, done.stderr
    return True


def layer(image: Image) -> str:
    digest: Any = image.layers[0].digest
    return str(digest)
