"""Which hosts a job is for, and in which wave each is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from p2pdist.model.jobs import JobSpec
from p2pdist.model.rendezvous import ranked
from p2pdist.tracker.core.selector import Candidate, Selector


@dataclass(frozen=True, slots=True)
class Chosen:
    host_id: str
    wave: int


def choose_hosts(
    job_id: str, spec: JobSpec, selector: Selector, candidates: Sequence[Candidate]
) -> list[Chosen]:
    """Return the hosts that a job is for, in the order of their waves.

    A proxy that is one of them goes first: it brings what the others need.
    Shares no state with anything: for 10,000 hosts and more it belongs in a thread.
    """
    chosen = selector.choose(candidates)
    by_dc: dict[str, list[str]] = {}
    for host in candidates:
        if host.host_id in chosen:
            by_dc.setdefault(host.dc, []).append(host.host_id)
    waves = []
    first = {host.host_id for host in candidates if host.proxy and not spec.proxies_only}
    for ids in by_dc.values():
        ends = [math.ceil(share * len(ids) - 1e-9) for share in spec.waves]
        for at, host_id in enumerate(ranked(job_id, ids)):
            wave = next((k for k, end in enumerate(ends) if at < end), len(ends) - 1)
            wave = 0 if host_id in first else wave
            waves.append(Chosen(host_id, wave))
    return sorted(waves, key=lambda one: one.wave)
