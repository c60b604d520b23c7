from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.model.control import Announce, Delta
from p2pdist.model.jobs import JobSpec
from p2pdist.model.members import Role
from p2pdist.tracker.core.jobs.book import UNFINISHED_MAX, TooMany
from p2pdist.tracker.core.jobs.course import LOST_S
from p2pdist.tracker.core.jobs.ledger import ENDED_KEPT_S
from p2pdist.tracker.core.jobs.views import dc_statuses, job_status, problems
from tests.tracker.core.jobs.fleet import (
    LAYER_BYTES,
    UNIX_S,
    Fleet,
    blob,
    check_counts,
    image,
    state_of,
    states,
)

SPEC = JobSpec([image()])


def fleet_of(hosts: int, proxies: int = 1) -> Fleet:
    fleet = Fleet()
    for _ in range(proxies):
        fleet.add("dc1/p", Role.PROXY)
    for _ in range(hosts):
        fleet.add()
    fleet.run(0.1)
    return fleet


def with_(spec: JobSpec, **fields: object) -> JobSpec:
    return msgspec.structs.replace(spec, **fields)


# --- readiness ----------------------------------------------------------------------------------


def test_a_job_is_done_once_every_host_has_proven_that_it_holds_everything() -> None:
    fleet = fleet_of(5)
    job = fleet.submit(SPEC)
    assert state_of(job) == "scheduled"

    fleet.run(1.0)
    assert state_of(job) == "running"
    assert states(job) == {"fetching": 5}

    fleet.run(1.0)
    assert state_of(job) == "done"
    assert states(job) == {"ready": 5}
    assert all(end.job == job.id and not end.unpin for host in fleet.hosts for end in host.ended)
    check_counts(job, fleet)


def test_who_announces_everything_but_cannot_prove_it_is_never_ready() -> None:
    fleet = fleet_of(3)
    liar = fleet.hosts[1]
    liar.lies = True
    job = fleet.submit(SPEC)

    for _ in range(700):
        fleet.run(0.1)
        assert job.targets[liar.id].state != "ready"

    assert state_of(job) == "partly"
    assert problems(job)[0].code == "error"
    assert problems(job)[0].reason == "does not hold what it announced"
    assert len(liar.orders) == 4
    assert fleet.core.jobs.counters.proofs_wrong_total == 4


@pytest.mark.parametrize("how", ["wiped", "one blob", "mute", "lies"])
def test_who_was_ready_and_is_no_more_is_withdrawn_within_5_s(how: str) -> None:
    fleet = fleet_of(3)
    fleet.hosts[3].fetch_s = 1000.0  # keeps the job running
    job, host = fleet.submit(SPEC), fleet.hosts[1]
    fleet.run(3.0)
    assert job.targets[host.id].state == "ready"

    host.fetch_s = 1000.0
    if how == "wiped":
        host.lose(*host.held, silently=True)
    elif how == "one blob":
        host.lose(blob("config"), silently=True)
    else:
        setattr(host, how, True)
    fleet.run(5.0)

    assert job.targets[host.id].state != "ready"
    assert fleet.core.jobs.counters.withdrawn_total == 1
    check_counts(job, fleet)


def test_a_loss_that_is_announced_withdraws_at_once_and_is_made_good() -> None:
    fleet = fleet_of(2)
    fleet.hosts[2].fetch_s = 1000.0
    job, host = fleet.submit(SPEC), fleet.hosts[1]
    fleet.run(3.0)

    host.lose(blob("layer one"))
    fleet.run(0.05)
    assert job.targets[host.id].state == "fetching"
    assert job.targets[host.id].missing_bytes == LAYER_BYTES

    fleet.run(5.0)
    assert job.targets[host.id].state == "ready"
    assert job.targets[host.id].code == ""


def test_a_proof_that_was_asked_before_a_loss_says_nothing() -> None:
    fleet = fleet_of(1)
    job, host = fleet.submit(SPEC), fleet.hosts[1]
    fleet.run(1.03)
    host.lose(blob("layer one"))
    fleet.run(0.3)

    assert job.targets[host.id].state == "fetching"


