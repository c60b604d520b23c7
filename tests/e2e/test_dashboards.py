"""Every query of every board, alert and recording rule, against a real Prometheus and a release."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.dashboards.expected import FIRING, RANGE_S, WINDOW_S, Key, Range, expected
from tests.e2e.dashboards.prometheus import DEPLOY, Labels, Prometheus, running_prometheus
from tests.e2e.dashboards.release import Release, open_release
from tests.e2e.harness.processes import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

RULES: Final = DEPLOY / "prometheus"
BOARDS: Final = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
OPERATIONS: Final = (DEPLOY.parent / "docs" / "operations.md").read_text()
PROMTOOL: Final = re.findall(r"^    (promtool .*?)(?: *#.*)?$", OPERATIONS, re.MULTILINE)
# Scrapes and rules come every second: what happened last is seen by all rules after three.
SETTLED_S: Final = 4.0
COMPARISON: Final = re.compile(r"(>=|<=|==|!=|>|<)(?![^{]*})")


@pytest.mark.parametrize("command", PROMTOOL)
def test_what_operations_md_asks_of_promtool_succeeds(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DEPLOY.parent)

    run(["bash", "-c", command])


def test_operations_md_has_configuration_rules_and_alerts_tried() -> None:
    said = "\n".join(PROMTOOL)

    assert "check config deploy/prometheus/prometheus.yml" in said
    assert "test rules deploy/prometheus/tests/alerts.yml" in said


async def test_every_query_tells_the_truth_about_a_release(tmp_path: Path) -> None:
    async with (
        open_release(tmp_path / "lab") as release,
        running_prometheus(tmp_path / "prom", release.targets, release.client) as prometheus,
    ):
        await prometheus.scraped(len(release.targets))
        await release.run()
        await asyncio.sleep(SETTLED_S)
        wrong = await _wrong_panels(prometheus, release)
        wrong += await _wrong_variables(prometheus)
        wrong += await _wrong_rules(prometheus)

    assert not wrong, "\n".join(wrong)


# --- boards -------------------------------------------------------------------------------------


async def _wrong_panels(prometheus: Prometheus, release: Release) -> list[str]:
    wanted, seen, wrong = expected(release), set(), []
    for key, target in _targets():
        seen.add(key)
        found = await prometheus.query(_filled(target["expr"], release))
        if key not in wanted:
            wrong.append(f"{key}: nobody says what it should show")
            continue
        shown = {_legend(target["legendFormat"], labels): value for labels, value in found}
        if len(shown) != len(found):
            wrong.append(f"{key}: two lines of one name")
        wrong += [f"{key}: {text}" for text in _differences(wanted[key], shown)]
    return wrong + [f"{key}: no board has it" for key in wanted.keys() - seen]


def _targets() -> Iterator[tuple[Key, dict[str, Any]]]:
    for path in BOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield (board["uid"], panel["title"], target["refId"]), target


def _filled(expr: str, release: Release) -> str:
    """What Grafana puts in place of its variables."""
    host = re.escape(str(release.peers["web-1"].admin)).replace("\\", "\\\\")
    values = {
        "$__rate_interval": f"{WINDOW_S:.0f}s",
        "$__range": f"{RANGE_S:.0f}s",
        "$instance": host,
        **dict.fromkeys(("$dc", "$prewarm", "$upstream"), ".*"),
    }
    for name, value in values.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def _legend(text: str, labels: Labels) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels[match[1]], text)


def _differences(wanted: Mapping[str, Range], shown: Mapping[str, float]) -> Iterator[str]:
    if not shown:
        yield "empty"
        return
    for name in wanted.keys() ^ shown.keys():
        yield f"{name!r} is {'missing' if name in wanted else f'there: {shown[name]}'}"
    for name in wanted.keys() & shown.keys():
        low, high = wanted[name]
        if not low <= shown[name] <= high:  # NaN is in no range
            yield f"{name!r} is {shown[name]:g}, not within {low:g} and {high:g}"


async def _wrong_variables(prometheus: Prometheus) -> list[str]:
    wrong = []
    for path in BOARDS:
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                query = variable["query"]["query"]
                match = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
                assert match, query
                if not await prometheus.label_values(match[2], match[1]):
                    wrong.append(f"{path.name}: {query} has no value")
    return wrong


# --- rules --------------------------------------------------------------------------------------


async def _wrong_rules(prometheus: Prometheus) -> list[str]:
    wrong, alerts = [], set()
    for rule in await prometheus.rules():
        name, query = rule["name"], rule["query"]
        if rule["health"] != "ok":
            wrong.append(f"{name}: {rule.get('lastError', rule['health'])}")
        if rule["type"] == "recording":
            recorded, now = await prometheus.query(name), await prometheus.query(query)
            if not now or len(recorded) != len(now):
                wrong.append(f"{name}: {len(recorded)} series recorded, {len(now)} now")
            continue
        alerts.add(name)
        # `bool` shows the series of an alert that does not fire, as 0.
        values = [value for _, value in await prometheus.query(COMPARISON.sub(r"\1 bool", query))]
        if not values:
            wrong.append(f"{name}: looks at nothing: {query}")
        elif any(values) != (name in FIRING):
            wrong.append(f"{name}: {'holds' if any(values) else 'does not hold'}: {values}")
    return wrong + [f"{name}: no such alert" for name in FIRING - alerts]
