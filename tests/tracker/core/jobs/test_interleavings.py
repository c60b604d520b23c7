"""What the state machine of jobs found: events between two steps of the same thing."""

from __future__ import annotations

from p2pdist.model.control import PrewarmReport, SwarmKey
from p2pdist.model.jobs import JobSpec
from p2pdist.model.members import Role
from p2pdist.tracker.core.jobs.choosing import Chosen
from p2pdist.tracker.core.jobs.views import dc_statuses
from p2pdist.tracker.core.state import MessageReceived
from tests.tracker.core.jobs.fleet import Fleet, FleetHost, blob, image, state_of, states

AMD, ARM, OTHER = "linux/amd64", "linux/arm64", "linux/s390x"
SPEC = JobSpec([image((AMD, ARM))])


def fleet_of(*platforms: str, mirror: bool = False) -> Fleet:
    fleet = Fleet()
    fleet.add("dc1/p", Role.PROXY, mirror=mirror)
    for platform in platforms:
        fleet.add(platform=platform)
    fleet.run(0.1)
    return fleet


def ordered(host: FleetHost) -> set[SwarmKey]:
    """Return what its last order names."""
    return {SwarmKey(ref.digest) for one in host.orders[-1].images for ref in one.blobs}


def test_a_proxy_among_the_hosts_brings_what_hosts_need_that_are_enlisted_after_it() -> None:
    fleet = fleet_of(ARM, mirror=True)
    book = fleet.core.jobs
    job = book.create("j1", SPEC, fleet.now_s)
    book.enlist(job, [Chosen(host.id, 0) for host in fleet.hosts], fleet.now_s)
    book.begin(job, fleet.now_s)
    fleet.run(0.5)

    assert {blob("layer one", AMD), blob("layer one", ARM)} <= ordered(fleet.hosts[0])


def test_a_proxy_that_no_image_is_for_is_not_ready_and_brings_what_others_need() -> None:
    fleet = Fleet()
    proxy = fleet.add("dc1/p", Role.PROXY, mirror=True, platform=OTHER)
    fleet.add(platform=AMD)
    fleet.run(0.1)
    job = fleet.submit(SPEC)
    fleet.run(5.0)

    assert job.targets[proxy.id].code == "not_found"
    assert (state_of(job), states(job)) == ("partly", {"failed": 1, "ready": 1})
    assert blob("layer one", AMD) in ordered(proxy)


def test_a_proxy_is_whole_again_once_it_has_what_a_late_joiner_needs() -> None:
    fleet = fleet_of(AMD)
    job = fleet.submit(JobSpec(SPEC.images, waves=[0.5, 1.0], wave_gate=1.0))
    fleet.hosts[1].fetch_s = 30.0
    fleet.run(5.0)
    assert dc_statuses(job)[0].proxies_ready == 1

    fleet.add(platform=ARM)
    fleet.run(0.5)
    assert dc_statuses(job)[0].proxies_ready == 0
    fleet.run(2.0)
    assert dc_statuses(job)[0].proxies_ready == 1


def test_a_proxy_that_got_over_its_failure_is_ordered_what_late_joiners_need() -> None:
    fleet = fleet_of(AMD)
    proxy = fleet.hosts[0]
    proxy.fails, fleet.hosts[1].fetch_s = ("no_space", "it is full"), 30.0
    job = fleet.submit(SPEC)
    fleet.run(5.0)
    assert job.proxies[proxy.id].code == "no_space"

    proxy.fails = None
    proxy.disconnect()
    proxy.held |= set(job.proxies[proxy.id].parts.sizes)  # type: ignore[union-attr]  # a proxy's are known
    proxy.connect()
    fleet.run(1.0)
    assert (job.proxies[proxy.id].good, job.proxies[proxy.id].code) == (True, "")
    fleet.add(platform=ARM)
    fleet.run(1.0)

    assert blob("layer one", ARM) in ordered(proxy)


def test_a_host_that_joins_a_job_while_it_is_filed_is_counted_once() -> None:
    fleet = fleet_of(AMD)
    host, book = fleet.hosts[1], fleet.core.jobs
    job = book.create("j1", SPEC, fleet.now_s)
    host.disconnect()
    host.connect()
    fleet.run(0.1)
    assert list(job.targets) == [host.id]

    book.enlist(job, [Chosen(host.id, 0)], fleet.now_s)
    book.begin(job, fleet.now_s)
    fleet.run(5.0)

    assert dc_statuses(job)[0].hosts == 1
    assert state_of(job) == "done"


