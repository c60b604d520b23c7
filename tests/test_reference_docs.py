"""The reference of metrics and log events names what there is, all of it, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from p2pdist.model.health import Reason
from p2pdist.process import logs

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "metrics.md").read_text()


def logged_events() -> set[str]:
    """The event names of all `logs.event(log, level, name, …)` calls."""
    found = {logs.DROPPED}  # made where no logger is
    for path in (ROOT / "p2pdist").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "event":
                name = node.args[2]
                assert isinstance(name, ast.Constant), f"{path}: an event name that is computed"
                assert isinstance(name.value, str), f"{path}: an event name that is no text"
                found.add(name.value)
    return found


def documented(pattern: str) -> set[str]:
    return set(re.findall(rf"`({pattern})`", PAGE))


def test_every_log_event_is_documented() -> None:
    assert documented(r"[a-z-]+\.[a-z_]+") == logged_events()


def test_nothing_has_two_rows() -> None:
    first_cells = re.findall(r"^\| (.+?) \|", PAGE, re.MULTILINE)
    names = [name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)]

    assert {name: names.count(name) for name in names if names.count(name) > 1} == {}


def test_every_reason_to_be_degraded_is_documented() -> None:
    (row,) = re.findall(r"^\| `p2pdist_degraded` .*$", PAGE, re.MULTILINE)
    (reasons,) = re.findall(r"reason: ([\w, ]+)", row)

    assert sorted(reasons.strip().split(", ")) == sorted(Reason)
