"""A datacenter of two hosts: one that has all roles, and one with a peer."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.ansible.hosts import BIN, ROOT, Control, Machine
from tests.conftest import REQUIRE_E2E
from tests.e2e.harness.lab import Lab, open_lab
from tests.e2e.harness.processes import run

# Kept between runs. `make clean` deletes them.
PACKAGES: Final = ROOT / "build" / "ansible-packages"
PROGRAMS: Final = ("ip", "nsenter", "setpriv", "sysctl", "unshare", "useradd")
# Of `edge`: flags that `uninstall` does not have, and one that it needs.
OTHER_DAEMON_JSON: Final = "/etc/docker/other.json"
ENGINES: Final = [
    {"name": "podman", "options": ["--registry=docker.io", "--registry=ghcr.io"]},
    {"name": "docker", "options": [f"--docker-config={OTHER_DAEMON_JSON}"]},
]


def missing_parts() -> list[str]:
    missing = [] if os.geteuid() == 0 else ["root"]
    if not (BIN / "ansible-playbook").exists():
        missing.append("ansible-core (make test-ansible installs it)")
    return missing + [program for program in PROGRAMS if shutil.which(program) is None]


@dataclass(frozen=True)
class Datacenter:
    control: Control
    core: Machine
    edge: Machine


@pytest.fixture(scope="session", autouse=True)
def _parts() -> None:
    if not (missing := ", ".join(missing_parts())):
        return
    if os.environ.get(REQUIRE_E2E) == "1":
        pytest.fail(f"{REQUIRE_E2E}=1, but missing: {missing}", pytrace=False)
    pytest.skip(f"missing: {missing}")


@pytest.fixture(scope="session")
def packages(_parts: None) -> Path:
    """The packages of the lock file: hosts have no way to an index."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(PACKAGES)]
    lock = str(ROOT / "requirements.lock")
    run([*download, "--require-hashes", "--requirement", lock], timeout_s=300.0)
    return PACKAGES


@pytest.fixture(scope="module")
def datacenter(packages: Path) -> Iterator[Datacenter]:
    with open_lab() as lab:
        core, edge = _machine("core", lab, packages), _machine("edge", lab, packages)
        groups = {"trackers": [core], "proxies": [core], "peers": [core, edge]}
        control = Control(lab, groups)
        control.host_vars["edge"] = {"p2pdist_engines": ENGINES}
        address = core.host.address
        options = ["--tracker", address, "--proxy", address, "--dir", str(control.files)]
        run([sys.executable, "-m", "p2pdist.cli.main", "cluster", "init", *options])
        yield Datacenter(control, core, edge)


def _machine(name: str, lab: Lab, packages: Path) -> Machine:
    machine = Machine(name, lab, packages)
    lab.own(machine)
    machine.start()
    return machine
