"""Whatever hosts and operators do, in any order: what is kept of prewarm jobs agrees with itself.

A state machine of Hypothesis around a fleet, which has all books gone through after every event. It
also plays the store, which has to know what the tracker knows: that is all that a restart leaves.
"""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pdist.model.jobs import JobSpec
from p2pdist.model.members import Role
from p2pdist.tracker.core.jobs.choosing import choose_hosts
from p2pdist.tracker.core.jobs.job import Job
from p2pdist.tracker.core.jobs.records import StoredJob, StoredTarget
from p2pdist.tracker.core.selector import parse_selector
from tests.tracker.core.jobs.fleet import UNIX_S, Fleet, FleetHost, blob, image

AMD, ARM, OTHER = "linux/amd64", "linux/arm64", "linux/s390x"
HOSTS = st.integers(0, 9)
JOBS = st.integers(0, 3)
# Everything is gone through after each event: with some forty jobs a run took a minute and more,
# and so did thirty examples of eight beside other suites. Twelve take 1 to 12 s by themselves.
JOBS_MAX = 8
SPECS = st.builds(
    JobSpec,
    st.just([image((AMD, ARM))]),
    hosts=st.sampled_from(["*", "*", "50%"]),
    proxies_only=st.sampled_from([False, False, False, True]),
    waves=st.sampled_from([[1.0], [0.3, 1.0], [0.2, 0.6, 1.0]]),
    wave_gate=st.sampled_from([0.0, 0.5, 0.99]),
    dc_rate=st.sampled_from([0, 1 << 20]),
    pin_s=st.sampled_from([0.0, 5.0, 86400.0]),
    into_runtime=st.sampled_from([False, False, True]),
)


class JobsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.jobs_made = 0
        self.kept: dict[str, StoredJob] = {}
        self.kept_hosts: dict[tuple[str, str], StoredTarget] = {}

    def host(self, which: int, *, connected: bool) -> FleetHost | None:
        hosts = [host for host in self.fleet.hosts if bool(host.link) is connected]
        return hosts[which % len(hosts)] if hosts else None

    def job(self, which: int) -> Job | None:
        jobs = [*self.fleet.core.jobs.jobs.values()]
        return jobs[which % len(jobs)] if jobs else None

    def sent(self) -> None:
        self.fleet.carry_out([*self.fleet.core.jobs.drain()])

    # --- hosts ----------------------------------------------------------------------------------

    @initialize(
        peers=st.integers(1, 5), proxies=st.integers(0, 2), mirror=st.booleans(), spec=SPECS
    )
    def hosts_are_there(self, peers: int, proxies: int, mirror: bool, spec: JobSpec) -> None:
        for number in range(proxies):
            self.fleet.add("dc1/p", Role.PROXY, mirror=mirror and not number)
        for _ in range(peers):
            self.fleet.add()
        self.fleet.run(0.1)
        self.a_job_is_submitted(spec, 0.0, 0.0)

    @precondition(lambda self: len(self.fleet.hosts) < 10)
    @rule(
        dc=st.sampled_from(["dc1/r1", "dc2/r1"]),
        role=st.sampled_from([Role.PEER, Role.PEER, Role.PROXY]),
        platform=st.sampled_from([AMD, ARM, OTHER]),
        runtimes=st.sampled_from([(), ("docker",)]),
        mirror=st.booleans(),
    )
    def another_host_comes(
        self, dc: str, role: Role, platform: str, runtimes: tuple[str, ...], mirror: bool
    ) -> None:
        self.fleet.add(dc, role, platform=platform, runtimes=runtimes, mirror=mirror)

    @rule(which=HOSTS)
    def a_host_goes(self, which: int) -> None:
        if (host := self.host(which, connected=True)) is not None:
            host.disconnect()

    @rule(which=HOSTS, away_s=st.sampled_from([0.0, 0.1]))
    def a_host_connects_anew(self, which: int, away_s: float) -> None:
        if (host := self.host(which, connected=True)) is not None:
            host.disconnect()
            self.fleet.run(away_s)
            host.connect()
            self.fleet.run(1.0)

    @rule(which=HOSTS)
    def a_host_comes_back(self, which: int) -> None:
        if (host := self.host(which, connected=False)) is not None:
            host.connect()

    @rule(which=HOSTS, platform=st.sampled_from([AMD, ARM]), silently=st.booleans())
    def a_host_loses_a_layer(self, which: int, platform: str, silently: bool) -> None:
        if (host := self.host(which, connected=True)) is not None:
            host.lose(blob("layer two", platform), silently=silently)

    @rule(
        which=HOSTS,
        fetch_s=st.sampled_from([0.0, 1.0, 40.0]),
        fails=st.sampled_from([None, None, ("error", "because"), ("no_space", "it is full")]),
        lies=st.sampled_from([False, False, True]),
        mute=st.sampled_from([False, False, True]),
    )
    def a_host_changes(
        self,
        which: int,
        fetch_s: float,
        fails: tuple[str, str] | None,
        lies: bool,
        mute: bool,
    ) -> None:
        host = self.fleet.hosts[which % len(self.fleet.hosts)]
        host.fetch_s, host.fails, host.lies, host.mute = fetch_s, fails, lies, mute

    # --- operators ------------------------------------------------------------------------------

    @precondition(lambda self: self.jobs_made < JOBS_MAX)
    @rule(spec=SPECS, later=st.sampled_from([0.0, 0.0, 10.0]), pause_s=st.sampled_from([0.0, 0.5]))
    def a_job_is_submitted(self, spec: JobSpec, later: float, pause_s: float) -> None:
        """As the job desk does it: a slice of the hosts at a time, and others speak in between."""
        fleet, book = self.fleet, self.fleet.core.jobs
        if later:
            spec = msgspec.structs.replace(spec, at_unix_s=UNIX_S + fleet.now_s + later)
        self.jobs_made += 1
        job_id = f"j{self.jobs_made}"
        chosen = choose_hosts(job_id, spec, parse_selector(spec.hosts), book.candidates(spec))
        job = book.create(job_id, spec, fleet.now_s)
        for one in chosen:
            book.enlist(job, [one], fleet.now_s)
            self.sent()
            fleet.run(pause_s)
        book.begin(job, fleet.now_s)
        self.sent()

    @rule(which=JOBS)
    def a_job_is_cancelled(self, which: int) -> None:
        if (job := self.job(which)) is not None:
            self.fleet.core.jobs.cancel(job, self.fleet.now_s)
            self.sent()

    @rule(which=JOBS)
    def a_job_is_retried(self, which: int) -> None:
        if (job := self.job(which)) is not None:
            self.fleet.core.jobs.retry(job, self.fleet.now_s)
            self.sent()

    @rule(which=JOBS)
    def a_job_is_resumed(self, which: int) -> None:
        if (job := self.job(which)) is not None:
            self.fleet.core.jobs.resume(job, self.fleet.now_s)
            self.sent()

    # --- the store ------------------------------------------------------------------------------

    @rule(targets_max=st.sampled_from([1, 3, 1000]))
    def a_write_fails(self, targets_max: int) -> None:
        book = self.fleet.core.jobs
        book.give_back(book.take_changes(targets_max))

    def write(self) -> None:
        while changes := self.fleet.core.jobs.take_changes(4):
            for job_id, record in changes.targets:
                self.kept_hosts[job_id, record.host_id] = record
            for job in changes.jobs:
                self.kept[job.id] = job
            for job_id in changes.deleted:
                self.kept.pop(job_id, None)
            gone = {*changes.deleted, *changes.hosts_dropped}
            for at in [at for at in self.kept_hosts if at[0] in gone]:
                del self.kept_hosts[at]

    @rule()
    def the_store_knows_what_the_tracker_knows(self) -> None:
        self.write()
        jobs = self.fleet.core.jobs.jobs
        assert self.kept.keys() == jobs.keys()
        for job_id, kept in self.kept.items():
            now = self.fleet.core.jobs.stored(jobs[job_id])
            # How its hosts stand goes on changing after the end, and is told from its summary.
            assert msgspec.structs.replace(kept, dcs=now.dcs, problems=now.problems) == now
        now_kept = {
            (job.id, target.host_id): job.stored_target(target)
            for job in jobs.values()
            for target in job.targets.values()
        }
        for at in self.kept_hosts.keys() | now_kept.keys():
            assert self.kept_hosts.get(at) == now_kept.get(at), at

    @rule(back=st.booleans())
    def the_tracker_restarts(self, back: bool) -> None:
        self.write()
        for host in self.fleet.hosts:
            host.link = 0
        self.fleet.restart()
        for job in self.kept.values():
            hosts = [record for (job_id, _), record in self.kept_hosts.items() if job_id == job.id]
            self.fleet.core.jobs.restore(job, hosts, self.fleet.now_s)
        self.sent()
        for host in self.fleet.hosts if back else ():
            host.connect()

    # --- time -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.005, 0.05, 0.3, 1.0, 2.0, 6.0, 12.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.run(seconds)

    @invariant()
    def its_books_agree(self) -> None:
        self.fleet.core.validate()

    def teardown(self) -> None:
        """Once nobody misbehaves any more, every job is over or waits for an operator: some hosts
        stay away."""
        for host in self.fleet.hosts:
            host.lies, host.mute, host.fails, host.fetch_s = False, False, None, 0.5
        self.fleet.run(200.0)
        jobs = self.fleet.core.jobs.jobs.values()
        assert all(job.ended or job.state == "held" for job in jobs)
        self.the_store_knows_what_the_tracker_knows()


TestJobsMachine = JobsMachine.TestCase
TestJobsMachine.settings = settings(max_examples=12, stateful_step_count=40, deadline=None)
