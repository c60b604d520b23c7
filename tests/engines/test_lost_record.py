"""Engines whose record was cleared with the state directory: each command says the same of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pdist.cli.runtime import runtime
from p2pdist.doctor.runtimes import _containerd, _containers_image, _docker
from p2pdist.engines.containerd import Containerd
from p2pdist.engines.containers_image import DROP_INS, OWN, Crio, Podman
from p2pdist.engines.docker import Docker
from tests.engines.hosts import MIRROR, EngineHost

DAEMON_JSON = "/etc/docker/daemon.json"
HOSTS_TOML = "/etc/containerd/certs.d/_default/hosts.toml"
OTHER_HOSTS = "/etc/containerd/certs.d/docker.io/hosts.toml"
DROP_IN = f"{DROP_INS}/{OWN}"
ENGINES = {"docker": Docker, "containerd": Containerd, "podman": Podman, "crio": Crio}
FILES = {
    "docker": {DAEMON_JSON: b'{\n  "debug": true\n}\n'},
    "containerd": {OTHER_HOSTS: b'server = "https://registry-1.docker.io"\n'},
    "podman": {},
    "crio": {},
}
ADDRESS = MIRROR.partition("//")[2]
ASKS = {
    "docker": _docker,
    "containerd": _containerd,
    "podman": _containers_image,
    "crio": _containers_image,
}


def host_of(name: str, root: Path) -> EngineHost:
    """A host with the engine's own files, an installation, and no record of it any more."""
    host = EngineHost(root, ENGINES[name]())
    for path, content in FILES[name].items():
        host.put(path, content)
    host.install()
    shutil.rmtree(host.state)
    return host


def say(host: EngineHost, *words: str) -> str:
    common = ["--root", str(host.root), "--state-dir", str(host.state)]
    result = CliRunner().invoke(runtime, [*words, *common], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ENGINES)
def test_uninstall_takes_our_part_out_and_says_what_it_did(name: str, tmp_path: Path) -> None:
    host = host_of(name, tmp_path)
    assert ASKS[name](host.root, ADDRESS)

    said = say(host, "uninstall", "--engine", name)

    assert not ASKS[name](host.root, ADDRESS)
    assert "no record of what was there before" in said
    for path, content in FILES[name].items():
        assert host.read(path) == content
    assert not any(path.is_file() for path in host.state.rglob("*"))
    assert f"{name}: not installed" in say(host, "status")
    assert "not installed" in say(host, "uninstall", "--engine", name)


@pytest.mark.parametrize("name", ENGINES)
def test_status_install_and_doctor_agree_before_it(name: str, tmp_path: Path) -> None:
    host = host_of(name, tmp_path)
    before = host.everything()

    status = say(host, "status")
    install = say(host, "install", "--engine", name)

    assert "already installed" in install
    assert f"{name}: a mirror in " in status
    assert "(without a record)" in status
    assert ASKS[name](host.root, ADDRESS)
    assert host.everything() == before


@pytest.mark.parametrize("name", ENGINES)
def test_a_dry_run_shows_it_and_changes_nothing(name: str, tmp_path: Path) -> None:
    host = host_of(name, tmp_path)
    before = host.everything()

    assert ADDRESS in say(host, "uninstall", "--engine", name, "--dry-run")

    assert host.everything() == before
    assert not host.state.exists()


def test_another_peer_than_the_usual_one_is_named(tmp_path: Path) -> None:
    host = EngineHost(tmp_path, Docker())
    host.install(mirror="http://10.0.0.1:5300")
    shutil.rmtree(host.state)

    missed = say(host, "uninstall", "--engine", "docker")
    found = say(host, "uninstall", "--engine", "docker", "--mirror", "http://10.0.0.1:5300")

    assert f"nothing of docker points to {MIRROR}" in missed
    assert "removed" in found
    assert host.read(DAEMON_JSON) is None


@pytest.mark.parametrize(
    ("name", "path", "content"),
    [
        ("docker", DAEMON_JSON, json.dumps({"registry-mirrors": ["https://a.test"]}).encode()),
        ("docker", DAEMON_JSON, b'{"registry-mirrors": "http://127.0.0.1:5300"}'),
        ("docker", DAEMON_JSON, b""),
        ("containerd", HOSTS_TOML, f'[host."{MIRROR}"]\n'.encode()),
        ("podman", DROP_IN, b"# mine\n"),
    ],
)
def test_what_others_wrote_stays(name: str, path: str, content: bytes, tmp_path: Path) -> None:
    host = EngineHost(tmp_path, ENGINES[name]())
    host.put(path, content)

    assert "not installed" in say(host, "uninstall", "--engine", name)

    assert host.read(path) == content


def test_the_file_that_another_engine_has_on_record_is_not_podmans(tmp_path: Path) -> None:
    crio = EngineHost(tmp_path, Crio())
    crio.install()
    before = crio.everything()

    said = say(EngineHost(tmp_path, Podman()), "uninstall", "--engine", "podman")

    assert "not installed" in said
    assert crio.everything() == before


@pytest.mark.parametrize("name", ["containerd", "podman"])
def test_what_is_installed_anew_beside_a_lost_record_can_be_taken_back(
    name: str, tmp_path: Path
) -> None:
    """The block of the lost installation is not taken for what was there before."""
    host = host_of(name, tmp_path)

    host.install(mirror="http://10.0.0.1:5300")
    host.uninstall()

    assert not ASKS[name](host.root, ADDRESS)
    assert not ASKS[name](host.root, "10.0.0.1:5300")
