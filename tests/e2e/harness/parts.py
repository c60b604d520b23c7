"""What the end-to-end tests need of the machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.e2e.harness.clients import CONTAINERD
from tests.e2e.harness.dockerd import DOCKER, DOCKERD

# Program, and the Debian package that brings it.
PROGRAMS: Final = (
    (DOCKER, "docker.io"),
    (DOCKERD, "docker.io"),
    ("docker-registry", "docker-registry"),
    (CONTAINERD, "containerd"),
    ("ctr", "containerd"),
    ("podman", "podman"),
    ("buildah", "buildah"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables", "iptables"),
    ("sysctl", "procps"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("groff", "groff"),
    ("lexgrog", "man-db"),
)
# Five clients with a 300 MB image each, packed and unpacked, and the stores of six daemons.
FREE_BYTES_MIN: Final = 8_000_000_000
PROBE_S: Final = 10.0
# Everything that the lab asks of the kernel, in namespaces that end with the shell.
_PROBE: Final = """
mount -t tmpfs tmpfs /run
ip link add name probe0 type veth peer name probe1
ip link add name probe2 type bridge
tc qdisc add dev probe0 root tbf rate 100mbit burst 64k limit 64k
iptables -A OUTPUT -d 192.0.2.1 -j DROP
"""


def missing_parts() -> list[str]:
    """Return what this machine lacks for the end-to-end tests, in words; empty: nothing."""
    missing = []
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        missing.append("Linux on x86-64")
    if os.geteuid() != 0:
        missing.append("root")
    missing += [
        f"{program} (Debian package {package})"
        for program, package in PROGRAMS
        if shutil.which(program) is None
    ]
    if not Path("/dev/fuse").exists():
        missing.append("FUSE (/dev/fuse)")
    if shutil.disk_usage(tempfile.gettempdir()).free < FREE_BYTES_MIN:
        missing.append(f"{FREE_BYTES_MIN / 1e9:.0f} GB free in {tempfile.gettempdir()}")
    if not missing:
        missing += _missing_abilities()
    return missing


def _missing_abilities() -> list[str]:
    missing = []
    if " - cgroup" not in Path("/proc/self/mountinfo").read_text():
        missing.append("mounted cgroups")
    probe = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-euc", _PROBE],
        capture_output=True,
        text=True,
        timeout=PROBE_S,
        check=False,
    )
    if probe.returncode != 0:
        missing.append(f"network and mount namespaces ({probe.stderr.strip()})")
    return missing
