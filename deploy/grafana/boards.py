"""Makes the Grafana boards: `python deploy/grafana/boards.py` writes `dashboards/*.json` anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from panels.datacenters import DATACENTERS
from panels.host import HOST
from panels.lazy import LAZY
from panels.overview import OVERVIEW
from panels.parts import Board, Panel, Variable
from panels.release import RELEASE
from panels.upstreams import UPSTREAMS

DIRECTORY: Final = Path(__file__).parent / "dashboards"
WIDTH: Final = 24
BOARDS: Final = (OVERVIEW, DATACENTERS, RELEASE, HOST, UPSTREAMS, LAZY)


def render(board: Board) -> dict[str, Any]:
    """The board as Grafana imports it (schema 39, Grafana 10 and later)."""
    panels, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(board.panels, 1):
        if x + panel.width > WIDTH:
            x, y, row = 0, y + row, 0
        place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
        panels.append({"id": number, "gridPos": place, **_panel(panel)})
        x, row = x + panel.width, max(row, panel.height)
    datasource = {
        "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus",
    }  # fmt: skip
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.help,
        "tags": ["p2pdist"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [datasource, *map(_variable, board.variables)]},
        "links": [
            {"type": "dashboards", "tags": ["p2pdist"], "title": "p2pdist", "asDropdown": True}
        ],
        "panels": panels,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": "orange", "value": panel.warn}] if panel.warn is not None else []
    steps += [{"color": "red", "value": panel.bad}] if panel.bad is not None else []
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + at), "expr": query.expr, "legendFormat": query.legend}
            for at, query in enumerate(panel.queries)
        ],
    }


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "multi": variable.many,
        "includeAll": variable.many,
        "allValue": ".*" if variable.many else None,
    }


def text_of(board: Board) -> str:
    return json.dumps(render(board), indent=1) + "\n"


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for board in BOARDS:
        (DIRECTORY / f"{board.uid}.json").write_text(text_of(board))


if __name__ == "__main__":
    main()
