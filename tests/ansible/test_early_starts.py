"""Early starts on a plain host with a containerd, in the order of its life."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.ansible.conftest import Datacenter
from tests.ansible.hosts import Machine, Played
from tests.conftest import REQUIRE_E2E
from tests.e2e.harness.processes import wait_until

pytestmark = [pytest.mark.timeout(600)]

UNIT: Final = """\
[Service]
Type=notify
ExecStart=/usr/bin/containerd
"""
CONFIG: Final = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\n'
ENGINES: Final = [
    {"name": "podman", "options": ["--registry=docker.io", "--registry=ghcr.io"]},
    {"name": "docker"},
    {"name": "containerd"},
]
SNAPSHOTTER: Final = "snapshotter"
STATE: Final = "/var/lib/p2pdist/snapshotter"
NOT_OURS: Final = re.compile(r"(run|var/log)/.*|.*/multi-user\.target\.wants")


@pytest.fixture(scope="module", autouse=True)
def _engines() -> None:
    missing = [name for name in ("containerd", "ctr") if shutil.which(name) is None]
    missing += [] if Path("/dev/fuse").exists() else ["/dev/fuse"]
    if not missing:
        return
    if os.environ.get(REQUIRE_E2E) == "1":
        pytest.fail(f"{REQUIRE_E2E}=1, but missing: {', '.join(missing)}", pytrace=False)
    pytest.skip(f"missing: {', '.join(missing)}")


@pytest.fixture(scope="module")
def host(datacenter: Datacenter) -> Iterator[Machine]:
    """A peer's host, whose containerd runs."""
    machine = datacenter.edge
    datacenter.control.host_vars["edge"] = {"p2pdist_engines": ENGINES}
    put(machine, "/etc/systemd/system/containerd.service", UNIT)
    put(machine, "/etc/containerd/config.toml", CONFIG)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "containerd")
    yield machine
    machine.run("systemctl", "stop", "containerd")


def put(machine: Machine, path: str, text: str) -> None:
    machine.run("sh", "-euc", 'printf %s "$2" > "$1"', "sh", path, text)


def play(datacenter: Datacenter, *options: str, **given: bool) -> Played:
    return datacenter.control.play("site.yml", "--limit=edge", *options, **given)


def run_of(machine: Machine, unit: str) -> str:
    return machine.run("systemctl", "show", "--property=InvocationID", "--value", unit)


def snapshots(machine: Machine, *words: str) -> str:
    """What containerd answers that has been told of our snapshotter."""
    return machine.run("ctr", "snapshots", "--snapshotter", "p2pdist", *words)


def exists(machine: Machine, path: str) -> bool:
    return machine.run("sh", "-c", 'test -e "$1" && echo yes; :', "sh", path).strip() == "yes"


def is_mounted(machine: Machine) -> bool:
    return f" {STATE}/mnt " in machine.run("cat", "/proc/mounts")


def changed_at(machine: Machine, path: str) -> float:
    return float(machine.run("stat", "--format=%.Y", path))


def test_check_mode_changes_nothing(datacenter: Datacenter, host: Machine) -> None:
    before = host.written()

    played = play(datacenter, "--check", p2pdist_early_starts=True)

    assert played.code == 0, played.text
    assert {path for path in host.written() - before if not NOT_OURS.fullmatch(path)} == set()


def test_the_snapshotter_is_up_before_containerd_names_it(
    datacenter: Datacenter, host: Machine
) -> None:
    before = run_of(host, "containerd")

    played = play(datacenter, p2pdist_early_starts=True, p2pdist_restart_engines=True)

    assert played.code == 0, played.text
    assert set(host.daemons()) == {"peer", SNAPSHOTTER}
    assert "containerd was restarted: early starts are new" in played.text
    assert run_of(host, "containerd") != before
    assert "KEY" in snapshots(host, "list")
    began = changed_at(host, "/run/p2pdist-snapshotter.pid")
    for named in ("/etc/containerd/config.toml", "/etc/containers/storage.conf"):
        assert began < changed_at(host, named)
    assert f'"{STATE}/images"' in host.run("cat", "/etc/containers/storage.conf")
    assert "storage-driver" not in host.run("cat", "/etc/docker/daemon.json")