def test_without_a_proxy_what_most_hosts_answer_is_right() -> None:
    fleet = fleet_of(4, proxies=0)
    fleet.hosts[0].lies = True
    job = fleet.submit(SPEC)
    fleet.run(4.0)

    assert job.targets[fleet.hosts[0].id].state != "ready"
    assert states(job)["ready"] == 3


def test_a_proxy_that_answers_nothing_is_no_witness() -> None:
    fleet = fleet_of(3, proxies=2)
    fleet.hosts[0].mute = True
    fleet.hosts[4].lies = True
    job = fleet.submit(SPEC)
    fleet.run(4.0)

    assert job.targets[fleet.hosts[4].id].state != "ready"
    assert states(job)["ready"] == 2


def test_the_tag_has_to_be_there_as_well() -> None:
    fleet = fleet_of(1)
    host = fleet.hosts[1]
    job = fleet.submit(SPEC)
    fleet.run(2.0)
    assert state_of(job) == "done"

    host.lose(*(k for k in host.held if k.startswith("tag:")))
    fleet.run(0.1)

    assert job.targets[host.id].state == "fetching"


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["denied", "not_found", "no_space"])
def test_what_trying_again_does_not_change_fails_at_once(code: str) -> None:
    fleet = fleet_of(2)
    fleet.hosts[1].fails = code, "in words"
    job = fleet.submit(SPEC)
    fleet.run(2.0)

    assert state_of(job) == "partly"
    (failed,) = problems(job)
    assert (failed.state, failed.code, failed.reason) == ("failed", code, "in words")
    assert (dc_statuses(job)[0].ready, dc_statuses(job)[0].failed) == (1, 1)


def test_other_failures_are_tried_again_three_times_with_growing_pauses() -> None:
    fleet = fleet_of(1)
    host = fleet.hosts[1]
    host.fails, host.fetch_s = ("error", "connection reset"), 0.0
    job = fleet.submit(SPEC)

    counts = []
    for seconds in (1.0, 2.0, 8.0, 30.0):
        fleet.run(seconds)
        counts.append(len(host.orders))

    assert counts == [1, 2, 3, 4]
    assert state_of(job) == "partly"


def test_who_fetched_it_but_does_not_announce_it_is_ordered_again() -> None:
    fleet = fleet_of(1)
    host = fleet.hosts[1]
    host.conceals.add(blob("layer one"))
    job = fleet.submit(SPEC)
    fleet.run(7.0)
    assert job.targets[host.id].reason == "fetched it but does not announce all of it"

    fleet.run(3.0)
    assert state_of(job) == "done"
    assert len(host.orders) == 2


def test_a_host_that_got_over_its_failure_is_ready() -> None:
    fleet = fleet_of(1)
    host = fleet.hosts[1]
    host.fails = "error", "connection reset"
    job = fleet.submit(SPEC)
    fleet.run(1.5)
    host.fails = None
    fleet.run(5.0)

    assert state_of(job) == "done"
    assert job.targets[host.id].status().reason == ""


def test_retry_orders_the_failed_ones_again() -> None:
    fleet = fleet_of(2)
    host = fleet.hosts[1]
    host.fails = "no_space", "full"
    job = fleet.submit(SPEC)
    fleet.run(2.0)
    assert state_of(job) == "partly"

    host.fails = None
    fleet.core.jobs.retry(job, fleet.now_s)
    fleet.run(3.0)

    assert state_of(job) == "done"
    assert len(fleet.hosts[2].orders) == 1
    check_counts(job, fleet)


def test_a_host_that_stays_away_fails_and_one_that_returns_goes_on() -> None:
    fleet = fleet_of(3)
    for host in fleet.hosts[1:]:
        host.fetch_s = 5.0
    job, gone, back = fleet.submit(SPEC), fleet.hosts[1], fleet.hosts[2]
    fleet.run(1.0)
    gone.disconnect()
    back.disconnect()
    fleet.run(0.1)
    assert states(job) == {"lost": 2, "fetching": 1}

    fleet.run(10.0)
    back.connect()
    fleet.run(LOST_S)

    assert state_of(job) == "partly"
    assert [(p.host_id, p.state, p.code) for p in problems(job)] == [(gone.id, "lost", "lost")]
    assert dc_statuses(job)[0].failed == 1
    check_counts(job, fleet)