def test_a_job_that_is_cancelled_while_it_is_filed_takes_no_host_in() -> None:
    fleet = fleet_of(AMD)
    book = fleet.core.jobs
    job = book.create("j1", JobSpec(SPEC.images, pin_s=0.0), fleet.now_s)
    book.cancel(job, fleet.now_s)
    fleet.run(0.1)

    book.enlist(job, [Chosen(fleet.hosts[1].id, 0)], fleet.now_s)

    assert job.summary is not None
    assert not job.targets


def test_a_proof_that_comes_when_the_job_has_let_go_of_its_hosts_is_ignored() -> None:
    """It was counted in counts that are gone: a KeyError in the middle of an event."""
    fleet = fleet_of(AMD, ARM)
    job = fleet.submit(JobSpec(SPEC.images, pin_s=0.0))
    while not any(target.asked > 0 for target in job.targets.values()):
        fleet.run(0.001)

    fleet.core.jobs.cancel(job, fleet.now_s)
    fleet.run(5.0)

    assert job.summary is not None
    assert not job.groups


def test_a_retry_that_can_change_nothing_ends_the_job_again() -> None:
    fleet = fleet_of(AMD, OTHER)
    job = fleet.submit(SPEC)
    fleet.run(5.0)
    assert (state_of(job), states(job)) == ("partly", {"ready": 1, "failed": 1})

    fleet.core.jobs.retry(job, fleet.now_s)
    fleet.run(1.0)

    assert state_of(job) == "partly"


def test_what_hosts_say_before_a_retry_has_reached_others_does_not_end_it() -> None:
    fleet = fleet_of(AMD, AMD)
    one, other = fleet.hosts[1:]
    one.fails = "no_space", "it is full"
    job = fleet.submit(SPEC)
    fleet.run(5.0)
    assert state_of(job) == "partly"

    one.fails = None
    fleet.core.jobs.retry(job, fleet.now_s)
    fleet.feed(MessageReceived(other.link, PrewarmReport(job.id, "unpacked")))
    fleet.run(5.0)

    assert (state_of(job), states(job)) == ("done", {"ready": 2})


def test_the_store_forgets_what_a_host_failed_by_once_it_is_ready() -> None:
    fleet = fleet_of(AMD)
    host, book = fleet.hosts[1], fleet.core.jobs
    host.fails = "no_space", "it is full"
    job = fleet.submit(SPEC)
    fleet.run(5.0)
    assert [(t.final, t.code) for _, t in book.take_changes(9).targets] == [(True, "no_space")]

    host.disconnect()
    host.held |= set(job.targets[host.id].parts.sizes)  # type: ignore[union-attr]  # there is an image for it
    host.connect()
    fleet.run(5.0)

    assert states(job) == {"ready": 1}
    assert [(t.final, t.code) for _, t in book.take_changes(9).targets] == [(False, "")]


def test_a_job_for_proxies_alone_waits_for_no_runtime() -> None:
    fleet = fleet_of(AMD)
    job = fleet.submit(JobSpec(SPEC.images, proxies_only=True, into_runtime=True))
    fleet.run(5.0)

    assert state_of(job) == "done"


def test_a_job_all_of_whose_hosts_had_failed_is_over_after_a_restart() -> None:
    fleet = fleet_of(OTHER)
    job = fleet.core.jobs.create("j1", SPEC, fleet.now_s)
    fleet.core.jobs.enlist(job, [Chosen(fleet.hosts[1].id, 0)], fleet.now_s)
    fleet.core.jobs.begin(job, fleet.now_s)
    fleet.core.jobs.handle_deadline(fleet.now_s)
    assert state_of(job) == "running"

    stored = fleet.stored()
    fleet.restart()
    for record, targets in stored:
        fleet.core.jobs.restore(record, targets, fleet.now_s)
    fleet.run(1.0)

    assert state_of(fleet.core.jobs.jobs["j1"]) == "partly"
