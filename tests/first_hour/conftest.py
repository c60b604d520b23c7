"""What is set up once: the installed program, and registries that images come from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.conftest import REQUIRE_E2E
from tests.e2e.harness.image import Image, build_image
from tests.e2e.harness.lab import Lab, open_lab
from tests.e2e.harness.registry import Registry
from tests.fakes.certificates import Authority
from tests.first_hour import roots
from tests.first_hour.roots import USER, Machine
from tests.first_hour.texts import INSTALL, README, blocks

REGISTRIES: Final = ("registry-1.docker.io", "ghcr.io")
# Of no private range, which a proxy would not read from without being told so.
REGISTRY_ADDRESS: Final = "52.94.0.1"
LAYER_BYTES: Final = (12_000_000, 5_000_000, 100_000)
TRUSTED: Final = "usr/local/share/ca-certificates/lab.crt"


@dataclass(slots=True)
class World:
    """The lab, what is installed in it, and what is in the registry."""

    lab: Lab
    registry: Registry
    image: Image
    installed: Machine
    """Its files are those of every host."""

    def host(self, name: str, address: str | None = None, *, docker: bool = True) -> Machine:
        """Return a host that runs Docker, unless told otherwise, and where the program is
        installed; `address`: one that the texts name."""
        host = self.lab.host(name)
        if address is not None:
            host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "route", "add", REGISTRY_ADDRESS, "dev", "eth0")
        lowers = (self.installed.upper, *self.installed.lowers)
        machine = Machine(name, lowers, self.lab.work, host)
        self.lab.own(machine)
        machine.start()
        if docker:
            machine.start_docker()
        return machine


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    if shutil.which("debootstrap") is None:
        if os.environ.get(REQUIRE_E2E) == "1":
            pytest.fail(f"{REQUIRE_E2E}=1, but missing: debootstrap", pytrace=False)
        pytest.skip("missing: debootstrap")
    with open_lab() as lab:
        image = build_image(lab.work / "layout", layer_bytes=LAYER_BYTES)
        authority = Authority(lab.work)
        registry = _registry(lab, image, authority)
        yield World(lab, registry, image, _installed(lab, authority))


def _registry(lab: Lab, image: Image, authority: Authority) -> Registry:
    """Docker Hub and ghcr.io, as far as the texts go there."""
    host = lab.host("registries")
    host.run("ip", "address", "add", f"{REGISTRY_ADDRESS}/32", "dev", "eth0")
    storage = lab.work / "storage"
    plain = lab.registry(host, storage)
    plain.push(image, "library/alpine:latest")
    plain.process.stop()
    registry = Registry(host, storage, lab.work, tls=authority.issue(*REGISTRIES))
    lab.own(registry.process)
    registry.start()
    return registry


def _installed(lab: Lab, authority: Authority) -> Machine:
    """A machine on which README.md's lines for root and docs/install.md's for a user were typed."""
    machine = Machine("installed", [roots.debian()], lab.work, None)
    roots.put_checkout(machine.upper)
    pip = roots.pip_of_this_machine(machine.upper)
    lab.own(machine)
    machine.start()
    home = f"/home/{USER}"
    machine.run(
        f"useradd --shell /bin/bash {USER}; cp -r /etc/skel/. {home}; chown -R {USER}: {home}"
    )
    machine.run(blocks(README)["install"], env=pip)
    machine.run("apt install pipx")
    machine.run(blocks(INSTALL)["pipx"], user=USER, env=pip)
    shutil.copy2(authority.file, machine.upper / TRUSTED)
    names = " ".join(REGISTRIES)
    machine.run(f"update-ca-certificates; echo {REGISTRY_ADDRESS} {names} >>/etc/hosts")
    machine.stop()
    return machine