def test_a_host_that_returns_after_the_end_is_shown_ready_again_once_it_proves_it() -> None:
    fleet = fleet_of(2)
    job, host = fleet.submit(SPEC), fleet.hosts[1]
    fleet.run(2.0)
    host.disconnect()
    fleet.run(0.1)
    assert states(job) == {"ready": 1, "lost": 1}

    host.connect()
    fleet.run(2.0)
    assert states(job) == {"ready": 2}


# --- waves --------------------------------------------------------------------------------------

WAVES = with_(SPEC, waves=[0.1, 0.5, 1.0], wave_gate=0.8)


def test_each_wave_opens_when_the_one_before_passed_the_gate() -> None:
    fleet = fleet_of(20)
    job = fleet.submit(WAVES)
    seen = []
    for _ in range(8):
        fleet.run(0.5)
        seen.append((job.wave, job.opened))

    assert seen[0] == (1, 2)
    assert (2, 10) in seen
    assert seen[-1] == (3, 20)
    fleet.run(3.0)
    assert state_of(job) == "done"


def test_a_wave_that_cannot_pass_its_gate_holds_the_job_until_it_is_resumed() -> None:
    fleet = fleet_of(20)
    job = fleet.submit(WAVES)
    broken = next(h for h in fleet.hosts[1:] if job.targets[h.id].wave == 0)
    broken.fails = "no_space", "full"
    fleet.run(3.0)

    assert state_of(job) == "held"
    assert job.reason == "wave 1 of 3: 1 of 2 hosts failed, the gate asks for 80%"
    assert states(job)["waiting"] == 18

    fleet.core.jobs.resume(job, fleet.now_s)
    fleet.run(6.0)
    assert state_of(job) == "partly"
    assert states(job) == {"ready": 19, "failed": 1}


def test_a_job_that_is_held_goes_on_by_itself_once_the_gate_is_passed() -> None:
    fleet = fleet_of(20)
    job = fleet.submit(WAVES)
    broken = next(h for h in fleet.hosts[1:] if job.targets[h.id].wave == 0)
    broken.fails = "no_space", "full"
    fleet.run(3.0)
    broken.fails = None
    fleet.core.jobs.retry(job, fleet.now_s)
    fleet.run(12.0)

    assert state_of(job) == "done"


def test_a_late_joiner_is_ordered_when_its_wave_is_open() -> None:
    fleet = fleet_of(2)
    fleet.hosts[1].fetch_s = 20.0
    job = fleet.submit(SPEC)
    fleet.run(1.0)

    late = fleet.add()
    fleet.run(3.0)

    assert job.targets[late.id].state == "ready"
    assert dc_statuses(job)[0].hosts == 3
    check_counts(job, fleet)


def test_a_count_of_hosts_admits_nobody_later() -> None:
    fleet = fleet_of(3)
    fleet.hosts[1].fetch_s = fleet.hosts[2].fetch_s = fleet.hosts[3].fetch_s = 20.0
    job = fleet.submit(with_(SPEC, hosts="*,2"))
    fleet.run(1.0)
    fleet.add()
    fleet.run(1.0)

    assert len(job.targets) == 2


# --- orders -------------------------------------------------------------------------------------


def test_the_link_s_rate_is_shared_by_the_proxies_of_a_datacenter() -> None:
    fleet = fleet_of(1, proxies=2)
    fleet.hosts[2].fetch_s = 20.0
    fleet.submit(with_(SPEC, rate=1000, dc_rate=501, priority=7))
    fleet.run(1.0)
    assert [host.orders[-1].rate_bytes_per_s for host in fleet.hosts] == [251, 251, 1000]
    assert {order.priority for host in fleet.hosts for order in host.orders} == {7}

    fleet.hosts[0].disconnect()
    fleet.run(1.0)
    assert fleet.hosts[1].orders[-1].rate_bytes_per_s == 501


