"""Small versions of the scenarios, whose figures are held to bounds (`guards.toml`).

    python -m tests.sim.guards            what each has now, beside its bounds
    python -m tests.sim.guards kraken

A version has 500 hosts on links of half a gigabit and a dozen chunks: enough for every
part of the cores to be at work, and little enough for all of them to take two minutes. It says
nothing of the targets. One seed has one course, so a bound can be near to what was seen.
"""

from __future__ import annotations

import gc
import sys
import time
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from bench.sim.fleet import Fleet
from bench.sim.report import outcome
from bench.sim.scenario import Scenario, load, names

BOUNDS: Final = Path(__file__).with_name("guards.toml")
HOSTS: Final = 500
HOST_MBIT: Final = 500.0
MIB: Final = 3.0
LAYERS_MAX: Final = 2
"""More say little else, and take a third more time."""
END_S: Final = 120.0


def bounds() -> dict[str, dict[str, float]]:
    """By scenario and figure: what it may be at most."""
    return tomllib.loads(BOUNDS.read_text())


def smaller(scenario: Scenario) -> Scenario:
    """The version of a scenario that is guarded."""
    scenario = scenario.scaled(HOSTS).shrunk(HOST_MBIT / scenario.host_mbit)
    layers = scenario.layers[:LAYERS_MAX]
    share = MIB / sum(layers)
    faults = scenario.faults
    if faults.tracker_killed_at_s:  # while the last of them pull
        faults = msgspec.structs.replace(faults, tracker_killed_at_s=2.02)
    layers = [mib * share for mib in layers]
    return msgspec.structs.replace(scenario, layers=layers, faults=faults)


def figures(name: str, *, tracker_killed_at_s: float | None = None) -> dict[str, float]:
    """Let the small version run; infinite times where some hosts had not all of it in the end.
    `tracker_killed_at_s`: instead of when its scenario has it; hosts begin from 1.0 s on."""
    scenario = smaller(load(name))
    if tracker_killed_at_s is not None:
        faults = scenario.faults
        faults = msgspec.structs.replace(faults, tracker_killed_at_s=tracker_killed_at_s)
        scenario = msgspec.structs.replace(scenario, faults=faults)
    fleet = Fleet(scenario, 1)
    gc.disable()  # everything lives until the end
    try:
        finished = fleet.run(end_s=END_S)
    finally:
        gc.enable()
    found = outcome(name, fleet, finished=finished, cpu_s=0.0, peak_mb=0.0).figures
    late = {} if finished else {"p50": float("inf"), "p99": float("inf")}
    return {**found, **late}


def main() -> None:
    for name in sys.argv[1:] or names():
        began_s = time.process_time()
        found, limits = figures(name), bounds().get(name, {})
        print(f"[{name}]  # {time.process_time() - began_s:.1f} CPU-s")
        for key in limits or ("p50", "p99", "duplicates", "seed_copies"):
            print(f"{key} = {found[key]:.4f}  # <= {limits.get(key)}")


if __name__ == "__main__":
    main()
