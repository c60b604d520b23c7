"""How far each image is, with a clock that the tests turn."""

from __future__ import annotations

from random import Random

from p2pdist.model.jobs import DcStatus, JobState, JobStatus
from p2pdist.registry_proxy.core import replicas as module
from p2pdist.registry_proxy.core.replicas import (
    DEBOUNCE_S,
    GIVE_UP_S,
    RETRY_MAX_S,
    Replica,
    Replicas,
    Standing,
)

IMAGE = "registry.test/team/app:1"
T = "http://tracker"


def dc(name: str, ready: bool) -> DcStatus:
    return DcStatus(name, 2, 2 if ready else 1, 0, 0, 0 if ready else 1, 1, 0, 0.0, None)


def report(*dcs: DcStatus, state: JobState = "running") -> JobStatus:
    return JobStatus("j", state, [], [], 0, 0, 0, 0, False, 1, [1.0], list(dcs))


def heard(dcs: tuple[str, ...] = (), now_s: float = 1000.0) -> tuple[Replicas, Replica]:
    replicas = Replicas([("web", dcs)], Random(1))
    replica = replicas.heard("web", IMAGE, now_s)
    assert replica is not None
    assert replicas.take_due(now_s + DEBOUNCE_S, 1) == [replica]
    return replicas, replica


def settle(
    replicas: Replicas,
    replica: Replica,
    *reports: JobStatus,
    now_s: float,
    submitted: bool = True,
    complete: bool = True,
) -> None:
    replicas.settle(
        replica, replica.generation, reports, submitted=submitted, complete=complete, now_s=now_s
    )


def test_pushes_within_a_second_are_one_round() -> None:
    replicas = Replicas([("web", ())], Random(1))
    for moment in (1000.0, 1000.4, 1000.8):
        replicas.heard("web", IMAGE, moment)

    assert replicas.take_due(1001.5, 8) == []
    assert len(replicas.take_due(1001.8, 8)) == 1
    assert replicas.take_due(1001.8, 8) == [], "it is in the works already"


def test_a_push_during_a_round_is_not_settled_by_it() -> None:
    replicas, replica = heard()
    before = replica.generation
    replicas.heard("web", IMAGE, 1001.5)

    replicas.settle(
        replica, before, [report(dc("dc1", True), state="done")],
        submitted=True, complete=True, now_s=1002.0,
    )  # fmt: skip

    assert replica.state == "queued"
    assert replicas.take_due(1002.5, 1) == [replica]


def test_lag_is_the_age_of_the_oldest_push_in_each_datacenter() -> None:
    replicas, replica = heard(("dc1", "dc2"))
    settle(replicas, replica, report(dc("dc1", True), dc("dc2", False)), now_s=1002.0)
    replicas.heard("web", IMAGE, 1050.0)

    standings = list(replicas.standings(1100.0))

    assert standings == [Standing("web", "dc1", 0, 0.0), Standing("web", "dc2", 1, 100.0)]


def test_a_datacenter_that_no_tracker_knows_is_behind() -> None:
    replicas, replica = heard(("dc1", "nowhere"))

    settle(replicas, replica, report(dc("dc1", True), state="done"), now_s=1002.0)

    assert (replica.state, replica.behind) == ("queued", ["nowhere"])


def test_an_old_word_on_a_silent_trackers_datacenter_stands() -> None:
    replicas, replica = heard()
    settle(replicas, replica, report(dc("dc1", True)), report(dc("dc2", False)), now_s=1002.0)

    replicas.take_due(1100.0, 1)
    settle(replicas, replica, report(dc("dc1", True)), now_s=1100.0, complete=False)

    assert (replica.dcs, replica.behind) == (["dc1", "dc2"], ["dc2"])


def test_pauses_grow_up_to_five_minutes_and_end_after_a_day() -> None:
    replicas, replica = heard()
    now_s, pauses = 1001.0, []
    while not replicas.overdue(replica, now_s):
        settle(replicas, replica, now_s=now_s, submitted=False)
        pauses.append(replica.due_s - now_s)
        now_s = replica.due_s
        assert replicas.take_due(now_s, 1) == [replica]

    assert pauses[0] <= 1
    assert RETRY_MAX_S / 2 <= pauses[-1] <= RETRY_MAX_S
    assert now_s - 1000.0 <= GIVE_UP_S + RETRY_MAX_S


def test_a_newer_digest_outdates_the_jobs_of_the_older_one() -> None:
    replicas, replica = heard()
    replicas.resolved(replica, "sha256:a")
    replica.jobs = {T: "job1", "http://empty": ""}

    replicas.resolved(replica, "sha256:b")

    assert (replica.jobs, replica.outdated) == ({}, [(T, "job1")])


def test_a_cancelled_digest_is_left_alone_until_it_is_pushed_again() -> None:
    replicas, replica = heard()
    replicas.resolved(replica, "sha256:a")
    replicas.job_cancelled(replica, replica.generation)
    assert not replicas.resolved(replica, "sha256:a")
    replicas.stop(replica, replica.generation)
    assert list(replicas.standings(2000.0)) == []

    replicas.heard("web", IMAGE, 2000.0)

    assert replicas.resolved(replica, "sha256:a")


def test_after_a_long_stop_there_is_one_more_try() -> None:
    _, replica = heard()
    replica.tries = 9
    later = Replicas([("web", ())], Random(1))
    later.restore([replica])

    now_s = 1000.0 + 10 * GIVE_UP_S
    assert later.take_due(now_s, 1) == [replica]
    assert not later.overdue(replica, now_s)


def test_what_no_rule_wants_any_more_is_handed_back() -> None:
    _, replica = heard()

    assert Replicas([("other", ())], Random(1)).restore([replica]) == [replica]


def test_a_full_table_gives_up_what_is_in_step_and_nothing_else() -> None:
    replicas = Replicas([("web", ())], Random(1))
    for number in range(module.REPLICAS_MAX):
        assert replicas.heard("web", f"r/x:{number}", 1000.0) is not None
    assert replicas.heard("web", "r/x:more", 1000.0) is None
    (first,) = replicas.take_due(1001.0, 1)
    settle(replicas, first, report(dc("dc1", True), state="done"), now_s=1002.0)

    assert replicas.heard("web", "r/x:more", 1002.0) is not None
    assert replicas.pushed_out == [first]
