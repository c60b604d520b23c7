"""The audit log: bounded, whoever asks how often, and not at the mercy of `log.level`."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from p2pdist.process import audit, logs


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(clock: Clock) -> audit.Refusals:
    return audit.Refusals(clock)


def refuse(refusals: audit.Refusals, peer: str, reason: str = "unauthorized") -> None:
    refusals.event(
        audit.log, logging.WARNING, "job.refused", who=audit.NOBODY, peer=peer, reason=reason
    )


def said(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in caplog.records]  # type: ignore[attr-defined]  # of `logs`


def test_the_same_of_one_network_is_said_once_a_minute_with_how_often(
    refusals: audit.Refusals, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        refuse(refusals, "192.0.2.1")
    refuse(refusals, "192.0.2.1", "wrong_role")
    clock.now_s = 61.0
    refuse(refusals, "192.0.2.1")

    assert [(f["reason"], f["refused"]) for f in said(caplog)] == [
        ("unauthorized", 1), ("wrong_role", 1), ("unauthorized", 1000),
    ]  # fmt: skip
    assert {(f["audit"], f["who"], f["peer"]) for f in said(caplog)} == {
        ("refused", "nobody", "192.0.2.1")
    }


def test_many_networks_at_once_are_a_few_lines_and_a_count(
    refusals: audit.Refusals, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5000):
        refuse(refusals, f"2001:db8:{number >> 8:x}:{number & 255:x}::1")
    assert len(said(caplog)) == logs.Sparing.LINES
    clock.now_s = 11.0
    refuse(refusals, "192.0.2.1")
    assert said(caplog)[-1]["unlogged"] == 5000 - logs.Sparing.LINES


def test_it_is_said_whatever_the_level_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        logs.event(audit.log, logging.INFO, "job.changed", audit="done", who="operator x")
        logs.event(logging.getLogger("p2pdist.x"), logging.INFO, "job.else")
    finally:
        root.setLevel(before)
    assert [record.getMessage() for record in caplog.records] == ["job.changed"]
