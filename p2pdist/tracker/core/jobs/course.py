"""The course of jobs: hosts are ordered, prove, fail, are tried again; waves open; jobs end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Final

from p2pdist.model.control import Prewarm, PrewarmEnd
from p2pdist.model.jobs import JobState
from p2pdist.tracker.core.jobs.alarms import Alarms
from p2pdist.tracker.core.jobs.job import Job
from p2pdist.tracker.core.jobs.ledger import Ledger
from p2pdist.tracker.core.jobs.proving import Prover
from p2pdist.tracker.core.jobs.target import Target
from p2pdist.tracker.core.orders import Send, SendMany
from p2pdist.tracker.core.selector import Candidate
from p2pdist.tracker.core.swarms import Host

BACKOFF_S: Final = (2.0, 8.0, 30.0)
FINAL_CODES: Final = frozenset({"denied", "not_found", "no_space"})
"""Trying again changes nothing."""
# Five times the usual interval of announcements.
ANNOUNCED_S: Final = 5.0
# Longer than a daemon needs to start again; a shorter outage is no failure.
LOST_S: Final = 30.0
TICK_S: Final = 1.0


class Course:
    def __init__(
        self, ledger: Ledger, alarms: Alarms, rng: Random, token: Callable[[int], bytes]
    ) -> None:
        self._ledger = ledger
        self._alarms = alarms
        self._orders: list[Send | SendMany] = []
        self._ordered: dict[tuple[str, str, int], list[tuple[Job, Target]]] = {}
        """Whom to order, by job, datacenter of a proxy, and parts: one message for all of them."""
        self.prover = Prover(alarms, self, self._orders.append, rng, token)

    def drain(self) -> list[Send | SendMany]:
        """Return what is to be sent now."""
        orders = self._orders[:]
        for ordered in self._ordered.values():
            links = [t.host.link for _, t in ordered if t.host is not None]
            message = self._message(*ordered[0])
            orders.append(SendMany([link for link in links if link is not None], message))
        self._orders.clear()
        self._ordered.clear()
        return orders

    # --- verdicts of the prover -----------------------------------------------------------------

    def proof_right(self, job: Job, target: Target, now_s: float) -> None:
        self._ledger.counters.proofs_right_total += 1
        group = job.group(target.platform)
        if group is not None and not target.proven:
            self.prover.proven(group, target)
            self._refresh(job, target, now_s)

    def proof_wrong(self, job: Job, target: Target, now_s: float) -> None:
        self._ledger.counters.proofs_wrong_total += 1
        self._disproven(job, target, "does not hold what it announced", now_s)

    def proof_missing(self, job: Job, target: Target, now_s: float) -> None:
        self._ledger.counters.proofs_missing_total += 1
        self._disproven(job, target, "does not prove what it announced", now_s)

    def _disproven(self, job: Job, target: Target, reason: str, now_s: float) -> None:
        self._not_whole(job, target)
        self.failed(job, target, "error", reason, now_s)
        self._refresh(job, target, now_s)

    # --- a host of a job ------------------------------------------------------------------------

    def attach(self, job: Job, target: Target, host: Host, about: Candidate, now_s: float) -> None:
        if target.name != about.name or target.code == "lost":
            self._ledger.note_target(job, target)
        target.host, target.name = host, about.name
        target.unpacked = False
        if target.brings is None and job.leads(about):
            job.add_leader(target)
        target.runtime_missing = job.into_runtime and not about.runtimes
        job.add_missing(target, target.recount())
        if target.code == "lost":
            target.code = target.reason = ""
            job.set_final(target, False)
        if target.whole:
            self.whole_changed(job, target, now_s)
        self._refresh(job, target, now_s)
        if job.active and target.opened:
            self._order(job, target, now_s)
            if target.brings is not None:
                self.share_link(job, target.dc, now_s)

    def detach(self, job: Job, target: Target, now_s: float) -> None:
        """A host lost its connection."""
        self._not_whole(job, target)
        target.host = None
        self._refresh(job, target, now_s)
        self.watch_lost(job, target, now_s)
        if target.brings is not None:
            self.share_link(job, target.dc, now_s)

    def _order(self, job: Job, target: Target, now_s: float) -> None:
        """Send a host its order; one that cannot carry it out fails at once."""
        parts = target.brings or target.parts
        if parts is None or target.host is None or target.host.link is None:
            return
        if target.final and target.parts is not None:  # else it brings what the others need
            return
        if target.runtime_missing and not target.proxy:
            reason = "the host lets no job into a runtime (peer.into_runtime)"
            self.failed(job, target, "runtime", reason, now_s, final=True)
            return
        key = (job.id, target.dc if target.trusted else "", id(parts))
        self._ordered.setdefault(key, []).append((job, target))

    def _message(self, job: Job, target: Target) -> Prewarm:
        parts = target.brings or target.parts
        assert parts is not None
        spec, rate = job.spec, job.spec.rate
        if target.trusted:
            proxies = (job.targets if spec.proxies_only else job.proxies).values()
            connected = sum(p.host is not None and p.dc == target.dc for p in proxies)
            rate = -(-spec.dc_rate // max(1, connected))
        return Prewarm(
            job.id,
            list(parts.images),
            rate,
            spec.priority,
            job.pin_until_unix_s,
            job.into_runtime and not target.proxy,
        )

    def share_link(self, job: Job, dc: str, now_s: float, *, always: bool = False) -> None:
        """Tell a datacenter's proxies anew: each gets its share of the link's rate."""
        if not job.active or not (job.spec.dc_rate or always):
            return
        for proxy in job.proxies.values():
            if proxy.dc == dc and proxy.opened:
                self._order(job, proxy, now_s)

    def whole_changed(self, job: Job, target: Target, now_s: float) -> None:
        group = None if target.trusted else job.group(target.platform)
        if target.whole and group is not None:
            self.prover.now_whole(job, group, target, now_s)
        elif not target.whole:
            self._not_whole(job, target)
            if job.active and target.opened:
                self.failed(job, target, "error", "lost a part of it again", now_s)
        self._refresh(job, target, now_s)

    def _not_whole(self, job: Job, target: Target) -> None:
        group = None if target.trusted else job.group(target.platform)
        if group is not None:
            self.prover.not_whole(group, target)

    def failed(
        self,
        job: Job,
        target: Target,
        code: str,
        reason: str,
        now_s: float,
        *,
        final: bool = False,
    ) -> None:
        target.code, target.reason = code, reason
        self._ledger.note_target(job, target)
        if final or code in FINAL_CODES or (target.tries >= len(BACKOFF_S) and not target.retrying):
            job.set_final(target, True)
        elif not target.final and not target.retrying:
            target.retrying = True
            delay_s, target.tries = BACKOFF_S[target.tries], target.tries + 1
            tries = target.tries
            self._alarms.at(now_s + delay_s, lambda at_s: self._retry(job, target, tries, at_s))
        self._refresh(job, target, now_s)

    def fetched(self, job: Job, target: Target, now_s: float) -> None:
        """A host says that it fetched everything: its announcements have to follow."""
        due_s = now_s + ANNOUNCED_S
        self._alarms.at(due_s, lambda at_s: self._check_fetched(job, target, at_s))

    def unpacked(self, job: Job, target: Target, now_s: float) -> None:
        """A host says that its runtime has it."""
        target.unpacked = True
        self._refresh(job, target, now_s)

    def _check_fetched(self, job: Job, target: Target, now_s: float) -> None:
        if target.host is not None and not target.whole and job.active and not target.code:
            self.failed(job, target, "error", "fetched it but does not announce all of it", now_s)

    def _retry(self, job: Job, target: Target, tries: int, now_s: float) -> None:
        if target.tries != tries:
            return
        target.retrying = False
        if target.final or target.good or not job.targets:
            return
        if target.whole and not target.proven:
            self.whole_changed(job, target, now_s)
        if job.active and target.opened:
            self._order(job, target, now_s)

    def again(self, job: Job, target: Target, now_s: float) -> None:
        """An operator wants a failed host to be tried again."""
        if target.good or target.parts is None or not job.active:
            return
        target.tries, target.code, target.reason, target.retrying = 0, "", "", False
        job.set_final(target, False)
        self._ledger.note_target(job, target)
        self._refresh(job, target, now_s)
        self._retry(job, target, 0, now_s)
        if target.host is None:
            self.watch_lost(job, target, now_s)

    def watch_lost(self, job: Job, target: Target, now_s: float) -> None:
        target.lost_s = now_s
        self._alarms.at(now_s + LOST_S, lambda at_s: self._still_lost(job, target, now_s, at_s))

    def _still_lost(self, job: Job, target: Target, since_s: float, now_s: float) -> None:
        if target.host is not None or target.lost_s != since_s or target.final:
            return
        if job.targets and not job.ended:
            reason = f"no connection for {LOST_S:.0f} s"
            self.failed(job, target, "lost", reason, now_s, final=True)

    def _refresh(self, job: Job, target: Target, now_s: float) -> None:
        was_good = target.good
        job.refresh(target)
        if target.good and not was_good:  # what it failed by is forgotten
            self._ledger.note_target(job, target)
        if was_good and not target.good and not target.proxy and job.state != "cancelled":
            self._ledger.counters.withdrawn_total += 1
        if job.active:
            self._advance(job, now_s)

    # --- a job ----------------------------------------------------------------------------------

    def start(self, job: Job, now_s: float) -> None:
        if job.state != "scheduled":
            return
        job.started_unix_s = self._ledger.unix_s(now_s)
        self.set_state(job, "running")
        self.watch(job, now_s)
        self.open_wave(job, now_s)

    def watch(self, job: Job, now_s: float) -> None:
        """Have what comes back regularly done for a job that runs, from now on."""
        for group in job.groups.values():
            if group is not None and not group.watched:
                group.watched = True
                self.prover.watch(job, group, now_s)
        self.tick(job, now_s)

    def tick(self, job: Job, now_s: float) -> None:
        for tally in job.tallies.values():
            tally.sample(now_s)
        if job.active and not job.ticking:
            job.ticking = True
            self._alarms.at(now_s + TICK_S, lambda at_s: self._next_tick(job, at_s))

    def _next_tick(self, job: Job, now_s: float) -> None:
        job.ticking = False
        self.watch(job, now_s)

    def open_wave(self, job: Job, now_s: float) -> None:
        if job.wave >= len(job.spec.waves):
            return
        job.wave += 1
        job.reason = ""
        self._ledger.note(job)
        wave = (target for target in job.targets.values() if target.wave == job.wave - 1)
        self.each(job, wave, self._open)

    def each(
        self,
        job: Job,
        targets: Iterable[Target],
        work: Callable[[Job, Target, float], None],
    ) -> None:
        """Have `work` done for all of them; until then no count says what becomes of the job."""
        job.opening += 1
        self._alarms.each(
            targets,
            lambda target, at_s: work(job, target, at_s),
            then=lambda at_s: self._gone_through(job, at_s),
        )

    def _open(self, job: Job, target: Target, now_s: float) -> None:
        if not job.active:
            return
        job.open(target)
        job.refresh(target)
        if target.host is None:
            self.watch_lost(job, target, now_s)
        else:  # also where all of it lies there already: the order pins it
            self._order(job, target, now_s)

    def _gone_through(self, job: Job, now_s: float) -> None:
        job.opening -= 1
        if job.active:
            self._advance(job, now_s)

    def _advance(self, job: Job, now_s: float) -> None:
        """Open the next wave, hold or end the job, as its counts have it."""
        if job.opening or not job.wave:
            return
        if job.settled:
            failed = job.opened_good < job.opened
            self.end(job, "partly" if failed else "done", now_s)
        elif job.wave < len(job.spec.waves):
            if job.gate_passed:
                self.set_state(job, "running")
                self.open_wave(job, now_s)
            elif job.gate_out_of_reach and job.state == "running":
                job.reason = (
                    f"wave {job.wave} of {len(job.spec.waves)}: {job.opened_final} of {job.opened} "
                    f"hosts failed, the gate asks for {job.spec.wave_gate:.0%}"
                )
                self.set_state(job, "held")

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        for job in self._ledger.jobs.values():
            for target in job.targets.values():
                assert 0 <= target.tries <= len(BACKOFF_S)
            if job.active and not job.opening:
                assert not job.settled, "it is over, and nobody noticed"
                if job.wave < len(job.spec.waves):
                    assert not job.gate_passed, "the next wave is not opened"
                    assert job.state == "held" or not job.gate_out_of_reach
        self.prover.validate()

    def end(self, job: Job, state: JobState, now_s: float) -> None:
        self.set_state(job, state)
        job.ended_unix_s = self._ledger.unix_s(now_s)
        job.reason = ""
        everybody = (job.targets | job.proxies).values()
        links = [t.host.link for t in everybody if t.host is not None and t.host.link is not None]
        self._orders.append(SendMany(links, PrewarmEnd(job.id, unpin=state == "cancelled")))
        self._ledger.note(job)
        self._ledger.retire(now_s)
        self.watch_pins(job, now_s)

    def watch_pins(self, job: Job, now_s: float) -> None:
        """Look after the hosts of a job that is over until what they hold may be evicted."""
        due_s = now_s + self._ledger.pinned_s(job, now_s)
        self._alarms.at(due_s, lambda at_s: self._ledger.unwatch(job))

    def set_state(self, job: Job, state: JobState) -> None:
        if job.state != state:
            job.state = state
            self._ledger.note(job)

    def watch_deadline(self, job: Job, now_s: float) -> None:
        if job.spec.deadline_unix_s and not job.deadline_missed:
            left_s = job.spec.deadline_unix_s - self._ledger.unix_s(now_s)
            self._alarms.at(now_s + max(0.0, left_s), lambda at_s: self._deadline(job))

    def _deadline(self, job: Job) -> None:
        if job.state not in ("done", "cancelled") and not job.deadline_missed:
            job.deadline_missed = True
            self._ledger.counters.deadlines_missed_total += 1
            self._ledger.note(job)
