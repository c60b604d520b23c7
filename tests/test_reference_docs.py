"""The reference of metrics and log events names what there is, all of it, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import aiohttp

from p2pdist.model.health import Reason
from p2pdist.runtime import logs
from tests.fakes.cluster import open_lab, url_of
from tests.fakes.pulling import pull
from tests.fakes.registry import FakeRegistry

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
SOURCES = "\n".join(path.read_text() for path in (ROOT / "p2pdist").rglob("*.py"))


def logged_events() -> set[str]:
    """The event names of all `logs.event(log, level, name, …)` calls."""
    found = {logs.DROPPED}  # made where no logger is
    for path in (ROOT / "p2pdist").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "event":
                name = node.args[2]
                assert isinstance(name, ast.Constant), f"{path}: an event name that is computed"
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


async def test_every_metric_is_documented(tmp_path: Path) -> None:
    exported: set[str] = set()
    async with FakeRegistry() as registry, aiohttp.ClientSession(auto_decompress=False) as client:
        registry.add_image("library/app", "1", [b"layer"])
        async with open_lab(tmp_path, {"docker.io": registry.url}) as lab:
            tracker, proxy, peer = await lab.tracker(), await lab.proxy(), await lab.peer("a")
            await pull(client, url_of(peer.mirror))
            for admin in (tracker.admin, proxy.admin, peer.admin):
                async with client.get(f"{url_of(admin)}/metrics") as answer:
                    page = await answer.text()
                exported |= set(re.findall(r"^# TYPE (p2pdist_\w+)", page, re.MULTILINE))

    pages = documented(r"p2pdist_\w+")
    assert exported - pages == set()
    never_named = {
        name for name in pages - exported if name.removeprefix("p2pdist_") not in SOURCES
    }
    assert never_named == set()