def test_a_returning_host_is_ordered_again() -> None:
    fleet = fleet_of(1)
    host = fleet.hosts[1]
    host.fetch_s = 20.0
    job = fleet.submit(SPEC)
    fleet.run(1.0)
    host.disconnect()
    host.connect()
    fleet.run(1.0)

    assert [order.job for order in host.orders] == [job.id, job.id]


def test_a_host_gets_its_platform_and_the_proxy_all_that_hosts_need() -> None:
    fleet = fleet_of(1)
    arm = fleet.add(platform="linux/arm64")
    riscv = fleet.add(platform="linux/riscv64")
    fleet.run(0.1)
    job = fleet.submit(JobSpec([image(("linux/amd64", "linux/arm64", "linux/s390x"))]))
    fleet.run(3.0)

    proxy, amd = fleet.hosts[:2]
    assert [len(h.orders[-1].images) for h in (proxy, amd, arm)] == [2, 1, 1]
    assert blob("config", "linux/arm64") in arm.held
    assert blob("config", "linux/amd64") not in arm.held
    assert not riscv.orders
    assert job.targets[riscv.id].code == "not_found"
    assert job.targets[riscv.id].reason == "no image for linux/riscv64"
    assert state_of(job) == "partly"


def test_a_proxy_with_a_runtime_of_its_own_is_one_of_the_hosts_and_goes_first() -> None:
    """It is ordered what all need, before the later waves, and ready with what it needs itself."""
    fleet = Fleet()
    both = fleet.add("dc1", Role.PROXY, mirror=True, runtimes=("docker",))
    fleet.add("dc1", Role.PROXY)
    peers = [fleet.add(runtimes=("docker",)) for _ in range(3)]
    arm = fleet.add(platform="linux/arm64", runtimes=("docker",))
    fleet.run(0.1)
    two = image(("linux/amd64", "linux/arm64"))
    job = fleet.submit(JobSpec([two], waves=[0.01, 1.0], dc_rate=1000, into_runtime=True))
    assert job.targets[both.id].wave == 0
    fleet.run(0.5)
    assert [len(order.images) for order in both.orders[-1:]] == [2]
    assert both.orders[-1].rate_bytes_per_s == 500
    assert both.orders[-1].into_runtime
    fleet.run(5.0)

    check_counts(job, fleet)
    assert state_of(job) == "done"
    (dc,) = dc_statuses(job)
    assert (dc.hosts, dc.unpacked, dc.proxies) == (5, 5, 2)
    assert all(peer.orders for peer in (*peers, arm))
    assert [end.job for end in both.ended] == [job.id]


@pytest.mark.parametrize("mirror", [False, True])
def test_a_proxy_without_other_hosts_is_meant_only_where_a_runtime_pulls_from_it(
    mirror: bool,
) -> None:
    fleet = Fleet()
    proxy = fleet.add("dc1", Role.PROXY, mirror=mirror)
    fleet.run(0.1)
    job = fleet.submit(SPEC)
    fleet.run(3.0)

    assert set(job.targets) == ({proxy.id} if mirror else set())


def test_a_proxy_that_is_not_chosen_goes_along_all_the_same() -> None:
    fleet = Fleet()
    proxy = fleet.add("dc1", Role.PROXY, mirror=True, name="gate-1")
    peer = fleet.add(name="web-1")
    fleet.run(0.1)
    job = fleet.submit(with_(SPEC, hosts="web-*"))
    fleet.run(3.0)

    assert set(job.targets) == {peer.id}
    assert state_of(job) == "done"
    assert proxy.orders


def test_after_a_restart_a_proxy_among_the_hosts_is_found_to_be_one_again() -> None:
    fleet = Fleet()
    proxy = fleet.add("dc1", Role.PROXY, mirror=True)
    peer = fleet.add()
    proxy.fetch_s = peer.fetch_s = 2.0
    fleet.run(0.1)
    fleet.submit(SPEC)
    fleet.run(1.0)
    stored = fleet.stored()
    for host in (proxy, peer):
        host.disconnect()
    fleet.restart()
    for kept, targets in stored:
        fleet.core.jobs.restore(kept, targets, fleet.now_s)
    for host in (proxy, peer):
        host.connect()
    fleet.run(5.0)

    (job,) = fleet.core.jobs.jobs.values()
    check_counts(job, fleet)
    assert state_of(job) == "done"
    assert set(job.proxies) == {proxy.id}
    assert job.targets[proxy.id].trusted
    assert peer.id not in job.proxies


