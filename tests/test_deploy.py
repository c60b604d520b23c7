"""The service units: limits are there, and every flag that they give exists."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from p2pdist.settings import all_leaves

UNITS = sorted((Path(__file__).parents[1] / "deploy" / "systemd").glob("*.service"))


class _Unit(configparser.RawConfigParser):
    """A unit file: keys may stand there more than once; values are joined by newlines."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, interpolation=None, delimiters=("=",), comment_prefixes="#")
        self.optionxform = str  # type: ignore[assignment]  # as its documentation says
        merged: dict[tuple[str, str], list[str]] = {}
        section = ""
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                merged.setdefault((section, key), []).append(value)
        for (name, key), values in merged.items():
            if not self.has_section(name):
                self.add_section(name)
            self.set(name, key, "\n".join(values))


MOUNTS = "p2pdist-snapshotter"
"""The one that is root, in the mount namespace of its host."""
OWN_NAMESPACE = ("Protect", "Private", "ReadOnly", "ReadWrite", "Inaccessible", "Bind", "Temporary")
"""What systemd gives a service a mount namespace for (systemd.exec(5))."""


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_limits_its_daemon(path: Path) -> None:
    service = dict(_Unit(path).items("Service"))

    for key in ("MemoryHigh", "MemoryMax", "TasksMax", "LimitNOFILE", "WatchdogSec"):
        assert service[key], key
    assert service["NoNewPrivileges"] == "yes"
    assert service["Type"] == "notify"
    assert int(service["TimeoutStopSec"]) > 30


@pytest.mark.parametrize(
    "path", [path for path in UNITS if path.stem != MOUNTS], ids=lambda path: path.stem
)
def test_a_unit_confines_its_daemon(path: Path) -> None:
    service = dict(_Unit(path).items("Service"))

    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


def test_what_the_snapshotter_mounts_is_seen_by_the_host_and_outlives_it() -> None:
    unit = _Unit(next(path for path in UNITS if path.stem == MOUNTS))
    service = dict(unit.items("Service"))

    assert [key for key in service if key.startswith(OWN_NAMESPACE)] == []
    assert service["KillMode"] == "process"
    needed = {f"CAP_{name}" for name in ("SYS_ADMIN", "CHOWN", "FSETID", "MKNOD", "SETFCAP")}
    assert needed <= set(service["CapabilityBoundingSet"].split())
    assert "RestrictSUIDSGID" not in service, "layers have files with set-id bits"
    assert "containerd.service" in dict(unit.items("Unit"))["Before"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_variables_of_a_unit_are_settings(path: Path) -> None:
    known = {leaf.variable for leaf in all_leaves()}
    lines = dict(_Unit(path).items("Service"))["Environment"].splitlines()

    assert {line.partition("=")[0] for line in lines} <= known


def test_there_is_a_unit_for_each_daemon() -> None:
    roles = ("peer", "proxy", "snapshotter", "tracker")
    assert [path.stem for path in UNITS] == [f"p2pdist-{role}" for role in roles]
