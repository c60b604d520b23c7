"""A daemon's health on real clocks: what it logs and exports."""

from __future__ import annotations

import logging
import time

import pytest

from p2pdist.model.clocks import SKEW_OVER_S, SKEW_TOLERATED_S
from p2pdist.model.health import RULES, Reason
from p2pdist.process.health import Health


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = record.__dict__["fields"]
    return fields


def test_all_reasons_are_exported_always() -> None:
    health = Health()
    health.conditions = lambda: {Reason.STORE_FULL: "no room"}
    health.look()

    values = {s.labels["reason"]: s.value for s in health.samples() if "reason" in s.labels}

    assert values == {reason: float(reason is Reason.STORE_FULL) for reason in Reason}


def test_one_line_when_it_begins_and_one_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    health = Health()
    health.happened(Reason.WRONG_SECRET, "t", "the tracker t has another one")
    for _ in range(5):
        health.look()
    health.mended(Reason.WRONG_SECRET, "t")
    health.look()

    began, over = caplog.records
    assert (began.levelno, began.getMessage()) == (logging.WARNING, "degraded.began")
    assert fields_of(began) == {
        "reason": "wrong_secret",
        "detail": "the tracker t has another one",
        "fix": RULES[Reason.WRONG_SECRET].fix,
    }
    assert (over.levelno, over.getMessage()) == (logging.INFO, "degraded.over")


@pytest.mark.parametrize("ahead_s", [SKEW_TOLERATED_S + 1, -SKEW_TOLERATED_S - 1])
def test_a_skew_begins_above_the_tolerance_and_ends_well_below(ahead_s: float) -> None:
    unix_s = 1_800_000_000.0
    health = Health(unix_s=lambda: unix_s)
    now_s = time.monotonic()
    told_ms = round((unix_s + ahead_s) * 1000)
    health.heard_clock("tracker", "t", told_ms, asked_s=now_s, answered_s=now_s)

    def troubled(left_s: float) -> bool:
        nonlocal unix_s
        unix_s = told_ms / 1000 - (left_s if ahead_s > 0 else -left_s)
        return bool(health.look(now_s))

    assert not troubled(SKEW_TOLERATED_S - 1)
    assert troubled(SKEW_TOLERATED_S + 1)
    assert troubled(SKEW_TOLERATED_S - 1)
    assert not troubled(SKEW_OVER_S - 1)


def test_the_farthest_clock_of_a_kind_is_exported() -> None:
    unix_s = 1_800_000_000.0
    health, now_s = Health(unix_s=lambda: unix_s), time.monotonic()
    for party, ahead_s in {"p1": 2, "p2": -7, "p3": 3}.items():
        told_ms = round((unix_s + ahead_s) * 1000)
        health.heard_clock("proxy", party, told_ms, asked_s=now_s, answered_s=now_s)

    (skew,) = [s for s in health.samples() if s.name == "p2pdist_clock_skew_seconds"]

    assert dict(skew.labels) == {"to": "proxy"}
    assert round(skew.value) == -7


def test_few_descriptors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.process.health.descriptors_used", lambda: 0.95)

    (trouble,) = Health().look()

    assert (trouble.reason, trouble.detail) == (
        Reason.FEW_DESCRIPTORS,
        "95% of the open files that are allowed",
    )
