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
        self.optionxform = str  # type: ignore[assignment]
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


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_limits_and_confines_its_daemon(path: Path) -> None:
    service = dict(_Unit(path).items("Service"))

    for key in ("MemoryHigh", "MemoryMax", "TasksMax", "LimitNOFILE", "WatchdogSec"):
        assert service[key], key
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["Type"] == "notify"
    assert int(service["TimeoutStopSec"]) > 30


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_variables_of_a_unit_are_settings(path: Path) -> None:
    known = {leaf.variable for leaf in all_leaves()}
    lines = dict(_Unit(path).items("Service"))["Environment"].splitlines()

    assert {line.partition("=")[0] for line in lines} <= known


def test_there_is_a_unit_for_each_daemon() -> None:
    assert [path.stem for path in UNITS] == ["p2pdist-peer", "p2pdist-proxy", "p2pdist-tracker"]
