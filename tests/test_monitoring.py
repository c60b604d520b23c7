"""Boards and alerts as files: what needs a Prometheus is in tests/e2e/test_dashboards.py."""

from __future__ import annotations

import importlib.util
import json
import re
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[1]
GRAFANA: Final = ROOT / "deploy" / "grafana"
BOARDS: Final = sorted((GRAFANA / "dashboards").glob("*.json"))
ALERTS: Final = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
NAMES: Final = re.findall(r"- alert: (\w+)", ALERTS)


@pytest.fixture(scope="module")
def boards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("boards", GRAFANA / "boards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(GRAFANA))  # as for `python deploy/grafana/boards.py`
        spec.loader.exec_module(module)
    return module


def test_the_files_are_what_boards_py_makes(boards: ModuleType) -> None:
    made = {f"{board.uid}.json": boards.text_of(board) for board in boards.BOARDS}

    assert {path.name: path.read_text() for path in BOARDS} == made
    assert len(made) == 6


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_no_panel_covers_another_or_leaves_the_page(path: Path) -> None:
    places = [panel["gridPos"] for panel in json.loads(path.read_text())["panels"]]

    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not [pair for pair in combinations(places, 2) if _overlap(*pair)]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_says_what_it_means(path: Path) -> None:
    for panel in json.loads(path.read_text())["panels"]:
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        exprs = [target["expr"] for target in panel["targets"]]
        assert exprs
        assert not [expr for expr in exprs if "vector(" in expr]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_board_has_the_variables_that_its_queries_use_and_no_others(path: Path) -> None:
    """Grafana leaves one that it does not know as it is: such a query matches nothing."""
    board = json.loads(path.read_text())
    exprs = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {name for expr in exprs for name in re.findall(r"\$(\w+)", expr)}
    known = {variable["name"] for variable in board["templating"]["list"]}

    assert used - {"__rate_interval", "__range"} == known - {"datasource"}


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_section_and_tests_of_both_kinds(name: str) -> None:
    sections = re.findall(r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.M)
    tests = (ROOT / "deploy" / "prometheus" / "tests" / "alerts.yml").read_text()
    own = [part for part in tests.split("  - name: ") if part.startswith(f'"{name}:')]

    assert name in sections
    assert f"runbook_url: docs/operations.md#{name.lower()}\n" in ALERTS
    assert any("exp_samples: [{" in part for part in own)
    assert any("exp_samples: []" in part for part in own)


def test_no_section_is_about_an_alert_that_is_gone() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()

    assert re.findall(r"^### (P2pdist\w+)$", text, re.M) == NAMES


def test_a_metric_of_a_board_or_rule_is_documented() -> None:
    recorded = (ROOT / "deploy" / "prometheus" / "recording.yml").read_text()
    used = set(re.findall(r"\bp2pdist_\w+", ALERTS + recorded))
    used |= {name for path in BOARDS for name in re.findall(r"\bp2pdist_\w+", path.read_text())}
    documented = (ROOT / "docs" / "metrics.md").read_text()
    metrics = {name.removesuffix("_bucket") for name in used}

    assert not [name for name in metrics if f"`{name}`" not in documented]


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
