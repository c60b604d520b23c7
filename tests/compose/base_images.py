"""The images that the compose file builds on, made of Debian's packages.

No image registry is asked. The base has the name that the Dockerfile knows, and the services have
the layout of the real ones, so that both files are tried as they are.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from tests.e2e.harness.dockerd import Dockerd
from tests.e2e.harness.processes import run

# Kept between runs: debootstrap takes most of a minute. `make clean` deletes them.
CACHE: Final = Path(__file__).parents[2] / "build" / "compose"
BASE_PACKAGES: Final = "python3,python3-venv,ca-certificates"
BASE_NAME: Final = "python:3.11-slim-bookworm"
REGISTRY_NAME: Final = "debian-registry:test"
PROMETHEUS_NAME: Final = "debian-prometheus:test"
# Debian package, the program in it, and where it goes. busybox is the wget of the real images, too.
PROGRAMS: Final = (
    ("docker-registry", "usr/bin/docker-registry", "usr/bin/registry"),
    ("prometheus", "usr/bin/prometheus", "usr/bin/prometheus"),
    ("busybox-static", "bin/busybox", "usr/bin/wget"),
)
REGISTRY_CONFIG: Final = """\
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000"}
"""
NOBODY: Final = 65534
UNNEEDED: Final = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man")
DEBOOTSTRAP_S: Final = 900.0


def load(dockerd: Dockerd) -> None:
    """Give `dockerd` the base of p2pdist's image, a registry and a Prometheus."""
    base, services = _tars()
    _import(dockerd, base, BASE_NAME)
    _import(
        dockerd,
        services,
        REGISTRY_NAME,
        'ENTRYPOINT ["registry", "serve"]',
        'CMD ["/etc/registry.yml"]',
    )
    _import(dockerd, services, PROMETHEUS_NAME, 'ENTRYPOINT ["prometheus"]', f"USER {NOBODY}")


def _import(dockerd: Dockerd, tar: Path, name: str, *changes: str) -> None:
    options = [word for change in changes for word in ("--change", change)]
    dockerd.command("import", *options, str(tar), name, timeout_s=180.0)


def _tars() -> tuple[Path, Path]:
    """Return the file systems of the base and of the services, made where they are not kept."""
    base, services = CACHE / "base.tar", CACHE / "services.tar"
    if not (base.exists() and services.exists()):
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="p2pe-rootfs-") as work:
            root = Path(work) / "rootfs"
            _debootstrap(root)
            _pack(root, base)
            _add_services(root, Path(work))
            _pack(root, services)
    return base, services


def _debootstrap(root: Path) -> None:
    options = ["--variant=minbase", f"--include={BASE_PACKAGES}"]
    run(["debootstrap", *options, "bookworm", str(root)], timeout_s=DEBOOTSTRAP_S)
    for unneeded in UNNEEDED:
        shutil.rmtree(root / unneeded, ignore_errors=True)


def _add_services(root: Path, work: Path) -> None:
    """Add the programs alone: they need nothing but libc, and no package's service is to start."""
    packages = [package for package, _, _ in PROGRAMS]
    # As root: apt's own user may not write here.
    sandbox = ["-o", "APT::Sandbox::User=root"]
    run(["sh", "-euc", 'cd "$0"; exec "$@"', str(work), "apt-get", *sandbox, "download", *packages])
    for package, program, target in PROGRAMS:
        (deb,) = work.glob(f"{package}_*.deb")
        run(["dpkg-deb", "--extract", str(deb), str(work / package)])
        shutil.copy2(work / package / program, root / target)
    (root / "etc" / "registry.yml").write_text(REGISTRY_CONFIG)
    (root / "var" / "lib" / "registry").mkdir()
    (root / "prometheus").mkdir()
    os.chown(root / "prometheus", NOBODY, NOBODY)


def _pack(root: Path, tar: Path) -> None:
    part = tar.with_suffix(".part")
    run(["tar", "-C", str(root), "--numeric-owner", "-cf", str(part), "."], timeout_s=180.0)
    part.replace(tar)  # whole, or not there
