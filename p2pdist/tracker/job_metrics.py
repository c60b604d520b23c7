"""Prewarm jobs and the fleet's sums as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, get_args

from p2pdist.model.jobs import HostState, JobState
from p2pdist.process.metrics import Sample
from p2pdist.tracker.core.jobs.book import JobBook
from p2pdist.tracker.core.jobs.job import Job

# 10 series in each datacenter; all others are in the API.
JOBS_SHOWN_MAX: Final = 12
# The label is not called `job`: Prometheus gives every series one of that name.
RECEIVED: Final = "received_"
SENT: Final = "sent_"


def job_counts(book: JobBook) -> dict[str, int]:
    """How many jobs are in each state, all states named."""
    counts = Counter([job.state for job in list(book.jobs.values())])
    return {state: counts[state] for state in get_args(JobState)}


def job_samples(book: JobBook) -> Iterable[Sample]:
    name, text = "p2pdist_prewarm_jobs", "Prewarm jobs that the tracker knows, by state."
    for state, count in job_counts(book).items():
        yield Sample(name, "gauge", text, {"state": state}, count)
    for job in _shown(book):
        yield from _of_job(job)
    counters = book.counters
    name, text = "p2pdist_prewarm_proofs_total", "Proofs that were asked of hosts, by what came."
    yield Sample(name, "counter", text, {"result": "right"}, counters.proofs_right_total)
    yield Sample(name, "counter", text, {"result": "wrong"}, counters.proofs_wrong_total)
    yield Sample(name, "counter", text, {"result": "missing"}, counters.proofs_missing_total)
    name, text = "p2pdist_prewarm_withdrawn_total", "Hosts that were ready and are no more."
    yield Sample(name, "counter", text, {}, counters.withdrawn_total)
    name, text = "p2pdist_prewarm_deadlines_missed_total", "Jobs that missed their deadline."
    yield Sample(name, "counter", text, {}, counters.deadlines_missed_total)


def _shown(book: JobBook) -> list[Job]:
    """Those that are not over first, then the newest. Metrics are rendered in a thread: what the
    event loop changes meanwhile is copied first."""
    newest = list(book.jobs.values())[::-1]
    return sorted(newest, key=lambda job: job.ended)[:JOBS_SHOWN_MAX]


def _of_job(job: Job) -> Iterable[Sample]:
    for dc, tally in sorted(job.tallies.items()):
        labels = {"prewarm": job.id, "dc": dc}
        name, text = "p2pdist_prewarm_hosts", "Hosts of a prewarm job, by state."
        for state in get_args(HostState):
            count = tally.counts.get(state, 0)
            yield Sample(name, "gauge", text, {**labels, "state": state}, count)
        name, text = "p2pdist_prewarm_total_bytes", "What the hosts of a job need, all together."
        yield Sample(name, "gauge", text, labels, tally.total_bytes)
        name, text = "p2pdist_prewarm_missing_bytes", "What the hosts of a job lack."
        yield Sample(name, "gauge", text, labels, tally.missing_bytes)
        if (eta_s := tally.eta_s) is not None:
            name, text = "p2pdist_prewarm_eta_seconds", "Until the hosts of a job lack nothing."
            yield Sample(name, "gauge", text, labels, eta_s)
    if job.spec.deadline_unix_s:
        name, text = "p2pdist_prewarm_deadline_timestamp_seconds", "When a job is to be over."
        yield Sample(name, "gauge", text, {"prewarm": job.id}, job.spec.deadline_unix_s)


def fleet_samples(totals: Mapping[str, float]) -> Iterable[Sample]:
    """What hosts report with their heartbeats, summed up over all that are connected."""
    for name, value in sorted(totals.items()):
        if name.startswith(RECEIVED):
            text, labels = "Payload received by all hosts.", {"source": name.removeprefix(RECEIVED)}
            yield Sample("p2pdist_fleet_received_bytes", "gauge", text, labels, value)
        elif name.startswith(SENT):
            text, labels = "Payload sent by all hosts.", {"receiver": name.removeprefix(SENT)}
            yield Sample("p2pdist_fleet_sent_bytes", "gauge", text, labels, value)
        elif name == "bans":
            yield Sample("p2pdist_fleet_bans", "gauge", "Bans at all hosts.", {}, value)
