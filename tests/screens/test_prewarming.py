"""What `prewarm` shows before, while and after, its list, and `replicas`."""

from __future__ import annotations

from typing import Any

import pytest

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.prewarming.frame import Screen, frame
from p2pdist.cli.prewarming.outcome import listing, outcome_lines
from p2pdist.cli.prewarming.picture import Picture
from p2pdist.cli.prewarming.plan import plan_lines
from p2pdist.cli.prewarming.standing import Standing
from p2pdist.cli.prewarming.trackers import Planned
from p2pdist.cli.replicas import standing_lines
from p2pdist.model.jobs import DcPlan, JobImage, JobPlan, JobSpec, JobStatus
from tests.cli.prewarming.test_frame import DC1, DC2, FAILED, LOST, NOW_S, SLOW, job
from tests.screens.golden import COLUMNS, is_screen

RUN = "run-4f2a9c1b"
IMAGE = "registry.corp/shop/api:2.4"
SCREEN = Screen(COLUMNS, 24)
DIGEST, OLDER = "sha256:" + "b7" * 32, "sha256:" + "0c" * 32


def of(*dcs: Any, **fields: Any) -> JobStatus:
    return job(images=[IMAGE], dcs=list(dcs), **fields)


def test_the_plan() -> None:
    rows = [
        DcPlan("dc1", 120, 118, 302_000_000, 151_000_000, 0, None, 3.0),
        DcPlan("dc2", 120, 0, 18_120_000_000, 151_000_000, 151_000_000, None, 3.0),
    ]
    plan = JobPlan(rows, 3.0, True, ["2 hosts of dc2 are away"])
    spec = JobSpec([JobImage("registry.corp", "shop/api", "2.4", DIGEST, [])], rate=50_000_000)
    planned = Planned(None, plan)  # type: ignore[arg-type]  # whom it came from is not shown

    is_screen("prewarm-plan", plan_lines(spec, [planned], NOW_S))


def test_while_it_runs() -> None:
    jobs = [
        of(DC1, wave=2, waves=[0.01, 0.1, 1.0]),
        of(DC2, wave=2, waves=[0.01, 0.1, 1.0], hosts=[SLOW, FAILED, LOST]),
    ]

    is_screen("prewarm-running", frame(Picture(jobs), RUN, SCREEN, NOW_S, {"http://t2:5209": 12.0}))


def test_held() -> None:
    reason = "wave 1: 2 of 12 hosts failed, 99% must be ready"
    held = of(DC2, state="held", reason=reason, hosts=[FAILED], waves=[0.1, 1.0])

    is_screen("prewarm-held", frame(Picture([held]), RUN, SCREEN, NOW_S))


@pytest.mark.parametrize(("name", "code"), [("ready", Exit.DONE), ("partly", Exit.PARTIAL)])
def test_how_it_ended(name: str, code: Exit) -> None:
    done = of(DC1, state="done", ended_unix_s=NOW_S)
    partly = of(DC2, state="partly", ended_unix_s=NOW_S, hosts=[FAILED, LOST])
    jobs = [done] if code is Exit.DONE else [done, partly]

    is_screen(f"prewarm-{name}", outcome_lines(Picture(jobs), RUN, code, SCREEN))


def test_the_list() -> None:
    pictures = {
        RUN: Picture([of(DC1, note=f"root@build-7 {RUN}"), of(DC2)]),
        "run-00c0ffee": Picture([of(DC1, state="done")]),
    }

    is_screen("prewarm-ls", listing(pictures, NOW_S, SCREEN))


def test_the_list_says_what_was_claimed_and_what_was_proved() -> None:
    proved = f"operator {'01ab' * 8}"
    job = of(DC1, note=f"root@build-7 {RUN}", filed_by=proved)
    _, row = listing({RUN: Picture([job])}, NOW_S, Screen(200, 24))

    assert row.endswith("root@build-7, operator 01ab01ab")


def test_replicas() -> None:
    rows = [
        Standing("dc1", "in step", DIGEST, 120, 120, 2, 2, 0.0),
        Standing("dc2", "coming", OLDER, 12, 120, 1, 2, 192.0),
        Standing("dc3", "behind", "", 0, 0, 0, 0, None),
    ]

    is_screen("replicas", standing_lines(IMAGE, DIGEST, rows))


def test_replicas_of_what_nobody_brought() -> None:
    is_screen("replicas-none", standing_lines(IMAGE, DIGEST, []))
