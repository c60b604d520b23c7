"""What both worlds run, and how a case of the one is told to the other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from bench.sim.fleet import Fleet
from bench.sim.report import at
from bench.sim.scenario import Faults, Scenario, Wave
from bench.swarm.cases import PAYLOAD_SHARE, Case

BEGIN_S: Final = 1.0
"""When the hosts of a simulation begin to pull; by then they know their tracker."""
END_S: Final = 600.0

WHOLE: Final = (
    Case("cold", 15, 100),
    Case("warm", 15, 100, warm=True),
    Case("tracker_killed", 15, 100, warm=True, tracker_dies_s=8.0),
)
HALF: Final = (
    Case("cold_half", 15, 50, (100,)),
    Case("warm_half", 15, 50, (100,), warm=True),
)


@dataclass(frozen=True, slots=True)
class Ends:
    """When hosts had the image, in seconds from the common start."""

    p50_s: float
    last_s: float


def ends(ascending: list[float]) -> Ends:
    return Ends(at(ascending, 0.5), ascending[-1])


def scenario(case: Case, cpu_s_per_gb: float) -> Scenario:
    """The same hosts, links and cores, simulated: one proxy, and where the image does not lie there
    a registry with a link like its own. `cpu_s_per_gb`: what daemons and clients take."""
    assert case.mbit_per_s is not None
    host = case.mbit_per_s * PAYLOAD_SHARE
    core = (case.core_mbit_per_s or case.mbit_per_s) * PAYLOAD_SHARE
    dies_s = case.tracker_dies_s
    return Scenario(
        about=case.name,
        waves=[Wave(hosts=case.hosts)],
        layers=[float(mib) for mib in case.layers_mib],
        host_mbit=host,
        seed_mbit=core,
        upstream_mbit=0.0 if case.warm else core,
        chunks_per_record=1,
        cores=float(len(os.sched_getaffinity(0))),
        cpu_s_per_gb=cpu_s_per_gb,
        faults=Faults(tracker_killed_at_s=0.0 if dies_s is None else BEGIN_S + dies_s),
    )


def predicted(case: Case, cpu_s_per_gb: float, seed: int) -> list[float]:
    """What a simulation says each host takes, ascending; infinity for those that got nothing."""
    fleet = Fleet(scenario(case, cpu_s_per_gb), seed)
    fleet.run(end_s=END_S)
    took = [pull.took_s for pull in fleet.pulls]
    return sorted(float("inf") if s is None else s for s in took)


def error(measured: Ends, simulated: Ends) -> float:
    """By what share of what was measured the simulation is off, at the worse of both places."""
    return max(
        abs(simulated.p50_s / measured.p50_s - 1),
        abs(simulated.last_s / measured.last_s - 1),
    )