def test_cancel_ends_all_orders_and_their_pins() -> None:
    fleet = fleet_of(2)
    for host in fleet.hosts:
        host.fetch_s = 20.0
    job = fleet.submit(SPEC)
    fleet.run(1.0)
    fleet.core.jobs.cancel(job, fleet.now_s)
    fleet.run(1.0)

    assert state_of(job) == "cancelled"
    assert [[end.unpin for end in host.ended] for host in fleet.hosts] == [[True]] * 3


def test_a_job_for_proxies_alone_is_done_when_they_hold_every_platform() -> None:
    fleet = fleet_of(2, proxies=2)
    job = fleet.submit(JobSpec([image(("linux/amd64", "linux/arm64"))], proxies_only=True))
    fleet.run(3.0)

    assert state_of(job) == "done"
    assert dc_statuses(job)[0].hosts == 2
    assert blob("layer one", "linux/arm64") in fleet.hosts[0].held
    assert not fleet.hosts[2].orders


def test_into_the_runtime_is_a_state_of_its_own() -> None:
    fleet = fleet_of(0)
    docker = fleet.add(runtimes=("docker",))
    slow = fleet.add(runtimes=("docker",))
    slow.unpacks = False
    bare = fleet.add()
    fleet.run(0.1)
    job = fleet.submit(with_(SPEC, into_runtime=True))
    fleet.run(3.0)

    assert state_of(job) == "running"
    assert [job.targets[h.id].state for h in (docker, slow, bare)] == [
        "unpacked",
        "ready",
        "failed",
    ]
    assert job.targets[bare.id].code == "runtime"
    (dc,) = dc_statuses(job)
    assert (dc.ready, dc.unpacked, dc.failed) == (2, 1, 1)


# --- time ---------------------------------------------------------------------------------------


def test_a_job_waits_for_its_time() -> None:
    fleet = fleet_of(1)
    job = fleet.submit(with_(SPEC, at_unix_s=UNIX_S + 100))
    fleet.run(99.0)
    assert state_of(job) == "scheduled"
    assert not fleet.hosts[1].orders

    fleet.run(4.0)
    assert state_of(job) == "done"


def test_a_deadline_that_passes_is_noted_and_the_job_goes_on() -> None:
    fleet = fleet_of(1)
    fleet.hosts[1].fetch_s = 5.0
    job = fleet.submit(with_(SPEC, deadline_unix_s=UNIX_S + 2))
    fleet.run(3.0)
    assert job.deadline_missed
    assert state_of(job) == "running"
    fleet.run(5.0)
    assert state_of(job) == "done"
    assert fleet.core.jobs.counters.deadlines_missed_total == 1


def test_rate_and_time_to_go_follow_what_arrives() -> None:
    fleet = fleet_of(1)
    host = fleet.hosts[1]
    host.fetch_s = 1000.0
    job = fleet.submit(SPEC)
    chunk = 256 * 1024
    for second in range(1, 11):
        fleet.run(1.0)
        host.tell(Announce([Delta(blob("layer one"), 40 * second, False)]))
    (dc,) = dc_statuses(job)

    assert dc.rate == pytest.approx(40 * chunk, rel=0.15)
    assert dc.eta_s == pytest.approx(dc.missing_bytes / dc.rate)


def test_what_is_over_for_long_is_forgotten() -> None:
    fleet = fleet_of(1)
    job = fleet.submit(with_(SPEC, pin_s=60.0))
    fleet.run(70.0)
    assert job.summary is not None
    assert not job.targets
    assert job_status(job, []).dcs[0].ready == 1

    fleet.checks = False  # a week of heartbeats
    fleet.run(ENDED_KEPT_S)
    fleet.checks = True
    fleet.submit(SPEC, "j2")
    fleet.run(3.0)
    assert list(fleet.core.jobs.jobs) == ["j2"]
    assert fleet.core.jobs.take_changes(1000).deleted == ["j1"]


