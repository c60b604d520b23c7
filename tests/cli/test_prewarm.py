"""`p2pdist prewarm` against job APIs: one run at several trackers, and every exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.prewarm import prewarm
from p2pdist.cli.prewarming import watch
from p2pdist.model.jobs import DcPlan, DcStatus, HostStatus, JobPlan
from tests.fakes.job_api import FakeJobApi
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded

SECRET = b"a secret of the cluster"
DEADLINE_S = 20.0
PARTLY = DcStatus("dc1", 2, 1, 0, 1, 0, 100, 40, 0.0, None)
REASON = "40 bytes more than it has room for, " + "and the rest of its disk is pinned " * 4
NO_ROOM = HostStatus("h2", "web-2", "dc1", "failed", 40, "no_space", REASON.strip())


@dataclass
class Desk:
    """An operator's desk: a registry that names images, a tracker in each of two datacenters."""

    registry: FakeRegistry
    first: FakeJobApi
    second: FakeJobApi
    secret_file: Path
    common: list[str] = field(init=False)

    def __post_init__(self) -> None:
        apis = (self.first, self.second)
        trackers = [word for api in apis for word in ("--tracker", api.url)]
        self.common = [*trackers, "--secret-file", str(self.secret_file)]

    async def run(self, *arguments: str) -> Result:
        """In a thread: the command runs a loop of its own, the fakes need this one."""
        verbs = ("ls", "show", "cancel", "retry", "resume")
        if arguments and arguments[0] in verbs:
            argv = [*arguments, *self.common]
        else:
            argv = [*self.common, "--endpoint", self.registry.url, *arguments]
        return await asyncio.to_thread(CliRunner().invoke, prewarm, argv)

    async def running(self, *arguments: str, jobs: int = 1) -> asyncio.Task[Result]:
        """Start a command and return once it has filed a job at each of so many trackers."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self.run(*arguments))  # the test awaits it
        apis = (self.first, self.second)[:jobs]
        await until(lambda: task.done() or all(api.specs for api in apis))
        return task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # what it asks sets no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.delenv("P2PDIST_TRACKERS", raising=False)
    secret_file = tmp_path / "cluster.secret"
    secret_file.write_bytes(SECRET)
    secret_file.chmod(0o600)
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(FakeRegistry())
        registry.add_image("library/app", "1", [b"one", b"two"])
        first = await stack.enter_async_context(FakeJobApi(SECRET, ("dc1",), prefix="a"))
        second = await stack.enter_async_context(FakeJobApi(SECRET, ("dc2",), prefix="b"))
        yield Desk(registry, first, second, secret_file)


def assert_fails(result: Result, code: Exit, text: str) -> None:
    error = result.exception
    assert isinstance(error, CommandError), result.output
    assert error.code is code
    assert text in str(error)


def answer(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# --- ends -----------------------------------------------------------------------------------------


async def test_one_job_at_each_tracker_is_shown_as_one_run(desk: Desk) -> None:
    task = await desk.running("app:1", "-o", "json", jobs=2)
    desk.first.finish("a1")
    desk.second.finish("b1")

    result = await task

    assert result.exit_code == Exit.DONE, result.output
    done = answer(result)
    assert done["schema_version"] == 1
    assert done["state"] == "done"
    assert done["images"] == ["docker.io/library/app:1"]
    assert [(row["dc"], row["ready"]) for row in done["dcs"]] == [("dc1", 1), ("dc2", 1)]
    assert [(job["id"], job["tracker"]) for job in done["jobs"]] == [
        ("a1", desk.first.url),
        ("b1", desk.second.url),
    ]
    assert done["failed"] == done["to_go"] == []


async def test_failed_hosts_are_named_with_code_and_reason(desk: Desk) -> None:
    task = await desk.running("app:1", "--dc", "dc1", "-o", "json")
    desk.first.change("a1", state="partly", dcs=[PARTLY], hosts=[NO_ROOM])

    result = await task

    assert result.exit_code == Exit.PARTIAL
    (failed,) = answer(result)["failed"]
    assert (failed["name"], failed["state"], failed["code"]) == ("web-2", "failed", "no_space")
    assert failed["reason"] == NO_ROOM.reason
    assert "1 of 2 hosts not ready" in result.stderr


async def test_people_read_the_reason_too(desk: Desk) -> None:
    task = await desk.running("app:1", "--dc", "dc1")
    desk.first.change("a1", state="partly", dcs=[PARTLY], hosts=[NO_ROOM])

    result = await task

    assert result.exit_code == Exit.PARTIAL
    assert "web-2" in result.stdout
    assert f"no_space: {NO_ROOM.reason}" in result.stdout, "a log cuts no reason"
    assert f"prewarm retry {desk.first.specs['a1'].note.split()[-1]}" in result.stdout


async def test_a_job_that_is_held_says_why_and_how_to_go_on(desk: Desk) -> None:
    task = await desk.running("app:1", "--dc", "dc1", "--waves", "50%,100%")
    desk.first.change("a1", state="held", reason="1 of 2 ready, 2 needed")

    result = await task

    assert result.exit_code == Exit.PARTIAL
    assert "held in dc1: 1 of 2 ready, 2 needed" in result.stderr
    assert "p2pdist prewarm resume run-" in result.stderr
    assert "it goes on" not in result.stdout


async def test_the_wait_ends_at_the_deadline(desk: Desk) -> None:
    result = await desk.run("app:1", "--deadline", "1s", "-o", "json")

    assert result.exit_code == Exit.TIMEOUT
    assert "deadline" in result.stderr
    assert answer(result)["deadline_missed"] is True
    assert set(desk.first.states.values()) == {"running"}


async def test_a_job_that_is_done_too_late_missed_its_deadline(desk: Desk) -> None:
    task = await desk.running("app:1", "--dc", "dc1", "--deadline", "1h", "-o", "json")
    desk.first.change("a1", deadline_missed=True)
    desk.first.finish("a1")

    assert (await task).exit_code == Exit.TIMEOUT


async def test_a_cancelled_job_is_no_success(desk: Desk) -> None:
    task = await desk.running("app:1", "--dc", "dc1")
    desk.first.states["a1"] = "cancelled"

    result = await task

    assert result.exit_code == Exit.PARTIAL
    assert "cancelled" in result.stderr


async def test_quiet_prints_nothing_when_all_is_well(desk: Desk) -> None:
    task = await desk.running("app:1", "--quiet", jobs=2)
    desk.first.finish("a1")
    desk.second.finish("b1")

    result = await task

    assert (result.exit_code, result.output) == (Exit.DONE, "")


# --- before a job is filed ------------------------------------------------------------------------


async def test_a_tracker_without_a_host_for_it_is_left_out(desk: Desk) -> None:
    desk.first.no_hosts = True
    task = asyncio.get_running_loop().create_task(desk.run("app:1", "-o", "json"))
    await until(lambda: bool(desk.second.specs))
    desk.second.finish("b1")

    result = await task

    assert result.exit_code == Exit.DONE, result.output
    assert not desk.first.specs
    assert [row["dc"] for row in answer(result)["dcs"]] == ["dc2"]


async def test_a_selector_that_matches_nothing_is_not_found(desk: Desk) -> None:
    desk.first.no_hosts = desk.second.no_hosts = True

    result = await desk.run("app:1", "--hosts", "role=gpu")

    assert_fails(result, Exit.NOT_FOUND, "role=gpu")


async def test_an_unknown_image_is_not_found(desk: Desk) -> None:
    result = await desk.run("nothing:1")

    assert_fails(result, Exit.NOT_FOUND, "library/nothing:1: the mirror answered 404")
    assert "{" not in str(result.exception)
    assert desk.first.asked == []


async def test_a_platform_that_the_image_lacks_is_not_found(desk: Desk) -> None:
    desk.registry.add_index("library/many", "1", {"amd64": [b"a"], "arm64": [b"b"]})

    result = await desk.run("many:1", "--platform", "linux/s390x")

    assert_fails(result, Exit.NOT_FOUND, "linux/s390x")
    assert isinstance(result.exception, CommandError)
    assert "linux/amd64, linux/arm64" in result.exception.hint


async def test_another_clusters_secret_is_denied(desk: Desk) -> None:
    desk.secret_file.write_bytes(b"the secret of another cluster")

    assert_fails(await desk.run("app:1"), Exit.DENIED, "no operator token")


async def test_a_tracker_that_is_not_there_is_unreachable_and_nothing_is_filed(desk: Desk) -> None:
    await desk.second.stop()

    assert_fails(await desk.run("app:1"), Exit.UPSTREAM, "does not answer")
    assert not desk.first.specs


async def test_a_mirror_that_is_not_there_is_unreachable(desk: Desk) -> None:
    result = await desk.run("app:1", "--endpoint", "http://127.0.0.1:1")

    assert_fails(result, Exit.UPSTREAM, "does not deliver")


async def test_what_one_tracker_refuses_is_withdrawn_from_the_other(desk: Desk) -> None:
    desk.second.refusal = (429, "too_many", "there are enough jobs")

    result = await desk.run("app:1")

    assert_fails(result, Exit.TEMPORARY, "there are enough jobs")
    assert desk.first.states == {"a1": "cancelled"}


# --- plans ----------------------------------------------------------------------------------------

ROW = DcPlan("dc1", 4, 1, 240_000_000, 80_000_000, 80_000_000, 4.0, 80.0)
LATE = JobPlan([ROW], 80.0, False, ["the deadline cannot hold: 80 s are needed", "1 host is odd"])


async def test_a_dry_run_shows_the_plan_and_files_nothing(desk: Desk) -> None:
    desk.first.plan = JobPlan([ROW], 80.0, None)

    result = await desk.run("app:1", "--dry-run", "--rate", "1MB/s", "--dc-rate", "20MB/s")

    assert result.exit_code == Exit.DONE, result.output
    assert "docker.io/library/app:1 for 4 hosts, 1 ready already" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("  dc1"))
    assert row.split() == ["dc1", "4", "1", "240.0", "MB", "80.0", "MB", "0:04", "1:20"]
    assert not desk.first.specs


async def test_a_dry_run_says_that_the_deadline_cannot_hold(desk: Desk) -> None:
    desk.first.plan = LATE

    result = await desk.run("app:1", "--dry-run", "--rate", "1MB/s", "--deadline", "20s")

    assert result.exit_code == Exit.TIMEOUT
    assert "the deadline cannot hold: 1:20 at least is needed" in result.stdout
    assert "(80.0 MB to a host in dc1 at 1.0 MB/s)" in result.stdout
    assert "warning: 1 host is odd" in result.stdout


async def test_a_dry_run_as_json_is_one_object(desk: Desk) -> None:
    desk.first.plan = LATE

    result = await desk.run("app:1", "--dry-run", "--deadline", "20s", "-o", "json")

    plan = answer(result)
    assert plan["deadline_holds"] is False
    assert plan["exit_code"] == result.exit_code == Exit.TIMEOUT
    assert plan["dcs"][0]["outside_bytes"] == 80_000_000


async def test_a_deadline_that_cannot_hold_is_filed_with_a_warning(desk: Desk) -> None:
    desk.first.plan = LATE

    result = await desk.run("app:1", "--deadline", "1h", "--detach", "--rate", "1MB/s")

    assert result.exit_code == Exit.DONE
    assert "the deadline cannot hold" in result.stderr
    assert desk.first.specs


async def test_unless_it_is_strict(desk: Desk) -> None:
    desk.first.plan = LATE

    result = await desk.run("app:1", "--deadline", "1h", "--strict-deadline")

    assert result.exit_code == Exit.TIMEOUT
    assert "nothing was filed" in result.stderr
    assert not desk.first.specs


# --- what is asked for ----------------------------------------------------------------------------


async def test_all_options_reach_the_tracker(desk: Desk) -> None:
    words = "--hosts role=web,10% --rate 50MB/s --dc-rate 200MB/s --waves 1%,10%,100%"
    words += " --wave-gate 95% --priority 7 --pin 2d --into-runtime --platform linux/amd64"

    result = await desk.run("app:1", *words.split(), "--at", "+1h", "--deadline", "30m", "--detach")

    assert result.exit_code == Exit.DONE, result.output
    spec = desk.first.specs["a1"]
    assert result.stdout == f"{spec.note.split()[-1]}\n"
    assert (spec.hosts, spec.rate, spec.dc_rate) == ("role=web,10%", 50_000_000, 200_000_000)
    assert (spec.waves, spec.wave_gate, spec.priority) == ([0.01, 0.1, 1.0], 0.95, 7)
    assert (spec.pin_s, spec.into_runtime, spec.platform) == (172_800.0, True, "linux/amd64")
    assert spec.deadline_unix_s - spec.at_unix_s == 1800
    assert spec.key == desk.second.specs["b1"].key


async def test_images_come_from_a_list(desk: Desk, tmp_path: Path) -> None:
    desk.registry.add_image("library/web", "2", [b"three"])
    listed = tmp_path / "release.txt"
    listed.write_text("# the release\napp:1\n\n  web:2  # and its front\napp:1\n")

    await desk.run("--file", str(listed), "--detach")

    names = [str(image) for image in desk.first.specs["a1"].images]
    assert names == ["docker.io/library/app:1", "docker.io/library/web:2"]


async def test_two_spellings_of_an_image_are_one(desk: Desk) -> None:
    desk.registry.add_image("library/app", "latest", [b"one"])

    await desk.run("app", "app:latest", "docker.io/library/app", "app:1", "--detach")

    assert len(desk.first.specs["a1"].images) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "no image is named"),
        (["App"], "not a repository name"),
        (["app", "--waves", "10%,1%"], "--waves"),
        (["app", "--waves", "10%"], "100%"),
        (["app", "--wave-gate", "101%"], "--wave-gate"),
        (["app", "--rate", "fast"], "--rate"),
        (["app", "--rate", "50"], "50MB/s"),
        (["app", "--dc-rate", "200"], "--dc-rate"),
        (["--hosts", "web-*", "cancel", "run-0"], "options follow the verb"),
        (["app", "--at", "soon"], "--at"),
        (["app", "--deadline", "2020-01-01T00:00"], "--deadline"),
        (["app", "--platform", "arm64"], "--platform"),
        (["app", "--pin", "400d"], "--pin"),
        (["app", "--tracker", "tracker"], "no address of a tracker"),
        (["--file", "/nowhere/list"], "--file"),
    ],
)
async def test_wrong_usage_names_the_option(desk: Desk, arguments: list[str], text: str) -> None:
    assert_fails(await desk.run(*arguments), Exit.USAGE, text)


async def test_a_rate_of_nothing_is_no_limit(desk: Desk) -> None:
    await desk.run("app:1", "--rate", "0", "--dc-rate", "1kB/s", "--detach")

    spec = desk.first.specs["a1"]
    assert (spec.rate, spec.dc_rate) == (0, 1000)


async def test_an_image_may_be_called_like_a_command(desk: Desk) -> None:
    desk.registry.add_image("library/ls", "latest", [b"five"])

    result = await desk.run("--detach", "--", "ls")

    assert result.exit_code == Exit.DONE, result.output
    assert str(desk.first.specs["a1"].images[0]) == "docker.io/library/ls:latest"


# --- trackers that are away -----------------------------------------------------------------------


async def test_a_tracker_that_restarts_is_waited_for(desk: Desk) -> None:
    task = await desk.running("app:1", jobs=2)
    await until(lambda: "GET /api/v1/jobs/a1" in desk.first.asked)
    await desk.first.stop()
    # Both are asked in each round: it was missed once the other one was asked twice more.
    seen = len(desk.second.asked)
    await until(lambda: len(desk.second.asked) >= seen + 2)
    await desk.first.start()
    desk.first.finish("a1")
    desk.second.finish("b1")

    result = await task

    assert result.exit_code == Exit.DONE, result.output
    assert f"tracker {desk.first.url} is away" in result.stderr
    assert f"tracker {desk.first.url} is back" in result.stderr


async def test_a_tracker_that_stays_away_ends_the_wait(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.Watch.__init__, "__defaults__", (watch.POLL_S, 1.0))
    task = await desk.running("app:1", jobs=2)
    await desk.first.stop()

    assert_fails(await task, Exit.UPSTREAM, "was away for 1 s")


async def test_a_tracker_that_is_away_at_the_deadline_ends_the_wait(desk: Desk) -> None:
    task = await desk.running("app:1", "--deadline", "2s", jobs=2)
    await until(lambda: "GET /api/v1/jobs/a1" in desk.first.asked)
    await desk.first.stop()

    assert_fails(await task, Exit.UPSTREAM, "was away at the deadline")


# --- jobs that are there --------------------------------------------------------------------------


async def test_jobs_are_listed_by_run(desk: Desk) -> None:
    run = (await desk.run("app:1", "--detach")).stdout.strip()

    listed = await desk.run("ls")

    assert listed.exit_code == Exit.DONE
    (row,) = [line for line in listed.stdout.splitlines() if line.startswith("run-")]
    assert row.split()[:2] == [run, "running"]
    assert "dc1,dc2" in row


async def test_a_run_is_named_by_the_beginning_of_its_name(desk: Desk) -> None:
    run = (await desk.run("app:1", "--detach")).stdout.strip()

    shown = await desk.run("show", run.removeprefix("run-")[:4])

    assert shown.exit_code == Exit.DONE, shown.output
    assert run in shown.stdout
    assert {"dc1", "dc2"} <= {line.split()[0] for line in shown.stdout.splitlines() if line}


async def test_a_run_is_cancelled_at_all_its_trackers(desk: Desk) -> None:
    run = (await desk.run("app:1", "--detach")).stdout.strip()

    result = await desk.run("cancel", run)

    assert result.exit_code == Exit.DONE, result.output
    assert desk.first.states == {"a1": "cancelled"}
    assert desk.second.states == {"b1": "cancelled"}


@pytest.mark.parametrize("verb", ["retry", "resume"])
async def test_a_tracker_job_is_acted_on_alone(desk: Desk, verb: str) -> None:
    await desk.run("app:1", "--detach")

    result = await desk.run(verb, "b1", "-o", "json")

    assert [job["id"] for job in answer(result)["jobs"]] == ["b1"]
    assert f"POST /api/v1/jobs/b1/{verb}" in desk.second.asked
    assert f"POST /api/v1/jobs/a1/{verb}" not in desk.first.asked


async def test_a_job_that_no_tracker_knows_is_not_found(desk: Desk) -> None:
    assert_fails(await desk.run("show", "nope"), Exit.NOT_FOUND, "nope")


async def test_a_beginning_of_several_names_is_refused(desk: Desk) -> None:
    await desk.run("app:1", "--detach")
    await desk.run("app:1", "--detach")

    assert_fails(await desk.run("cancel", "run-"), Exit.USAGE, "may be any of")
    assert "cancelled" not in desk.first.states.values()


async def test_show_waits_for_the_end(desk: Desk) -> None:
    run = (await desk.run("app:1", "--detach")).stdout.strip()
    task = asyncio.get_running_loop().create_task(desk.run("show", "--wait", run))
    await until(lambda: "GET /api/v1/jobs/b1" in desk.second.asked)
    desk.first.finish("a1")
    desk.second.finish("b1")

    result = await task

    assert result.exit_code == Exit.DONE
    assert "on all 2 hosts of 2 datacenters" in result.stdout


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)]
)
async def test_an_interrupt_leaves_the_job_and_says_how_to_follow_it(
    desk: Desk, sent: signal.Signals, code: Exit
) -> None:
    argv = ["-m", "p2pdist.cli.main", "prewarm", "app:1", *desk.common]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *argv,
        "--endpoint",
        desk.registry.url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ,
        # Of a shell's background job, children would inherit that it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    await until(lambda: "GET /api/v1/jobs/a1" in desk.first.asked)
    process.send_signal(sent)
    _, stderr = await asyncio.wait_for(process.communicate(), DEADLINE_S)

    run = desk.first.specs["a1"].note.split()[-1]
    assert process.returncode == code
    assert f"p2pdist prewarm show --wait {run}" in stderr.decode()
    assert f"p2pdist prewarm cancel {run}" in stderr.decode()
    assert "Traceback" not in stderr.decode()
    assert desk.first.states == {"a1": "running"}


# --- a tracker of several that is away ------------------------------------------------------------


async def filed_then_one_away(desk: Desk) -> str:
    """Return the name of a run whose second tracker does not answer."""
    run: str = (await desk.run("app:1", "--detach")).stdout.strip()
    await desk.second.stop()
    return run


async def test_the_list_has_what_the_other_trackers_know(desk: Desk) -> None:
    run = await filed_then_one_away(desk)

    listed, told = await desk.run("ls"), await desk.run("ls", "-o", "json")

    assert listed.exit_code == told.exit_code == Exit.UPSTREAM
    assert run in listed.stdout
    assert f"{desk.second.url} does not answer" in listed.stderr
    assert [one["run"] for one in answer(told)["runs"]] == [run]
    assert answer(told)["trackers_away"] == [desk.second.url]


async def test_a_run_is_shown_as_far_as_it_is_known(desk: Desk) -> None:
    run = await filed_then_one_away(desk)

    shown = await desk.run("show", run)

    assert shown.exit_code == Exit.UPSTREAM
    assert "dc1" in shown.stdout
    assert "its part is not shown" in shown.stderr


@pytest.mark.faults
async def test_a_run_is_cancelled_where_it_can_be_and_it_is_said_where_not(desk: Desk) -> None:
    with recorded(73, "tracker of one datacenter away", "an operator cancels") as record:
        run = await filed_then_one_away(desk)

        result = await desk.run("cancel", run)

        assert result.exit_code == Exit.UPSTREAM
        assert desk.first.states == {"a1": "cancelled"}
        assert desk.second.url in result.stderr
        assert "not told to cancel: repeat this" in result.stderr
        record.outcome = f"cancelled in the others, the one away is named; exit {result.exit_code}"


async def test_the_end_of_a_part_is_not_taken_for_the_end_of_the_run(desk: Desk) -> None:
    run = await filed_then_one_away(desk)
    desk.first.finish("a1")

    assert_fails(await desk.run("show", "--wait", run), Exit.UPSTREAM, desk.second.url)


async def test_a_job_that_only_the_other_tracker_may_know_is_not_denied(desk: Desk) -> None:
    await filed_then_one_away(desk)

    # No beginning of a run's name, which is hexadecimal: `b1` is that of one in 256.
    assert_fails(await desk.run("cancel", "over-there"), Exit.UPSTREAM, "no tracker that answers")


async def test_without_any_tracker_there_is_no_list(desk: Desk) -> None:
    await desk.first.stop()
    await desk.second.stop()

    assert_fails(await desk.run("ls"), Exit.UPSTREAM, "does not answer")


# --- wishes that change nothing -------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["cancel", "retry", "resume"])
async def test_a_wish_at_a_job_that_is_over_says_that_nothing_is_to_do(
    desk: Desk, verb: str
) -> None:
    run = (await desk.run("app:1", "--detach")).stdout.strip()
    desk.first.finish("a1")
    desk.second.finish("b1")

    result = await desk.run(verb, run)

    assert result.exit_code == Exit.DONE
    assert f"nothing to {verb}: {run} is" in result.stderr


async def test_a_wish_that_is_fulfilled_says_no_such_thing(desk: Desk) -> None:
    run = (await desk.run("app:1", "--detach")).stdout.strip()
    desk.first.states["a1"] = "held"

    resumed, cancelled = await desk.run("resume", run), await desk.run("cancel", run)

    assert "nothing to" not in resumed.stderr + cancelled.stderr
