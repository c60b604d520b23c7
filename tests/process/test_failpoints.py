"""Failpoints do what their plan says, and nothing at all without it."""

from __future__ import annotations

import errno
import logging
import signal
import subprocess
import sys

import pytest

from p2pdist.errors import ConfigError
from p2pdist.process import failpoints
from p2pdist.process.failpoints import ENABLE, PLAN, Failpoints, announce, armed, parse_plan


def planned(text: str) -> Failpoints:
    return Failpoints(parse_plan(text))


def outcomes(points: Failpoints, name: str, times: int) -> list[bool]:
    """Whether the point failed, for each time that it was passed."""
    failed = []
    for _ in range(times):
        try:
            points.point(name)
        except OSError:
            failed.append(True)
        else:
            failed.append(False)
    return failed


def test_an_error_has_its_number_and_names_the_point() -> None:
    with pytest.raises(OSError, match=r"failpoint store\.before_rename") as caught:
        planned("store.before_rename=full").point("store.before_rename")

    assert caught.value.errno == errno.ENOSPC


def test_other_points_do_nothing() -> None:
    assert outcomes(planned("a.b=error"), "a.c", 2) == [False, False]


def test_a_rule_without_a_number_holds_each_time() -> None:
    assert outcomes(planned("a=error"), "a", 3) == [True, True, True]


def test_a_numbered_rule_holds_once() -> None:
    assert outcomes(planned("a=error@2"), "a", 3) == [False, True, False]


def test_a_rule_with_plus_holds_from_then_on() -> None:
    assert outcomes(planned("a=error@2+"), "a", 3) == [False, True, True]


def test_each_point_of_a_plan_counts_for_itself() -> None:
    points = planned("a=error@2, b=error@1")

    assert outcomes(points, "b", 2) == [True, False]
    assert outcomes(points, "a", 2) == [False, True]


@pytest.mark.parametrize(
    "plan",
    ["a", "a=", "a=explode", "a=sleep", "a=error@", "a=error@0", "a=kill;b=kill", "A B=kill"],
)
def test_a_plan_that_cannot_be_read_is_refused(plan: str) -> None:
    with pytest.raises(ConfigError, match="P2PDIST_FAIL"):
        parse_plan(plan)


def test_without_the_second_variable_nothing_is_armed() -> None:
    armed({PLAN: "a=error"})("a")


def test_with_both_variables_the_plan_is_in_force() -> None:
    with pytest.raises(OSError, match="failpoint a"):
        armed({PLAN: "a=error", ENABLE: "1"})("a")


def test_this_process_is_not_armed() -> None:
    assert failpoints.point.__name__ == "_nothing"


@pytest.mark.parametrize(
    ("environ", "events"),
    [
        ({}, []),
        ({ENABLE: "1"}, []),
        ({PLAN: "a=kill"}, ["failpoints.refused"]),
        ({PLAN: "a=kill", ENABLE: "1"}, ["failpoints.armed"]),
    ],
)
def test_a_plan_is_announced_as_a_warning(
    environ: dict[str, str], events: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    announce(environ)

    assert [record.message for record in caplog.records] == events
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_kill_ends_the_process_as_a_crash_would() -> None:
    code = "from p2pdist.process.failpoints import point; point('a'); point('a'); print('alive')"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={PLAN: "a=kill@2", ENABLE: "1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")