def test_there_is_a_limit_to_unfinished_jobs() -> None:
    fleet = fleet_of(1)
    for number in range(UNFINISHED_MAX):
        fleet.submit(with_(SPEC, at_unix_s=UNIX_S + 1000), f"j{number}")

    with pytest.raises(TooMany, match="not over yet"):
        fleet.core.jobs.check_room(1)


# --- restarts -----------------------------------------------------------------------------------


def test_a_job_goes_on_after_the_tracker_was_killed() -> None:
    fleet = fleet_of(20)
    for host in fleet.hosts[1:]:
        host.fetch_s = 3.0
    broken, gone = fleet.hosts[1], fleet.hosts[2]
    broken.fails = "no_space", "full"
    job = fleet.submit(with_(SPEC, waves=[0.5, 1.0], wave_gate=0.5))
    fleet.run(5.0)
    assert job.wave == 2

    stored = fleet.stored()
    fleet.restart()
    for record, targets in stored:
        fleet.core.jobs.restore(record, targets, fleet.now_s)
    for host in fleet.hosts:
        if host is not gone:
            host.connect()
    fleet.run(2.0)
    again = fleet.core.jobs.jobs[job.id]
    assert again.wave == 2
    assert state_of(again) == "running"
    fleet.run(60.0)

    assert state_of(again) == "partly"
    assert states(again) == {"ready": 18, "failed": 1, "lost": 1}
    assert {p.host_id for p in problems(again)} == {broken.id, gone.id}
    check_counts(again, fleet)


def test_what_ended_before_a_restart_stays_ended_and_its_hosts_are_watched() -> None:
    fleet = fleet_of(2)
    fleet.submit(SPEC)
    fleet.run(3.0)
    stored = fleet.stored()
    fleet.restart()
    for record, targets in stored:
        fleet.core.jobs.restore(record, targets, fleet.now_s)
    job = fleet.core.jobs.jobs["j1"]
    assert (job.state, states(job)) == ("done", {"lost": 2})

    for host in fleet.hosts:
        host.connect()
    fleet.run(3.0)
    assert states(job) == {"ready": 2}
    assert not fleet.hosts[1].orders[1:]


def test_changes_name_hosts_before_their_job_and_only_once() -> None:
    fleet = fleet_of(5)
    fleet.submit(SPEC)
    book = fleet.core.jobs

    first, second = book.take_changes(3), book.take_changes(3)
    assert (len(first.targets), first.jobs) == (3, [])
    assert (len(second.targets), [job.id for job in second.jobs]) == (2, ["j1"])
    assert not book.take_changes(3)

    book.give_back(second)
    assert len(book.take_changes(9).targets) == 2


# --- counts -------------------------------------------------------------------------------------

ACTIONS = ("lose", "silently", "away", "back", "lie", "honest", "fail", "work", "late")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(1, 6), st.floats(0.0, 4.0))),
    st.sampled_from([[1.0], [0.2, 1.0]]),
)
def test_counts_always_equal_a_recount(
    script: list[tuple[str, int, float]], waves: list[float]
) -> None:
    fleet = fleet_of(6)
    job = fleet.submit(with_(SPEC, waves=waves, wave_gate=0.5))
    for action, number, pause_s in script:
        host = fleet.hosts[number]
        match action:
            case "lose":
                if host.link:
                    host.lose(blob("layer two"))
            case "silently":
                host.lose(blob("layer one"), silently=True)
            case "away" if host.link:
                host.disconnect()
            case "back" if not host.link:
                host.connect()
            case "lie":
                host.lies = True
            case "honest":
                host.lies = False
            case "fail":
                host.fails = "error", "because"
            case "work":
                host.fails = None
            case "late":
                fleet.add()
            case _:
                pass
        fleet.run(pause_s)
        check_counts(job, fleet)
    for host in fleet.hosts:
        host.lies, host.fails = False, None
        if not host.link:
            host.connect()
    fleet.run(60.0)
    check_counts(job, fleet)
    if job.state == "held":
        fleet.core.jobs.resume(job, fleet.now_s)
        fleet.run(60.0)
    assert job.state in ("done", "partly")
    assert dataclasses.asdict(fleet.core.jobs.counters)["proofs_right_total"] > 0