@pytest.mark.parametrize("given", [{"p2pdist_early_starts": True}, {}], ids=["again", "unset"])
def test_another_run_changes_nothing(
    datacenter: Datacenter, host: Machine, given: dict[str, bool]
) -> None:
    before = host.daemons(), run_of(host, "containerd")

    played = play(datacenter, p2pdist_restart_engines=True, **given)

    assert played.code == 0, played.text
    assert played.changed() == 0, played.text
    assert (host.daemons(), run_of(host, "containerd")) == before


def test_what_is_in_use_stays_and_is_named(datacenter: Datacenter, host: Machine) -> None:
    before = host.daemons(), run_of(host, "containerd")
    snapshots(host, "prepare", "in-use")

    off = play(datacenter, p2pdist_early_starts=False, p2pdist_restart_engines=True)
    undone = datacenter.control.play("undo.yml", "--limit=edge")

    assert off.code == 0, off.text
    assert "containerd: early starts stay as they are. " in off.text
    assert "drain this host" in off.text
    assert "p2pdist-snapshotter stays, it is needed: containerd: early starts by" in off.text
    assert undone.code != 0
    assert "drain this host" in undone.text
    assert (host.daemons(), run_of(host, "containerd")) == before
    assert "in-use" in snapshots(host, "list")
    assert not exists(host, "/etc/containers/storage.conf"), "nobody refused that"


def test_the_snapshotter_stays_until_containerd_forgot_it(
    datacenter: Datacenter, host: Machine
) -> None:
    snapshots(host, "remove", "in-use")
    kept = ["sh", "-c", f"ls {STATE}/snapshots {STATE}/layers | grep -v :; :"]
    wait_until(lambda: not host.run(*kept).strip(), "end of what containerd had by it")
    before = run_of(host, "containerd")

    off = play(datacenter, p2pdist_early_starts=False)
    again = play(datacenter, p2pdist_early_starts=False)

    for played in (off, again):
        assert played.code == 0, played.text
        assert "containerd wants a restart: early starts are out of config.toml" in played.text
        assert "stays, it is needed: containerd was not restarted" in played.text
    assert again.changed() == 0, again.text
    assert SNAPSHOTTER in host.daemons()
    assert run_of(host, "containerd") == before
    assert "proxy_plugins" not in host.run("cat", "/etc/containerd/config.toml")

    host.run("systemctl", "restart", "containerd")
    gone = play(datacenter, p2pdist_early_starts=False)
    after = play(datacenter, p2pdist_early_starts=False)

    assert gone.code == after.code == 0, gone.text
    assert after.changed() == 0, after.text
    assert set(host.daemons()) == {"peer"}
    assert not is_mounted(host)
    for path in ("systemd/system/p2pdist-snapshotter.service", "p2pdist/conf.d/early-starts.toml"):
        assert not exists(host, f"/etc/{path}")


def test_undo_takes_it_along(datacenter: Datacenter, host: Machine) -> None:
    on = play(datacenter, p2pdist_early_starts=True, p2pdist_restart_engines=True)
    assert on.code == 0, on.text
    assert is_mounted(host)
    assert "KEY" in snapshots(host, "list")
    before = run_of(host, "containerd")

    options = {"p2pdist_purge": True, "p2pdist_restart_engines": True}
    played = datacenter.control.play("undo.yml", "--limit=edge", **options)

    assert played.code == 0, played.text
    assert run_of(host, "containerd") != before
    assert host.daemons() == {}
    assert not is_mounted(host)
    assert host.run("cat", "/etc/containerd/config.toml") == CONFIG
    left = {path for path in host.left() if not NOT_OURS.fullmatch(path)}
    assert {path for path in left if "p2pdist" in path} == set()
