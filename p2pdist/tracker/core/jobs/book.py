"""All prewarm jobs: hosts' events and operators' wishes in, orders out.

A host is ready while it announces all that its platform needs of the job and proves it when asked;
what it reports only tells why it is not. Work per event does not grow with hosts or blobs; what
concerns many hosts at once is done slice by slice through `Alarms`.

| job | event | becomes |
| --- | --- | --- |
| scheduled | its time has come | running, first wave opened |
| running | the open waves passed the gate | running, next wave opened; or over |
| running | the gate is out of reach | held |
| held | `resume`; or hosts came back or were retried so that the gate is passed | running |
| running | all waves open, every host ready or failed for good | done or partly |
| partly | `retry` | running |
| any but over | `cancel` | cancelled |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Final

from p2pdist.model.control import Delta, PrewarmReport, Proof, SwarmKey
from p2pdist.model.ids import HostId
from p2pdist.model.jobs import JobSpec
from p2pdist.model.rendezvous import place_of
from p2pdist.tracker.core.jobs.alarms import Alarms
from p2pdist.tracker.core.jobs.choosing import Chosen
from p2pdist.tracker.core.jobs.course import Course
from p2pdist.tracker.core.jobs.job import Job, restored_target
from p2pdist.tracker.core.jobs.ledger import JobCounters, Ledger
from p2pdist.tracker.core.jobs.records import Changes, StoredJob, StoredTarget
from p2pdist.tracker.core.jobs.target import Target
from p2pdist.tracker.core.orders import Send, SendMany
from p2pdist.tracker.core.selector import Candidate
from p2pdist.tracker.core.swarms import Host

# Each is a decision of somebody; what a script files in a loop stops here.
UNFINISHED_MAX: Final = 200
# 0.6 KB each: 60 jobs for 5,000 hosts, 180 MB. Full: no new job until older ones are over.
TARGETS_MAX: Final = 300_000


class TooMany(ValueError):
    """The tracker has all the jobs, or hosts in them, that it takes."""


class JobBook:
    """`unix_s(now_s)` turns the monotonic clock of events into Unix time; `token(n)` returns n
    bytes that nobody can guess."""

    def __init__(
        self,
        hosts: Mapping[HostId, Host],
        *,
        rng: Random,
        token: Callable[[int], bytes],
        unix_s: Callable[[float], float],
    ) -> None:
        self._hosts = hosts
        self._alarms = Alarms()
        self._ledger = Ledger(unix_s)
        self._course = Course(self._ledger, self._alarms, rng, token)

    @property
    def jobs(self) -> dict[str, Job]:
        """From the oldest to the newest."""
        return self._ledger.jobs

    @property
    def counters(self) -> JobCounters:
        return self._ledger.counters

    def drain(self) -> list[Send | SendMany]:
        """Return what is to be sent now."""
        return self._course.drain()

    def next_deadline_s(self) -> float | None:
        """Now or before now: a slice of something long is waiting."""
        return self._alarms.next_s()

    def handle_deadline(self, now_s: float) -> None:
        self._alarms.run_due(now_s)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        self._ledger.validate()
        self._course.validate()
        for job in self.jobs.values():
            for target in (job.targets | job.proxies).values():
                host = self._hosts.get(HostId(target.host_id))
                there = host is not None and host.link is not None
                assert target.host is None or (there and target.host is host)

    # --- operators ------------------------------------------------------------------------------

    def candidates(self, spec: JobSpec) -> list[Candidate]:
        """Return the hosts with a runtime, or for `proxies_only` the proxies, of the datacenters
        that it is for."""
        return [
            about
            for about in (host.about for host in self._hosts.values())
            if about is not None
            and (about.proxy if spec.proxies_only else about.pulls)
            and (not spec.dcs or about.dc in spec.dcs)
        ]

    def with_key(self, key: str) -> Job | None:
        """Return the newest job that was submitted under `key`."""
        return next((job for job in reversed(self.jobs.values()) if job.spec.key == key), None)

    def check_room(self, hosts: int) -> None:
        """Raise TooMany where a job for so many hosts is too much."""
        unfinished = len(self._ledger.unfinished)
        if unfinished >= UNFINISHED_MAX:
            raise TooMany(f"{unfinished} jobs are not over yet: wait for some, or cancel them")
        if sum(len(job.targets) for job in self.jobs.values()) + hosts > TARGETS_MAX:
            raise TooMany(f"all jobs together are for more than {TARGETS_MAX} hosts")

    def create(self, job_id: str, spec: JobSpec, now_s: float) -> Job:
        """File a job without hosts, in state `scheduled`; `enlist` them, then `begin`."""
        job = Job(job_id, spec, self._ledger.unix_s(now_s))
        self._ledger.add(job)
        return job

    def enlist(self, job: Job, chosen: Iterable[Chosen], now_s: float) -> None:
        """Add hosts; those that are gone meanwhile are left out, and those that joined late before
        it was their turn. A job that is cancelled meanwhile takes nobody in."""
        for one in chosen if not job.ended else ():
            host = self._hosts.get(HostId(one.host_id))
            if self._ledger.target(job, one.host_id) is not None:
                continue
            if host is not None and host.about is not None:
                target = self._enlist(job, host, host.about, one.wave, now_s)
                if host.link is not None:
                    self._course.attach(job, target, host, host.about, now_s)

    def begin(self, job: Job, now_s: float) -> None:
        """Start, now or when its time comes."""
        delay_s = max(0.0, job.spec.at_unix_s - self._ledger.unix_s(now_s))
        self._alarms.at(now_s + delay_s, lambda at_s: self._start(job, at_s))
        self._course.watch_deadline(job, now_s)

    def cancel(self, job: Job, now_s: float) -> None:
        if not job.ended:
            self._course.end(job, "cancelled", now_s)

    def retry(self, job: Job, now_s: float) -> None:
        """Order those that failed again, from the first try on."""
        if job.state in ("cancelled", "scheduled") or job.summary is not None or not job.failed:
            return
        if job.ended:
            self._course.set_state(job, "running")
            job.ended_unix_s = 0.0
            for group in job.groups.values():
                if group is not None:
                    self._course.prover.watch(job, group, now_s)
        self._course.each(job, job.failed.values(), self._course.again)
        self._course.tick(job, now_s)

    def resume(self, job: Job, now_s: float) -> None:
        """Open the next wave of a job that is held, whatever the gate says."""
        if job.state == "held":
            self._course.set_state(job, "running")
            self._course.open_wave(job, now_s)

    # --- hosts ----------------------------------------------------------------------------------

    def described(self, host: Host, now_s: float) -> None:
        """A host has connected and said what it is (`host.about`)."""
        about = host.about
        assert about is not None
        for job, target in self._ledger.of_host(host.host_id):
            self._course.attach(job, target, host, about, now_s)
        for job in list(self._ledger.unfinished.values()):
            if self._ledger.target(job, host.host_id) is None:
                self._join_late(job, host, about, now_s)

    def changed(self, host: Host, before: tuple[int, bool], delta: Delta, now_s: float) -> None:
        """A host announced what it holds under one key; `before`: chunks held, complete."""
        key = SwarmKey(delta.key)
        for job, target in self._ledger.of_host(host.host_id):
            if target.host is None or target.parts is None or key not in target.parts.sizes:
                continue
            was_whole = target.whole
            job.add_missing(target, -target.changed(key, before, delta))
            if target.whole is not was_whole:
                self._course.whole_changed(job, target, now_s)

    def disconnected(self, host: Host, now_s: float) -> None:
        for job, target in self._ledger.of_host(host.host_id):
            if target.host is not None:
                self._course.detach(job, target, now_s)

    def reported(self, host: Host, report: PrewarmReport, now_s: float) -> None:
        job = self.jobs.get(report.job)
        target = self._ledger.target(job, host.host_id) if job is not None else None
        if job is None or target is None:
            return
        match report.state:
            case "failed":
                self._course.failed(job, target, report.code or "error", report.reason, now_s)
            case "fetched":
                self._course.fetched(job, target, now_s)
            case "unpacked":
                self._course.unpacked(job, target, now_s)
            case "fetching":
                pass

    def proof(self, host: Host, proof: Proof, now_s: float) -> None:
        self._course.prover.answered(host.host_id, proof.seq, proof.hash, now_s)

    # --- who belongs to a job -------------------------------------------------------------------

    def _enlist(self, job: Job, host: Host, about: Candidate, wave: int, now_s: float) -> Target:
        target = Target(host.host_id, about.name, host.dc, about.platform, wave)
        known = len(job.platforms.get(host.dc, ()))
        job.enlist(target)
        self._ledger.add_target(job, target)
        self._ledger.note_target(job, target)
        if len(job.platforms[host.dc]) > known:
            job.renew_proxies(host.dc)
            self._course.share_link(job, host.dc, now_s, always=True)
        return target

    def _join_late(self, job: Job, host: Host, about: Candidate, now_s: float) -> None:
        """A host that the job did not know yet may belong to it."""
        if not job.concerns(host.dc):
            return
        meant = about.proxy if job.spec.proxies_only else about.pulls
        if meant and job.admits(about):
            place = place_of(job.id, host.host_id)
            wave = 0 if job.leads(about) else job.wave_of(place)
            target = self._enlist(job, host, about, wave, now_s)
            if target.wave < job.wave:
                job.open(target)
            self._course.attach(job, target, host, about, now_s)
        elif job.leads(about) and job.active:
            self._take_along(job, host, about, now_s)

    def _take_along(self, job: Job, host: Host, about: Candidate, now_s: float) -> None:
        target = Target(host.host_id, about.name, host.dc, about.platform, 0)
        job.add_proxy(target)
        self._ledger.add_target(job, target)
        self._course.attach(job, target, host, about, now_s)

    def _start(self, job: Job, now_s: float) -> None:
        if job.state != "scheduled":
            return
        self._course.start(job, now_s)
        for host in list(self._hosts.values()):
            about = host.about
            if about is None or host.link is None or not job.leads(about):
                continue
            if self._ledger.target(job, host.host_id) is None and job.concerns(host.dc):
                self._take_along(job, host, about, now_s)

    # --- on disk --------------------------------------------------------------------------------

    def restore(self, stored: StoredJob, targets: Iterable[StoredTarget], now_s: float) -> None:
        """Take in a job of before a restart; ValueError: it makes no sense."""
        job = Job(stored.id, stored.spec, stored.created_unix_s)
        job.state, job.wave, job.reason = stored.state, stored.wave, stored.reason
        job.started_unix_s, job.ended_unix_s = stored.started_unix_s, stored.ended_unix_s
        job.deadline_missed = stored.deadline_missed
        self._ledger.add(job)
        for record in targets:
            target = restored_target(record)
            job.enlist(target)
            if target.wave < job.wave:
                job.open(target)
            self._ledger.add_target(job, target)
        if job.state == "scheduled":
            self.begin(job, now_s)
        elif job.active:
            self._course.watch(job, now_s)
            self._course.watch_deadline(job, now_s)
            self._course.each(job, job.targets.values(), self._course.watch_lost)
        elif not job.targets or job.pin_until_unix_s <= self._ledger.unix_s(now_s):
            self._ledger.keep_summary(job, stored)
        else:
            self._course.watch(job, now_s)
            self._alarms.at(
                now_s + self._ledger.pinned_s(job, now_s), lambda at_s: self._ledger.unwatch(job)
            )

    def take_changes(self, targets_max: int) -> Changes:
        """Return what the store does not know yet, at most `targets_max` hosts of it."""
        return self._ledger.take_changes(targets_max)

    def give_back(self, changes: Changes) -> None:
        """The store could not take them."""
        self._ledger.give_back(changes)

    def stored(self, job: Job) -> StoredJob:
        return self._ledger.stored(job)
