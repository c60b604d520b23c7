"""What a job would move, and whether its deadline can hold: said before a byte is moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from p2pdist.model.control import SwarmKey
from p2pdist.model.ids import HostId
from p2pdist.model.jobs import DcPlan, JobPlan, JobSpec
from p2pdist.tracker.core.jobs.choosing import Chosen
from p2pdist.tracker.core.jobs.parts import Parts, parts_of, parts_of_all
from p2pdist.tracker.core.jobs.target import Target
from p2pdist.tracker.core.swarms import Host, Swarms, Tier


@dataclass(slots=True)
class _Dc:
    hosts: int = 0
    ready: int = 0
    host_bytes: int = 0
    largest_host_bytes: int = 0
    waves: set[int] = field(default_factory=set)
    """Those that have hosts with something to fetch."""
    keys: dict[SwarmKey, int] = field(default_factory=dict)


class Planner:
    """Feed all chosen hosts, some at a time, then ask for the plan."""

    def __init__(self, spec: JobSpec, hosts: Mapping[HostId, Host], swarms: Swarms) -> None:
        self._spec = spec
        self._hosts = hosts
        self._swarms = swarms
        self._dcs: dict[str, _Dc] = {}
        self._parts: dict[str, Parts | None] = {}
        self._unfit = 0
        self._unready_runtimes = 0

    def add(self, chosen: Iterable[Chosen]) -> None:
        """O(parts) for each host."""
        for one in chosen:
            host = self._hosts.get(HostId(one.host_id))
            if host is not None and host.about is not None:
                self._add(host, host.about.platform, one.wave)
                self._unready_runtimes += self._spec.into_runtime and not host.about.runtimes

    def _add(self, host: Host, platform: str, wave: int) -> None:
        dc = self._dcs.setdefault(host.dc, _Dc())
        dc.hosts += 1
        parts = self._parts_for(platform)
        if parts is None:
            self._unfit += 1
            return
        scratch = Target(host.host_id, "", host.dc, platform, wave)
        scratch.host, scratch.parts = host, parts
        scratch.recount()
        dc.ready += not scratch.missing_parts
        dc.host_bytes += scratch.missing_bytes
        dc.largest_host_bytes = max(dc.largest_host_bytes, scratch.missing_bytes)
        if scratch.missing_bytes:
            dc.waves.add(wave)
        dc.keys.update(parts.sizes)

    def _parts_for(self, platform: str) -> Parts | None:
        if self._spec.proxies_only:
            platform = ""
        if platform not in self._parts:
            try:
                every = self._spec.proxies_only
                self._parts[platform] = (
                    parts_of_all(self._spec, ()) if every else parts_of(self._spec, platform)
                )
            except ValueError:
                self._parts[platform] = None
        return self._parts[platform]

    def plan(self, now_unix_s: float) -> JobPlan:
        spec = self._spec
        dcs = [self._dc_plan(name, dc) for name, dc in sorted(self._dcs.items())]
        bounds = [self._needs_s(plan, self._dcs[plan.dc]) for plan in dcs]
        known = [bound for bound in bounds if bound is not None]
        needs_s = max(known) if known else None
        holds, warnings = None, []
        if spec.deadline_unix_s:
            left_s = spec.deadline_unix_s - max(now_unix_s, spec.at_unix_s)
            if left_s < (needs_s or 0.0) or left_s <= 0:
                holds = False
                warnings.append(
                    f"the deadline cannot hold: {needs_s or 0:.0f} s are needed at least, "
                    f"{max(0.0, left_s):.0f} s are left"
                )
            elif needs_s is not None:
                holds = True
        if self._unfit:
            warnings.append(f"an image has nothing for the platform of {self._unfit} of the hosts")
        if self._unready_runtimes:
            warnings.append(f"{self._unready_runtimes} of the hosts without peer.into_runtime")
        return JobPlan(dcs, needs_s, holds, warnings)

    def _dc_plan(self, name: str, dc: _Dc) -> DcPlan:
        outside = sum(size for key, size in dc.keys.items() if not self._held_in(name, key))
        spec = self._spec
        return DcPlan(
            name,
            dc.hosts,
            dc.ready,
            dc.host_bytes,
            dc.largest_host_bytes,
            outside,
            outside / spec.dc_rate if spec.dc_rate else None,
            dc.largest_host_bytes / spec.rate if spec.rate else None,
        )

    def _held_in(self, dc: str, key: SwarmKey) -> bool:
        swarm = self._swarms.get(key)
        pool = swarm.pool((dc,)) if swarm is not None else None
        return pool is not None and bool(pool.tiers[Tier.COMPLETE])

    def _needs_s(self, plan: DcPlan, dc: _Dc) -> float | None:
        """Waves come one after the other, each as long as its emptiest host; the link is used once
        for all of them."""
        hosts_s = None if plan.hosts_s is None else plan.hosts_s * len(dc.waves)
        bounds = [bound for bound in (plan.link_s, hosts_s) if bound is not None]
        return max(bounds) if bounds else None
