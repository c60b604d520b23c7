"""Background tasks end with their owner; log lines are one JSON object each."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from p2pdist.process import logs
from p2pdist.process.tasks import TaskOwner


async def test_closing_ends_what_still_runs() -> None:
    owner = TaskOwner("test")
    task = owner.start(asyncio.Event().wait(), name="for ever")

    await owner.close()

    assert task.cancelled()
    assert len(owner) == 0


async def test_a_crash_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def crash() -> None:
        raise RuntimeError("a bug")

    owner = TaskOwner("test")
    task = owner.start(crash(), name="crash")
    with pytest.raises(RuntimeError, match="a bug"):
        await task
    await asyncio.sleep(0)

    assert owner.crashes_total == 1
    assert [r.message for r in caplog.records] == ["task.crashed"]


def line_of(record: logging.LogRecord) -> dict[str, object]:
    line: dict[str, object] = json.loads(logs.JsonLines("peer").format(record))
    return line


def test_a_line_has_time_level_event_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logs.event(logging.getLogger("x"), logging.INFO, "blob.sealed", bytes=7, digest="sha256:0")

    line = line_of(caplog.records[0])
    assert line.pop("ts").__class__ is str
    assert line == {
        "level": "info",
        "event": "blob.sealed",
        "role": "peer",
        "bytes": 7,
        "digest": "sha256:0",
    }


def test_a_line_break_in_a_field_does_not_break_the_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logs.event(logging.getLogger("x"), logging.WARNING, "peer.fault", error="a\n{}")

    assert "\n" not in logs.JsonLines().format(caplog.records[0])


def test_times_are_utc_with_milliseconds() -> None:
    assert logs._timestamp(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"


def test_what_is_below_the_level_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        logs.event(logging.getLogger("x"), logging.INFO, "chunk.stored")

    assert caplog.records == []


def test_what_others_can_bring_about_is_logged_sparingly_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    sparing = logs.Sparing(lambda: now_s)
    for _ in range(100):
        sparing.event(logging.getLogger("sparing"), logging.WARNING, "test.refused")
    now_s = logs.Sparing.PER_S
    sparing.event(logging.getLogger("sparing"), logging.WARNING, "test.refused")

    assert len(caplog.records) == logs.Sparing.LINES + 1
    assert caplog.records[-1].fields == {"unlogged": 95}  # type: ignore[attr-defined]  # of our own logs
