"""One prewarm job: its hosts, how many stand where, and which wave is open."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from typing import Final

from p2pdist.model.jobs import JobSpec, JobState
from p2pdist.tracker.core.jobs.parts import Parts, parts_of, parts_of_all
from p2pdist.tracker.core.jobs.records import StoredJob, StoredTarget
from p2pdist.tracker.core.jobs.target import Tally, Target
from p2pdist.tracker.core.selector import Candidate, Selector, parse_selector

ACTIVE: Final = frozenset[JobState]({"running", "held"})
ENDED: Final = frozenset[JobState]({"done", "partly", "cancelled"})


class Group:
    """The hosts of a job that need the same parts and say that they have them all."""

    __slots__ = ("asking_fresh", "fresh", "parts", "proven", "queue", "watch", "watched")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.fresh: dict[str, Target] = {}
        """Not proven yet."""
        self.proven: dict[str, Target] = {}
        self.queue: deque[Target] = deque()
        """Those in the order of their next proof; who is not proven any more is dropped there."""
        self.asking_fresh = False
        self.watched = False
        self.watch = 0
        """Number of the round of rounds that goes on; earlier ones end."""

    def validate(self, hosts: Collection[Target]) -> None:
        """Assert what must hold after every event; `hosts`: those of its platform, without
        proxies."""
        assert not self.fresh.keys() & self.proven.keys()
        assert all(host.whole and not host.proven for host in self.fresh.values())
        assert self.asking_fresh or all(host.asked for host in self.fresh.values())
        assert set(self.proven) == {host.host_id for host in hosts if host.proven}
        waiting = {id(host) for host in self.queue}
        assert len(waiting) == len(self.queue), "who is asked twice as often as others"
        assert all(host.queued for host in self.queue)
        for host in hosts:
            assert host.parts is self.parts
            assert id(host) in waiting or not host.queued
            assert host.queued or not host.proven
            asked = host.host_id in self.fresh or host.proven
            assert asked or not host.whole or host.final or host.retrying, "never asked again"


class Job:
    """Counts are kept by `enlist`, `add_missing` and `refresh` alone."""

    def __init__(self, job_id: str, spec: JobSpec, created_unix_s: float) -> None:
        self.id = job_id
        self.spec = spec
        self.selector: Selector = parse_selector(spec.hosts)
        self.state: JobState = "scheduled"
        self.created_unix_s = created_unix_s
        self.started_unix_s = 0.0
        self.ended_unix_s = 0.0
        self.deadline_missed = False
        self.reason = ""
        self.wave = 0
        """Waves that are open."""
        self.opening = 0
        """Lists of its hosts that are still gone through: a wave's, or those of a retry."""
        self.ticking = False
        self.targets: dict[str, Target] = {}
        self.proxies: dict[str, Target] = {}
        self.tallies: dict[str, Tally] = {}
        self.groups: dict[str, Group | None] = {}
        """By platform; None: no image has anything for it."""
        self.platforms: dict[str, set[str]] = {}
        """Of the hosts of each datacenter."""
        self.failed: dict[str, Target] = {}
        """Those that are final or lost."""
        self.opened = 0
        self.opened_good = 0
        self.opened_final = 0
        self.summary: StoredJob | None = None
        """Of a job that ended long ago and is not watched any more: it has no targets."""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def into_runtime(self) -> bool:
        """Never of a job for proxies alone: they are ordered to fill their stores."""
        return self.spec.into_runtime and not self.spec.proxies_only

    @property
    def pin_until_unix_s(self) -> float:
        start = max(self.spec.at_unix_s, self.created_unix_s)
        return start + self.spec.pin_s

    def admits(self, host: Candidate) -> bool:
        """Whether a host that came after the submission belongs to it."""
        return self.concerns(host.dc) and self.selector.admits(host)

    def concerns(self, dc: str) -> bool:
        return not self.spec.dcs or dc in self.spec.dcs

    def wave_of(self, share: float) -> int:
        """Index of the wave of the host at `share` (0 to 1) of its datacenter's order."""
        return next((k for k, end in enumerate(self.spec.waves) if share < end), self.last_wave)

    @property
    def last_wave(self) -> int:
        return len(self.spec.waves) - 1

    # --- hosts ----------------------------------------------------------------------------------

    def group(self, platform: str) -> Group | None:
        if platform not in self.groups:
            try:
                self.groups[platform] = Group(parts_of(self.spec, platform))
            except ValueError:
                self.groups[platform] = None
        return self.groups[platform]

    def enlist(self, target: Target) -> None:
        """Take a host in, as not connected; it is not opened."""
        if self.spec.proxies_only:
            target.trusted, target.parts = True, parts_of_all(self.spec, ())
        elif (group := self.group(target.platform)) is not None:
            target.parts = group.parts
        else:
            target.final = True
            if not target.code:
                platform = target.platform or "a host that names no platform"
                target.code, target.reason = "not_found", f"no image for {platform}"
        tally = self.tallies.setdefault(target.dc, Tally())
        tally.hosts += 1
        tally.total_bytes += target.parts.total_bytes if target.parts else 0
        self.add_missing(target, target.recount())
        tally.move(None, target.state)
        self.targets[target.host_id] = target
        self.platforms.setdefault(target.dc, set()).add(target.platform)
        self.note_failed(target)

    def leads(self, host: Candidate) -> bool:
        """Whether a host brings what the others of its datacenter need, and so goes first."""
        return host.proxy and not self.spec.proxies_only

    def add_proxy(self, target: Target) -> None:
        target.proxy = target.trusted = target.opened = True
        target.parts = target.brings = self._proxy_parts(target.dc)
        self.proxies[target.host_id] = target

    def add_leader(self, target: Target) -> None:
        """Of the hosts that are there, one turns out to be a proxy: it goes first, with what all
        of them need. It stays one of them, ready with what its own runtime needs."""
        target.trusted = True
        if target.parts is not None:
            target.parts = parts_of_all(self.spec, [target.platform])
        target.brings = self._proxy_parts(target.dc)
        self.proxies[target.host_id] = target

    def renew_proxies(self, dc: str) -> None:
        """The hosts of a datacenter need more than before."""
        for proxy in self.proxies.values():
            if proxy.dc == dc:
                proxy.brings = self._proxy_parts(dc)
                if proxy.proxy:
                    proxy.parts = proxy.brings
                    proxy.recount()
                    self.refresh(proxy)

    def _proxy_parts(self, dc: str) -> Parts:
        """What the hosts of a datacenter need, all of it."""
        return parts_of_all(self.spec, self.platforms.get(dc, ()))

    def add_missing(self, target: Target, missing_bytes: int) -> None:
        if not target.proxy:
            tally = self.tallies[target.dc]
            tally.missing_bytes += missing_bytes
            tally.received_bytes += max(0, -missing_bytes)

    def open(self, target: Target) -> None:
        if not target.opened:
            target.opened = True
            self.opened += 1
            self.opened_good += target.good
            self.opened_final += target.final

    def refresh(self, target: Target) -> None:
        """Bring the counts in line with what changed at a host; O(1)."""
        state, good = target.derive(into_runtime=self.into_runtime)
        if good:
            self.set_final(target, False)
            target.code = target.reason = ""
        if target.proxy:
            target.state, target.good = state, good
            return
        if state != target.state:
            self.tallies[target.dc].move(target.state, state)
            target.state = state
        if good is not target.good:
            target.good = good
            self.opened_good += (1 if good else -1) if target.opened else 0
        self.note_failed(target)

    def set_final(self, target: Target, final: bool) -> None:
        if final is not target.final:
            target.final = final
            if target.opened and not target.proxy:
                self.opened_final += 1 if final else -1

    def note_failed(self, target: Target) -> None:
        lost_for_good = target.final and target.state == "lost"
        if lost_for_good is not target.lost_for_good:
            target.lost_for_good = lost_for_good
            self.tallies[target.dc].lost_for_good += 1 if lost_for_good else -1
        if target.final or target.state == "lost":
            self.failed[target.host_id] = target
        else:
            self.failed.pop(target.host_id, None)

    def forget_hosts(self) -> None:
        """Free what the hosts take; the job stays as its summary."""
        self.targets.clear()
        self.proxies.clear()
        self.groups.clear()
        self.failed.clear()
        self.platforms.clear()
        self.tallies.clear()

    # --- waves ----------------------------------------------------------------------------------

    @property
    def gate_passed(self) -> bool:
        """Enough hosts of the open waves have it for the next one to open."""
        return self.opened_good >= self._needed

    @property
    def gate_out_of_reach(self) -> bool:
        return self.opened - self.opened_final < self._needed

    @property
    def _needed(self) -> int:
        return math.ceil(self.spec.wave_gate * self.opened - 1e-9)

    @property
    def settled(self) -> bool:
        """All waves are open, and every host is where the job wants it or failed for good."""
        return (
            self.wave == len(self.spec.waves)
            and not self.opening
            and self.opened_good + self.opened_final >= self.opened
        )

    # --- checks ---------------------------------------------------------------------------------

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert self.ended is (self.ended_unix_s > 0)
        assert 0 <= self.wave <= len(self.spec.waves)
        assert self.opening >= 0
        assert self.wave or not (self.active or self.opening)
        assert self.ticking or not self.active
        assert bool(self.reason) is (self.state == "held")
        if self.summary is not None:
            assert self.ended
            kept = (self.targets, self.proxies, self.groups, self.failed, self.tallies)
            assert not any(kept), "who is not watched any more takes no memory"
            return
        self._validate_hosts()
        self._validate_counts()
        for platform, group in self.groups.items():
            if group is not None:
                hosts = [t for t in self.targets.values() if t.platform == platform]
                group.validate([t for t in hosts if not t.trusted])

    def _validate_hosts(self) -> None:
        for target in (*self.targets.values(), *self.proxies.values()):
            target.validate(into_runtime=self.into_runtime)
        platforms: dict[str, set[str]] = {}
        for host_id, target in self.targets.items():
            assert target.host_id == host_id
            assert not target.proxy
            assert 0 <= target.wave < len(self.spec.waves)
            assert target.wave < self.wave or not target.opened
            if self.active and not self.opening:
                assert target.opened is (target.wave < self.wave)
            assert (host_id in self.proxies) is (target.brings is not None)
            platforms.setdefault(target.dc, set()).add(target.platform)
        assert self.platforms == platforms
        for host_id, proxy in self.proxies.items():
            assert proxy.host_id == host_id
            assert proxy.brings is not None
            assert proxy.proxy or self.targets[host_id] is proxy
            assert proxy.brings.sizes == self._proxy_parts(proxy.dc).sizes, "all that they need"

    def _validate_counts(self) -> None:
        by_dc: dict[str, list[Target]] = {}
        for target in self.targets.values():
            by_dc.setdefault(target.dc, []).append(target)
        assert self.tallies.keys() == by_dc.keys()
        for dc, tally in self.tallies.items():
            tally.validate(by_dc[dc])
        opened = [target for target in self.targets.values() if target.opened]
        assert self.opened == len(opened)
        assert self.opened_good == sum(target.good for target in opened)
        assert self.opened_final == sum(target.final for target in opened)
        failed = {i: t for i, t in self.targets.items() if t.final or t.state == "lost"}
        assert self.failed == failed

    # --- on disk --------------------------------------------------------------------------------

    def stored_target(self, target: Target) -> StoredTarget:
        return StoredTarget(
            target.host_id,
            target.name,
            target.dc,
            target.platform,
            target.wave,
            target.tries,
            target.final,
            target.code,
            target.reason,
        )


def restored_target(stored: StoredTarget) -> Target:
    target = Target(stored.host_id, stored.name, stored.dc, stored.platform, stored.wave)
    target.tries, target.final = stored.tries, stored.final
    target.code, target.reason = stored.code, stored.reason
    return target
